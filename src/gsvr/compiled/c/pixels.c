/* The pixels of slices: averaged in blocks, placed in space, and a volume sampled at them. */
#include <math.h>

#include "pixel_kernels.h"

#include "tasks.h"

KERNEL bin_pixels(
    tasks *slices, int64_t factor, const int64_t *shapes, const int64_t *first_pixel, const float *values,
    const uint8_t *mask, const int64_t *first_binned, float *binned, float *coverage) {
    FOR_EACH_TASK(s, slices) {
        const int64_t rows = shapes[2 * s], columns = shapes[2 * s + 1];
        const int64_t binned_columns = (columns + factor - 1) / factor;
        float *sums = binned + first_binned[s], *shares = coverage + first_binned[s];
        const int64_t size = first_binned[s + 1] - first_binned[s];
        for (int64_t i = 0; i < size; i++) sums[i] = shares[i] = 0;
        for (int64_t a = 0; a < rows; a++) {
            const int64_t source = first_pixel[s] + a * columns, target = a / factor * binned_columns;
            for (int64_t b = 0; b < columns; b++) {
                if (!mask[source + b]) continue;
                sums[target + b / factor] += values[source + b];
                shares[target + b / factor] += 1;
            }
        }
        for (int64_t i = 0; i < size; i++) {
            sums[i] /= shares[i] > 0 ? shares[i] : 1;
            shares[i] /= (float)(factor * factor);
        }
    }
    return DONE;
}

KERNEL place_pixels(
    tasks *slices, const int64_t *shapes, const int64_t *first_pixel, const double *corners, const double *steps,
    const uint8_t *mask, const int64_t *first_placed, double *positions) {
    FOR_EACH_TASK(s, slices) {
        const double *corner = corners + 3 * s, *u = steps + 6 * s, *v = u + 3;
        double *target = positions + 3 * first_placed[s];
        const uint8_t *inside = mask + first_pixel[s];
        for (int64_t a = 0; a < shapes[2 * s]; a++) {
            for (int64_t b = 0; b < shapes[2 * s + 1]; b++) {
                if (!*inside++) continue;
                for (int axis = 0; axis < 3; axis++) {
                    *target++ = corner[axis] + (double)a * u[axis] + (double)b * v[axis];
                }
            }
        }
    }
    return DONE;
}

KERNEL mark_sites(
    tasks *chunks, int64_t chunk, int64_t n_points, const double *points, double spacing, const int64_t *low,
    int64_t ny, int64_t nz, uint8_t *occupied) {
    FOR_EACH_TASK(task, chunks) {
        const int64_t last = (task + 1) * chunk < n_points ? (task + 1) * chunk : n_points;
        for (int64_t n = task * chunk; n < last; n++) {
            int64_t site[3];
            for (int axis = 0; axis < 3; axis++) site[axis] = (int64_t)rint(points[3 * n + axis] / spacing) - low[axis];
            /* several threads may mark one site, all in the same way */
            __atomic_store_n(occupied + (site[0] * ny + site[1]) * nz + site[2], 1, __ATOMIC_RELAXED);
        }
    }
    return DONE;
}

/* Between eight voxels; places beyond the outermost ones are outside. */
static double interpolated(const double *volume, const int64_t shape[3], const double place[3], double outside) {
    int64_t lower[3], next[3];
    double share[3];
    for (int axis = 0; axis < 3; axis++) {
        if (!(place[axis] >= 0 && place[axis] <= (double)(shape[axis] - 1))) return outside;
        lower[axis] = (int64_t)place[axis];
        next[axis] = lower[axis] + 1 < shape[axis] ? 1 : 0;
        share[axis] = place[axis] - (double)lower[axis];
    }
    const double *here = volume + (lower[0] * shape[1] + lower[1]) * shape[2] + lower[2];
    const int64_t x = next[0] * shape[1] * shape[2], y = next[1] * shape[2], z = next[2];
    double rows[4];
    for (int row = 0; row < 4; row++) {
        const double *first = here + (row & 2 ? x : 0) + (row & 1 ? y : 0);
        rows[row] = first[0] + share[2] * (first[z] - first[0]);
    }
    const double near = rows[0] + share[1] * (rows[1] - rows[0]), far = rows[2] + share[1] * (rows[3] - rows[2]);
    return near + share[0] * (far - near);
}

KERNEL sample_at_pixels(
    tasks *slices, const int64_t *shapes, const int64_t *first_pixel, const double *corners, const double *steps,
    const double *volume, int64_t nx, int64_t ny, int64_t nz, double outside, double *samples) {
    const int64_t shape[3] = {nx, ny, nz};
    FOR_EACH_TASK(s, slices) {
        const double *corner = corners + 3 * s, *u = steps + 6 * s, *v = u + 3;
        double *target = samples + first_pixel[s];
        for (int64_t a = 0; a < shapes[2 * s]; a++) {
            for (int64_t b = 0; b < shapes[2 * s + 1]; b++) {
                double place[3];
                for (int axis = 0; axis < 3; axis++) {
                    place[axis] = corner[axis] + (double)a * u[axis] + (double)b * v[axis];
                }
                *target++ = interpolated(volume, shape, place, outside);
            }
        }
    }
    return DONE;
}
