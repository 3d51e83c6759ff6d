/* The exact transpose of `predict_lattice`: the same loops with a dot product in place of an outer one. */
#include "lattice_kernels.h"
#include "lattice_row.h"
#include "lattice_sites.h"
#include "long_windows.h"
#include "short_windows.h"
#include "tasks.h"

KERNEL frame_lattice_slices(
    tasks *slices, const slice_windows *windows, const float *pixels, const int64_t *frame_first, float *framed) {
    FOR_EACH_TASK(s, slices) {
        float *frame = framed + frame_first[s];
        const int64_t *shape = windows->shapes + 2 * s;
        memset(frame, 0, (size_t)frame_size(windows, s) * sizeof(float));
        for (int64_t a = 0; a < shape[0]; a++) {
            const float *source = pixels + windows->first_pixel[s] + a * shape[1];
            memcpy(frame + frame_row(windows, s, a), source, (size_t)shape[1] * sizeof(float));
        }
    }
    return DONE;
}

INLINE void dot_batch(
    int rows, batch *all, const lattice_splats *splats, int64_t first, int64_t count, const float *frame,
    int64_t stride, const float *table_u, const float *table_v, int square, float *products) {
    fill_factors(rows, all, splats->ratios_u + first, splats->scales + first, table_u, count, square);
    const int32_t *starts = splats->starts + first;
    for (int64_t i = 0; i < count; i++) {
        const float *place = frame + starts[i];
        vector sum = all->factors[i] * load(place);
        for (int a = 1; a < rows; a++) sum += all->factors[a * BATCH + i] * load(place + a * stride);
        store(all->windows + i * LANES, sum);
    }
    multiply_windows(all, splats->ratios_v + first, table_v, count, square, products);
}

typedef struct {
    float *line, *tables;
    batch *all;
} scratch;

static void dot_plane_of_long_windows(
    const slice_windows *w, const lattice_splats *splats, int64_t n, int64_t end, const float *frame, int64_t stride,
    int64_t rows, const float *table_u, const float *table_v, float *window_u, float *window_v, int square,
    float *products) {
    const int64_t blocks = whole_lanes(w->n_columns) / LANES, row_blocks = whole_lanes(w->n_rows) / LANES;
    for (int64_t first = n; n < end; n++) {
        float u = splats->ratios_u[n], v = splats->ratios_v[n], scale = splats->scales[n];
        if (square) u *= u, v *= v, scale *= scale;
        fill_window(window_u, table_u, u, scale, row_blocks);
        fill_window(window_v, table_v, v, 1, blocks);
        products[n - first] = dot_outer(frame + splats->starts[n], stride, window_u, rows, window_v, blocks);
    }
}

static void add_slice(
    int64_t s, int64_t first_plane, int64_t last_plane, const slice_windows *w, const touched_sites *touched,
    const lattice_splats *splats, const float *frame, int square, const scratch *own, float *sites) {
    const int64_t size_u = whole_lanes(w->n_rows), size_v = whole_lanes(w->n_columns), stride = frame_stride(w, s);
    float *table_u = own->tables, *table_v = table_u + size_u, *window_u = table_v + size_v,
          *window_v = window_u + size_u;
    const int64_t rows = (int64_t)floor(2 * w->reach[2 * s]) + 1;
    fill_tables(w, s, size_u, size_v, table_u, table_v);
    for (int64_t x = first_plane; x < last_plane; x++) {
        const int64_t n = touched->splat_first[s * (touched->nx + 1) + x];
        const int64_t end = touched->splat_first[s * (touched->nx + 1) + x + 1];
        if (n == end) continue;
        if (size_u > LANES || size_v > LANES) {
            dot_plane_of_long_windows(
                w, splats, n, end, frame, stride, rows, table_u, table_v, window_u, window_v, square, own->line);
        } else {
            for (int64_t first = n; first < end; first += BATCH) {
                const int64_t count = end - first < BATCH ? end - first : BATCH;
                WITH_ROWS(
                    rows, dot_batch, own->all, splats, first, count, frame, stride, table_u, table_v, square,
                    own->line + first - n)
            }
        }
        scatter_plane(touched, s, x, own->line, sites);
    }
}

KERNEL adjoint_lattice(
    tasks *blocks, int64_t planes_a_task, int64_t n_slices, const slice_windows *windows, const touched_sites *touched,
    const lattice_splats *splats, const float *framed, const int64_t *frame_first, int64_t square, float *sites) {
    scratch own;
    own.line = malloc((size_t)(touched->ny * touched->nz + LANES) * sizeof(float));
    own.tables =
        calloc((size_t)(2 * whole_lanes(windows->n_rows) + 2 * whole_lanes(windows->n_columns)), sizeof(float));
    own.all = calloc(1, sizeof(batch));
    const int ready = own.line && own.tables && own.all;
    if (ready) {
        FOR_EACH_TASK(task, blocks) {
            /* from the middle outwards: the outer blocks have least to do, and threads that end with them end together
             */
            const int64_t middle = blocks->count / 2, step = (task + 1) / 2;
            const int64_t first = (task % 2 ? middle - step : middle + step) * planes_a_task;
            const int64_t last = first + planes_a_task < touched->nx ? first + planes_a_task : touched->nx;
            for (int64_t s = 0; s < n_slices; s++) {
                const int64_t *splat_first = touched->splat_first + s * (touched->nx + 1);
                if (splat_first[first] == splat_first[last]) continue;
                add_slice(s, first, last, windows, touched, splats, framed + frame_first[s], square != 0, &own, sites);
            }
        }
    }
    free(own.line);
    free(own.tables);
    free(own.all);
    return ready ? DONE : NO_MEMORY;
}
