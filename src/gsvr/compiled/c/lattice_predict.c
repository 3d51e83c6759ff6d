/* Pixels of a field on a lattice: every Gaussian is splatted on every slice it touches. */
#include "lattice_kernels.h"
#include "lattice_row.h"
#include "lattice_sites.h"
#include "long_windows.h"
#include "short_windows.h"
#include "tasks.h"

/* Splats of a batch are not added in order but at some places in turn: neighbouring Gaussians touch the same pixels,
 * and a processor has to wait before it can load what it has just stored, unless it is exactly the same vector. */
enum { PLACES = 4 };

INLINE void add_batch(
    int rows, batch *all, const lattice_splats *splats, int64_t first, int64_t count, const float *heights,
    const float *table_u, const float *table_v, float *frame, int64_t stride) {
    fill_factors(rows, all, splats->ratios_u + first, splats->scales + first, table_u, count, 0);
    fill_windows(all, splats->ratios_v + first, heights, table_v, count);
    const int32_t *starts = splats->starts + first;
    const int64_t apart = (count + PLACES - 1) / PLACES;
    for (int64_t j = 0; j < apart; j++) {
        for (int64_t i = j; i < count; i += apart) {
            const vector window = load(all->windows + i * LANES);
            float *place = frame + starts[i];
            for (int a = 0; a < rows; a++) {
                store(place + a * stride, load(place + a * stride) + all->factors[a * BATCH + i] * window);
            }
        }
    }
}

typedef struct {
    float *frame, *line, *tables;
    batch *all;
} scratch;

static int allocate(scratch *own, const slice_windows *w, const touched_sites *touched, int64_t frame_size_needed) {
    const int64_t tables = 2 * whole_lanes(w->n_rows) + 2 * whole_lanes(w->n_columns);
    own->frame = malloc((size_t)frame_size_needed * sizeof(float));
    own->line = calloc((size_t)(touched->ny * touched->nz + LANES), sizeof(float));
    own->tables = calloc((size_t)tables, sizeof(float));
    own->all = malloc(sizeof(batch));
    return own->frame && own->line && own->tables && own->all;
}

static void release(scratch *own) {
    free(own->frame);
    free(own->line);
    free(own->tables);
    free(own->all);
}

static void add_plane_of_long_windows(
    const slice_windows *w, const lattice_splats *splats, int64_t n, int64_t end, const float *heights, int64_t rows,
    const float *table_u, const float *table_v, float *window_u, float *window_v, float *frame, int64_t stride) {
    const int64_t blocks = whole_lanes(w->n_columns) / LANES, row_blocks = whole_lanes(w->n_rows) / LANES;
    for (int64_t first = n; n < end; n++) {
        fill_window(window_u, table_u, splats->ratios_u[n], heights[n - first] * splats->scales[n], row_blocks);
        fill_window(window_v, table_v, splats->ratios_v[n], 1, blocks);
        add_outer(frame + splats->starts[n], stride, window_u, rows, window_v, blocks);
    }
}

static void predict_slice(
    int64_t s, const slice_windows *w, const touched_sites *touched, const lattice_splats *splats,
    const float *amplitudes, const scratch *own, float *pixels) {
    const int64_t size_u = whole_lanes(w->n_rows), size_v = whole_lanes(w->n_columns), stride = frame_stride(w, s);
    float *table_u = own->tables, *table_v = table_u + size_u, *window_u = table_v + size_v,
          *window_v = window_u + size_u;
    const int64_t rows = (int64_t)floor(2 * w->reach[2 * s]) + 1;
    fill_tables(w, s, size_u, size_v, table_u, table_v);
    memset(own->frame, 0, (size_t)frame_size(w, s) * sizeof(float));
    for (int64_t x = 0; x < touched->nx; x++) {
        const int64_t n = touched->splat_first[s * (touched->nx + 1) + x];
        const int64_t end = touched->splat_first[s * (touched->nx + 1) + x + 1];
        if (n == end) continue;
        gather_plane(touched, s, x, amplitudes, own->line);
        if (size_u > LANES || size_v > LANES) {
            add_plane_of_long_windows(
                w, splats, n, end, own->line, rows, table_u, table_v, window_u, window_v, own->frame, stride);
            continue;
        }
        for (int64_t first = n; first < end; first += BATCH) {
            const int64_t count = end - first < BATCH ? end - first : BATCH;
            WITH_ROWS(
                rows, add_batch, own->all, splats, first, count, own->line + first - n, table_u, table_v, own->frame,
                stride)
        }
    }
    const int64_t *shape = w->shapes + 2 * s;
    for (int64_t a = 0; a < shape[0]; a++) {
        memcpy(
            pixels + w->first_pixel[s] + a * shape[1], own->frame + frame_row(w, s, a),
            (size_t)shape[1] * sizeof(float));
    }
}

KERNEL predict_lattice(
    tasks *slices, const slice_windows *windows, const touched_sites *touched, const lattice_splats *splats,
    const float *amplitudes, float *pixels) {
    scratch own;
    const int ready = allocate(&own, windows, touched, largest_frame(windows, slices->count));
    if (ready) {
        FOR_EACH_TASK(s, slices) predict_slice(s, windows, touched, splats, amplitudes, &own, pixels);
    }
    release(&own);
    return ready ? DONE : NO_MEMORY;
}
