/* Which Gaussians of a lattice each slice touches, and the windows through which they do. */
#include <math.h>

#include "lattice_row.h"
#include "tasks.h"

/* Sites [first, last) of row (x, y) whose coordinates lie between `low` and `high`; as floating-point numbers. */
static int row_interval(
    const double *matrix, int64_t x, int64_t y, const double *low, const double *high, int64_t *first, int64_t *last) {
    double z0 = (double)*first, z1 = (double)*last - 1;
    for (int axis = 0; axis < 3; axis++) {
        const double *row = matrix + 4 * axis;
        double step = row[2], base = row[0] * (double)x + row[1] * (double)y + row[3];
        if (fabs(step) < 1e-9) {
            if (base < low[axis] || base > high[axis]) return 0;
            continue;
        }
        double a = (low[axis] - base) / step, b = (high[axis] - base) / step;
        z0 = fmax(z0, fmin(a, b));
        z1 = fmin(z1, fmax(a, b));
        if (z0 > z1) return 0;
    }
    *first = (int64_t)ceil(z0);
    *last = (int64_t)floor(z1) + 1;
    return *last > *first;
}

/* Whether the box spanned by a lattice plane's four corners reaches the slice on every axis. */
static int plane_touches(
    const double *matrix, int64_t x, int64_t ny, int64_t nz, const double *low, const double *high) {
    for (int axis = 0; axis < 3; axis++) {
        const double *row = matrix + 4 * axis;
        double base = row[0] * (double)x + row[3];
        double y = row[1] * (double)(ny - 1), z = row[2] * (double)(nz - 1);
        if (base + fmax(y, 0) + fmax(z, 0) < low[axis] || base + fmin(y, 0) + fmin(z, 0) > high[axis]) return 0;
    }
    return 1;
}

KERNEL find_touched_sites(
    tasks *slices, const slice_windows *windows, int64_t nx, int64_t ny, int64_t nz, const int64_t *row_first,
    const int64_t *row_last, int16_t *first, int16_t *count) {
    FOR_EACH_TASK(s, slices) {
        const double *matrix = windows->from_lattice + 12 * s;
        const double *reach = windows->reach + 2 * s, *depth = windows->depth + 2 * s;
        const int64_t *shape = windows->shapes + 2 * s;
        const double low[3] = {-reach[0], -reach[1], depth[0]};
        const double high[3] = {(double)(shape[0] - 1) + reach[0], (double)(shape[1] - 1) + reach[1], depth[1]};
        for (int64_t x = 0; x < nx; x++) {
            if (!plane_touches(matrix, x, ny, nz, low, high)) continue;
            for (int64_t row = x * ny; row < (x + 1) * ny; row++) {
                int64_t begin = row_first[row], end = row_last[row];
                if (begin < end && row_interval(matrix, x, row - x * ny, low, high, &begin, &end)) {
                    first[s * nx * ny + row] = (int16_t)begin;
                    count[s * nx * ny + row] = (int16_t)(end - begin);
                }
            }
        }
    }
    return DONE;
}

KERNEL plan_lattice(
    tasks *slices, const slice_windows *windows, const touched_sites *touched, int32_t *starts, float *ratios_u,
    float *ratios_v, float *scales) {
    const int64_t rows_a_slice = touched->nx * touched->ny;
    FOR_EACH_TASK(s, slices) {
        const row_view view = view_of_slice(windows, s);
        const int32_t stride = (int32_t)frame_stride(windows, s), corner = (int32_t)frame_row(windows, s, 0);
        int64_t n = touched->splat_first[s * (touched->nx + 1)];
        for (int64_t row = 0; row < rows_a_slice; row++) {
            const int64_t count = touched->count[s * rows_a_slice + row], first = touched->first[s * rows_a_slice + row];
            for (int64_t i = 0; i < count; i += LANES) {
                const row_splats found = splats_of_row(&view, row / touched->ny, row % touched->ny, first + i);
                const integers start = __builtin_convertvector(found.row, integers) * stride +
                                       __builtin_convertvector(found.column, integers) + corner;
                store_first_integers(starts + n + i, start, count - i);
                store_first(ratios_u + n + i, found.ratio_u, count - i);
                store_first(ratios_v + n + i, found.ratio_v, count - i);
                store_first(scales + n + i, found.scale, count - i);
            }
            n += count;
        }
    }
    return DONE;
}
