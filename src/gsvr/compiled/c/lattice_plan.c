/* Which Gaussians of a lattice each slice touches, and the windows through which they do. */
#include <math.h>

#include "lattice_kernels.h"
#include "lattice_row.h"
#include "tasks.h"

/* What decides which sites of a row a slice touches: their coordinates must lie between `low` and `high`. */
typedef struct {
    const double *matrix;
    double low[3], high[3], inverse_step[3];
} slice_box;

/* Sites of rows (x, 0), (x, 1), ... between the limits of all axes, as numbers that are not yet whole. */
static void row_intervals(const slice_box *box, int64_t x, int64_t ny, double *restrict begin, double *restrict end) {
    for (int axis = 0; axis < 3; axis++) {
        const double *row = box->matrix + 4 * axis, low = box->low[axis], high = box->high[axis];
        const double base = row[0] * (double)x + row[3], step = row[1], inverse = box->inverse_step[axis];
        if (inverse == 0) { /* the row runs across the axis: all of its sites, or none */
            for (int64_t y = 0; y < ny; y++) {
                const double place = base + step * (double)y;
                begin[y] = place < low || place > high ? INFINITY : begin[y];
            }
            continue;
        }
        for (int64_t y = 0; y < ny; y++) {
            const double place = base + step * (double)y;
            const double a = (low - place) * inverse, b = (high - place) * inverse;
            const double least = a < b ? a : b, most = a < b ? b : a;
            begin[y] = begin[y] > least ? begin[y] : least;
            end[y] = end[y] < most ? end[y] : most;
        }
    }
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

static slice_box box_of_slice(const slice_windows *w, int64_t s) {
    const double *reach = w->reach + 2 * s, *depth = w->depth + 2 * s;
    const int64_t *shape = w->shapes + 2 * s;
    slice_box box = {
        w->from_lattice + 12 * s,
        {-reach[0], -reach[1], depth[0]},
        {(double)(shape[0] - 1) + reach[0], (double)(shape[1] - 1) + reach[1], depth[1]},
        {0, 0, 0},
    };
    for (int axis = 0; axis < 3; axis++) {
        const double step = box.matrix[4 * axis + 2];
        box.inverse_step[axis] = fabs(step) < 1e-9 ? 0 : 1 / step;
    }
    return box;
}

KERNEL find_touched_sites(
    tasks *slices, const slice_windows *windows, int64_t nx, int64_t ny, int64_t nz, const int64_t *row_first,
    const int64_t *row_last, int16_t *first, int16_t *count, int64_t *plane_counts) {
    double *begin = malloc(2 * (size_t)ny * sizeof(double)), *end = begin + ny;
    if (!begin) return NO_MEMORY;
    FOR_EACH_TASK(s, slices) {
        const slice_box box = box_of_slice(windows, s);
        for (int64_t x = 0; x < nx; x++) {
            int64_t total = 0;
            if (plane_touches(box.matrix, x, ny, nz, box.low, box.high)) {
                for (int64_t y = 0; y < ny; y++) {
                    begin[y] = (double)row_first[x * ny + y];
                    end[y] = (double)row_last[x * ny + y] - 1;
                }
                row_intervals(&box, x, ny, begin, end);
                for (int64_t y = 0; y < ny; y++) {
                    if (!(begin[y] <= end[y])) continue;
                    const int64_t from = (int64_t)ceil(begin[y]), to = (int64_t)floor(end[y]) + 1;
                    if (from >= to) continue;
                    first[(s * nx + x) * ny + y] = (int16_t)from;
                    count[(s * nx + x) * ny + y] = (int16_t)(to - from);
                    total += to - from;
                }
            }
            plane_counts[s * nx + x] = total;
        }
    }
    free(begin);
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
            const int64_t count = touched->count[s * rows_a_slice + row],
                          first = touched->first[s * rows_a_slice + row];
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
