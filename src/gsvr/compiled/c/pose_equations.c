/* Normal equations of every slice's pose, without a Jacobian in memory.
 *
 * The six derivatives of a pixel (`gsvr.backends.protocol.pose_columns`) are combinations of the planes of derivatives;
 * they are made, multiplied and summed for eight pixels at a time. */
#include "solver_kernels.h"
#include "tasks.h"

enum { N_PARAMETERS = 6, N_PAIRS = 21 };

typedef struct {
    vector pairs[N_PAIRS], gradient[N_PARAMETERS];
} equation_sums;

/* Pixels from `p` on, one in each lane. */
INLINE void add_pixels(
    equation_sums *sums, const float *planes, int64_t n_pixels, int64_t p, vector v, float u, float gain, vector value,
    vector weight) {
    vector plane[7], j[N_PARAMETERS];
    for (int n = 0; n < 7; n++) plane[n] = load_first(planes + n * n_pixels + p, n_pixels - p);
    j[0] = v * plane[3] - plane[4];
    j[1] = -u * plane[3] - plane[5];
    j[2] = u * plane[2] - v * plane[1] - plane[6];
    for (int n = 3; n < N_PARAMETERS; n++) j[n] = plane[n - 2];
    const vector residual = weight * (value - gain * plane[0]);
    int pair = 0;
    for (int a = 0; a < N_PARAMETERS; a++) {
        const vector weighted = weight * j[a];
        sums->gradient[a] += residual * j[a];
        for (int b = a; b < N_PARAMETERS; b++) sums->pairs[pair++] += weighted * j[b];
    }
}

/* The last vector of a row reaches into the next one: its pixels get no weight. */
static void add_row(
    const float *planes, int64_t n_pixels, int64_t first, int64_t count, float u, float start_v, float step_v,
    float gain, const float *values, const float *weights, double *sums, double *gradient) {
    equation_sums row;
    memset(&row, 0, sizeof row);
    for (int64_t b = 0; b < count; b += LANES) {
        const int64_t p = first + b;
        const vector column = lane_numbers() + (float)b, v = start_v + step_v * column;
        const vector weight = where(column < broadcast((float)count), load_first(weights + p, n_pixels - p));
        add_pixels(&row, planes, n_pixels, p, v, u, gain, load_first(values + p, n_pixels - p), weight);
    }
    for (int n = 0; n < N_PAIRS; n++) sums[n] += (double)sum_of_lanes(row.pairs[n]);
    for (int n = 0; n < N_PARAMETERS; n++) gradient[n] += (double)sum_of_lanes(row.gradient[n]);
}

KERNEL sum_pose_equations(
    tasks *slices, const float *planes, int64_t n_pixels, const int64_t *shapes, const int64_t *first_pixel,
    const double *pixel_spacing, const double *gains, const float *values, const float *weights, double *sums,
    double *gradients) {
    FOR_EACH_TASK(s, slices) {
        const int64_t *shape = shapes + 2 * s;
        const double *spacing = pixel_spacing + 2 * s;
        const double half_u = (double)(shape[0] - 1) / 2, half_v = (double)(shape[1] - 1) / 2;
        for (int64_t a = 0; a < shape[0]; a++) {
            add_row(
                planes, n_pixels, first_pixel[s] + a * shape[1], shape[1], (float)(((double)a - half_u) * spacing[0]),
                (float)(-half_v * spacing[1]), (float)spacing[1], (float)gains[s], values, weights, sums + N_PAIRS * s,
                gradients + N_PARAMETERS * s);
        }
        for (int n = 0; n < N_PAIRS; n++) sums[N_PAIRS * s + n] *= gains[s] * gains[s];
        for (int n = 0; n < N_PARAMETERS; n++) gradients[N_PARAMETERS * s + n] *= gains[s];
    }
    return DONE;
}
