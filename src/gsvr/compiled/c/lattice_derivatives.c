/* Pixels of a field on a lattice and their derivatives by pose: seven planes for every slice.
 *
 * With E' = -q d E along u and v, every plane is again an outer product of E_u or d_u E_u with E_v or d_v E_v, d =
 * pixel
 * - Gaussian (mm). Factors that are the same for all splats of a slice are left to the end: `final_factor`. */
#include "lattice_kernels.h"
#include "lattice_row.h"
#include "lattice_sites.h"
#include "long_windows.h"
#include "short_windows.h"
#include "tasks.h"

enum { N_PLANES = 7 };

/* mm a pixel along u and v; 1 / sigma^2 of the blurred Gaussian (mm^-2). */
typedef struct {
    float spacing_u, spacing_v, curvature_u, curvature_v;
} slice_metric;

INLINE slice_metric metric_of_slice(const slice_windows *w, int64_t s) {
    const float u = (float)w->pixel_spacing[2 * s], v = (float)w->pixel_spacing[2 * s + 1];
    return (slice_metric){
        u, v, (float)(2 * w->sharpness[2 * s]) / (u * u), (float)(2 * w->sharpness[2 * s + 1]) / (v * v)};
}

INLINE float final_factor(int plane, const slice_metric *m) {
    return plane == 1   ? -m->curvature_u
           : plane == 2 ? -m->curvature_v
           : plane == 6 ? m->curvature_u - m->curvature_v
                        : 1;
}

/* Of every splat of a lattice plane: from Gaussian to first pixel (pixels), slope of the profile, torques (mm^-1). */
typedef struct {
    float *offset_u, *offset_v, *slope, *torque_u, *torque_v;
} plane_distances;

static void fill_distances(
    const row_view *view, const slice_metric *metric, const touched_sites *touched, int64_t s, int64_t x,
    const plane_distances *out) {
    int64_t n = 0;
    for (int64_t y = 0; y < touched->ny; y++) {
        const int64_t row = (s * touched->nx + x) * touched->ny + y, count = touched->count[row];
        for (int64_t i = 0; i < count; i += LANES) {
            const row_splats found = splats_of_row(view, x, y, touched->first[row] + i);
            store(out->offset_u + n + i, found.offset_u);
            store(out->offset_v + n + i, found.offset_v);
            store(out->slope + n + i, found.slope);
            store(out->torque_u + n + i, found.slope + metric->curvature_v * found.w);
            store(out->torque_v + n + i, -(found.slope + metric->curvature_u * found.w));
        }
        n += count;
    }
}

INLINE void add_batch(
    int rows, batch *all, const lattice_splats *splats, int64_t first, int64_t count, const float *heights,
    const plane_distances *distances, int64_t offset, const slice_metric *metric, const float *table_u,
    const float *table_v, float *frame, int64_t plane_size, int64_t stride) {
    enum { PLACES = 4 };
    fill_factors(rows, all, splats->ratios_u + first, splats->scales + first, table_u, count, 0);
    fill_windows(all, splats->ratios_v + first, heights, table_v, count);
    const int64_t apart = (count + PLACES - 1) / PLACES;
    for (int64_t j = 0; j < apart; j++) {
        for (int64_t i = j; i < count; i += apart) {
            const int64_t n = offset + i;
            const vector window = load(all->windows + i * LANES);
            const vector moment = (lane_numbers() + distances->offset_v[n]) * metric->spacing_v * window;
            const vector sloped = distances->slope[n] * window;
            const vector turned_u = distances->torque_u[n] * moment, turned_v = distances->torque_v[n] * window;
            float *place = frame + splats->starts[first + i];
            for (int a = 0; a < rows; a++) {
                const float factor = all->factors[a * BATCH + i];
                const float moved = factor * metric->spacing_u * (distances->offset_u[n] + (float)a);
                float *pixel = place + a * stride;
                store(pixel, load(pixel) + factor * window);
                store(pixel + plane_size, load(pixel + plane_size) + moved * window);
                store(pixel + 2 * plane_size, load(pixel + 2 * plane_size) + factor * moment);
                store(pixel + 3 * plane_size, load(pixel + 3 * plane_size) + factor * sloped);
                store(pixel + 4 * plane_size, load(pixel + 4 * plane_size) + factor * turned_u);
                store(pixel + 5 * plane_size, load(pixel + 5 * plane_size) + moved * turned_v);
                store(pixel + 6 * plane_size, load(pixel + 6 * plane_size) + moved * moment);
            }
        }
    }
}

typedef struct {
    float *frame, *line, *tables, *moments, *distances;
    batch *all;
} scratch;

/* One splat with a window of any size. */
INLINE void add_long_window(
    const slice_windows *w, const slice_metric *metric, const plane_distances *distances, int64_t n, int64_t rows,
    const float *window_u, const float *window_v, float *moment_u, float *moment_v, float *place, int64_t plane_size,
    int64_t stride) {
    const int64_t blocks = whole_lanes(w->n_columns) / LANES, row_blocks = whole_lanes(w->n_rows) / LANES;
    for (int64_t b = 0; b < blocks * LANES; b++) {
        moment_v[b] = metric->spacing_v * (distances->offset_v[n] + (float)b) * window_v[b];
    }
    for (int64_t a = 0; a < row_blocks * LANES; a++) {
        moment_u[a] = metric->spacing_u * (distances->offset_u[n] + (float)a) * window_u[a];
    }
    const float scales[N_PLANES] = {1, 1, 1, distances->slope[n], distances->torque_u[n], distances->torque_v[n], 1};
    for (int plane = 0; plane < N_PLANES; plane++) {
        const float *column = plane == 1 || plane == 5 || plane == 6 ? moment_u : window_u;
        const float *row = plane == 2 || plane == 4 || plane == 6 ? moment_v : window_v;
        float *scaled = moment_u + row_blocks * LANES;
        for (int64_t a = 0; a < row_blocks * LANES; a++) scaled[a] = scales[plane] * column[a];
        add_outer(place + plane * plane_size, stride, scaled, rows, row, blocks);
    }
}

static void write_planes(
    const slice_windows *w, int64_t s, const slice_metric *metric, const float *frame, int64_t plane_size,
    int64_t n_pixels, float *planes) {
    const int64_t *shape = w->shapes + 2 * s;
    for (int plane = 0; plane < N_PLANES; plane++) {
        const float factor = final_factor(plane, metric);
        for (int64_t a = 0; a < shape[0]; a++) {
            const float *source = frame + plane * plane_size + frame_row(w, s, a);
            float *target = planes + plane * n_pixels + w->first_pixel[s] + a * shape[1];
            for (int64_t b = 0; b < shape[1]; b++) target[b] = factor * source[b];
        }
    }
}

static void differentiate_slice(
    int64_t s, const slice_windows *w, const touched_sites *touched, const lattice_splats *splats,
    const float *amplitudes, const scratch *own, int64_t n_pixels, float *planes) {
    const int64_t size_u = whole_lanes(w->n_rows), size_v = whole_lanes(w->n_columns), stride = frame_stride(w, s);
    const int64_t plane_size = frame_size(w, s), capacity = touched->ny * touched->nz + LANES;
    float *table_u = own->tables, *table_v = table_u + size_u, *window_u = table_v + size_v,
          *window_v = window_u + size_u;
    float *moment_v = own->moments, *moment_u = moment_v + size_v;
    const int64_t rows = (int64_t)floor(2 * w->reach[2 * s]) + 1;
    const row_view view = view_of_slice(w, s);
    const slice_metric metric = metric_of_slice(w, s);
    float *d = own->distances;
    const plane_distances distances = {d, d + capacity, d + 2 * capacity, d + 3 * capacity, d + 4 * capacity};
    fill_tables(w, s, size_u, size_v, table_u, table_v);
    memset(own->frame, 0, (size_t)(N_PLANES * plane_size) * sizeof(float));
    for (int64_t x = 0; x < touched->nx; x++) {
        const int64_t n = touched->splat_first[s * (touched->nx + 1) + x];
        const int64_t end = touched->splat_first[s * (touched->nx + 1) + x + 1];
        if (n == end) continue;
        gather_plane(touched, s, x, amplitudes, own->line);
        fill_distances(&view, &metric, touched, s, x, &distances);
        if (size_u > LANES || size_v > LANES) {
            for (int64_t i = n; i < end; i++) {
                fill_window(
                    window_u, table_u, splats->ratios_u[i], own->line[i - n] * splats->scales[i], size_u / LANES);
                fill_window(window_v, table_v, splats->ratios_v[i], 1, size_v / LANES);
                add_long_window(
                    w, &metric, &distances, i - n, rows, window_u, window_v, moment_u, moment_v,
                    own->frame + splats->starts[i], plane_size, stride);
            }
            continue;
        }
        for (int64_t first = n; first < end; first += BATCH) {
            const int64_t count = end - first < BATCH ? end - first : BATCH;
            WITH_ROWS(
                rows, add_batch, own->all, splats, first, count, own->line + first - n, &distances, first - n, &metric,
                table_u, table_v, own->frame, plane_size, stride)
        }
    }
    write_planes(w, s, &metric, own->frame, plane_size, n_pixels, planes);
}

static int allocate(scratch *own, const slice_windows *w, const touched_sites *touched, int64_t largest) {
    const int64_t size_u = whole_lanes(w->n_rows), size_v = whole_lanes(w->n_columns);
    const int64_t capacity = touched->ny * touched->nz + LANES;
    own->frame = malloc((size_t)(N_PLANES * largest) * sizeof(float));
    own->line = calloc((size_t)capacity, sizeof(float));
    own->tables = calloc((size_t)(2 * size_u + 2 * size_v), sizeof(float));
    own->moments = malloc((size_t)(2 * size_u + size_v) * sizeof(float));
    own->distances = malloc((size_t)(5 * capacity) * sizeof(float));
    own->all = malloc(sizeof(batch));
    return own->frame && own->line && own->tables && own->moments && own->distances && own->all;
}

KERNEL differentiate_lattice(
    tasks *slices, const slice_windows *windows, const touched_sites *touched, const lattice_splats *splats,
    const float *amplitudes, int64_t n_pixels, float *planes) {
    scratch own;
    const int ready = allocate(&own, windows, touched, largest_frame(windows, slices->count));
    if (ready) {
        FOR_EACH_TASK(s, slices) {
            differentiate_slice(s, windows, touched, splats, amplitudes, &own, n_pixels, planes);
        }
    }
    free(own.frame);
    free(own.line);
    free(own.tables);
    free(own.moments);
    free(own.distances);
    free(own.all);
    return ready ? DONE : NO_MEMORY;
}
