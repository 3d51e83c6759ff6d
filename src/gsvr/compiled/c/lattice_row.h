/* Eight neighbouring Gaussians of a lattice row, seen by one slice. */
#ifndef GSVR_LATTICE_ROW_H
#define GSVR_LATTICE_ROW_H

#include <math.h>

#include "lanes.h"
#include "lattice_kernels.h"

INLINE int64_t whole_lanes(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

/* Pixels from one row of a slice's frame to the next. */
INLINE int64_t frame_stride(const slice_windows *w, int64_t s) {
    return w->shapes[2 * s + 1] + 2 * whole_lanes(w->n_columns) + 1;
}

INLINE int64_t frame_size(const slice_windows *w, int64_t s) {
    return (w->shapes[2 * s] + 2 * w->n_rows + 2) * frame_stride(w, s);
}

INLINE int64_t largest_frame(const slice_windows *w, int64_t n_slices) {
    int64_t largest = 0;
    for (int64_t s = 0; s < n_slices; s++) {
        if (frame_size(w, s) > largest) largest = frame_size(w, s);
    }
    return largest;
}

/* Where the slice's row a begins in its frame. */
INLINE int64_t frame_row(const slice_windows *w, int64_t s, int64_t a) {
    return (a + w->n_rows + 1) * frame_stride(w, s) + whole_lanes(w->n_columns);
}

/* What is the same for all Gaussians that a slice sees. */
typedef struct {
    const double *matrix, *peaks, *offsets, *depth_sharpness;
    int64_t n_components;
    float sharpness_u, sharpness_v, reach_u, reach_v, middle_u, middle_v;
} row_view;

INLINE row_view view_of_slice(const slice_windows *w, int64_t s) {
    int64_t m = w->n_components;
    const double *sharpness = w->sharpness + 2 * s, *reach = w->reach + 2 * s;
    return (row_view){
        w->from_lattice + 12 * s,
        w->peaks + m * s,
        w->offsets + m * s,
        w->depth_sharpness + m * s,
        m,
        (float)sharpness[0],
        (float)sharpness[1],
        (float)reach[0],
        (float)reach[1],
        floorf((float)reach[0]),
        floorf((float)reach[1]),
    };
}

/* First pixel touched; from the Gaussian to it (pixels); the window's ratios and its scale; from the Gaussian to the
 * slice (mm); f'(w) / f(w) of the profile f. */
typedef struct {
    vector row, column, offset_u, offset_v, ratio_u, ratio_v, scale, w, slope;
} row_splats;

/* Sites z, z + 1, ... of row (x, y). Powers of the ratio are counted from the middle of the window, where the Gaussian
 * is near its peak: counted from the edge they would run through exp(2 cutoff^2) and overflow for wide cut-offs.
 * Where pixels are so far apart that a ratio exceeds 2^115, a window has one pixel, and the ratio no meaning. */
INLINE row_splats splats_of_row(const row_view *view, int64_t x, int64_t y, int64_t z) {
    const double *m = view->matrix;
    vector step = lane_numbers();
    vector u = step * (float)m[2] + (float)(m[0] * (double)x + m[1] * (double)y + m[2] * (double)z + m[3]);
    vector v = step * (float)m[6] + (float)(m[4] * (double)x + m[5] * (double)y + m[6] * (double)z + m[7]);
    vector w = step * (float)m[10] + (float)(m[8] * (double)x + m[9] * (double)y + m[10] * (double)z + m[11]);
    row_splats out;
    out.row = round_up(u - view->reach_u);
    out.column = round_up(v - view->reach_v);
    out.offset_u = out.row - u;
    out.offset_v = out.column - v;
    u = out.offset_u + view->middle_u;
    v = out.offset_v + view->middle_v;
    float sharp_u = (float)LOG2_E * view->sharpness_u, sharp_v = (float)LOG2_E * view->sharpness_v;
    out.ratio_u = power_of_two(smaller(u * (-2 * sharp_u), broadcast(115)));
    out.ratio_v = power_of_two(smaller(v * (-2 * sharp_v), broadcast(115)));
    vector exponent = sharp_u * u * (2 * view->middle_u - u) + sharp_v * v * (2 * view->middle_v - v);
    out.w = -w;
    vector profile = broadcast(0), slope = broadcast(0);
    for (int64_t component = 0; component < view->n_components; component++) {
        float sharp = (float)view->depth_sharpness[component];
        vector distance = out.w + (float)view->offsets[component];
        vector part = (float)view->peaks[component] * power_of_two(distance * distance * (-(float)LOG2_E * sharp));
        profile += part;
        slope -= 2 * sharp * distance * part;
    }
    out.scale = power_of_two(exponent) * profile;
    out.slope = slope / larger(profile, broadcast(1e-30f));
    return out;
}

/* The Gaussian at whole pixels from the middle of the window: what powers of the ratio are multiplied by. Far ones are
 * zero, since denormal numbers are slow. `size` numbers for u, `width` for v. */
INLINE void fill_tables(
    const slice_windows *w, int64_t s, int64_t size, int64_t width, float *table_u, float *table_v) {
    for (int axis = 0; axis < 2; axis++) {
        float *table = axis ? table_v : table_u;
        double middle = floor(w->reach[2 * s + axis]);
        for (int64_t a = 0; a < (axis ? width : size); a++) {
            double distance = (double)a - middle;
            double value = exp(-fmin(w->sharpness[2 * s + axis] * distance * distance, 200));
            table[a] = value < 1e-25 ? 0 : (float)value;
        }
    }
}

#endif
