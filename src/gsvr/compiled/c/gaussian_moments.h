/* Moments of r G over pieces, and what gradients are made of them. */
#ifndef GSVR_GAUSSIAN_MOMENTS_H
#define GSVR_GAUSSIAN_MOMENTS_H

#include "gaussian_kernels.h"
#include "gaussian_seen.h"

/* Sums of r G times y, x, y y, y x, x x, 1; of r G of the second component alone times 1, y, x. */
enum { BY_Y, BY_X, BY_YY, BY_YX, BY_XX, WHOLE, SECOND_WHOLE, SECOND_BY_Y, SECOND_BY_X, N_MOMENTS };

/* Sums over rows; powers of x come in when all rows are done. */
typedef struct {
    vector whole, by_y, by_yy, second, second_by_y;
} columns;

INLINE void add_moments(int components, columns *sums, vector part, vector second, vector y) {
    vector both = part;
    if (components == 2) {
        vector of_second = part * second;
        both += of_second;
        sums->second += of_second;
        sums->second_by_y += of_second * y;
    }
    const vector by_y = both * y;
    sums->whole += both;
    sums->by_y += by_y;
    sums->by_yy += by_y * y;
}

INLINE void write_moments(const columns *sums, vector x, float *moments) {
    const vector by_x = sums->whole * x;
    vector parts[LANES] = {
        sums->by_y, by_x, sums->by_yy, sums->by_y * x, by_x * x, sums->whole, sums->second, sums->second_by_y,
    };
    transpose(parts);
    for (int lane = 1; lane < LANES; lane++) parts[0] += parts[lane];
    store(moments, parts[0]);
    moments[SECOND_BY_X] = sum_of_lanes(sums->second * x);
}

/* Of four pieces: sums of r G, of r G d and of r G d d^T (mm). */
typedef struct {
    doubles whole;
    points first;
    symmetric second;
} moments;

/* `w` and `step`: the slice's distance from the Gaussian as the first component sees it, and how much further the
 * second stands. */
INLINE moments moments_of_four(const float (*sums)[LANES + 1], doubles w, double step, const double *pixel) {
    doubles all[N_MOMENTS];
    for (int k = 0; k < N_MOMENTS; k++) {
        all[k] = (doubles){(double)sums[0][k], (double)sums[1][k], (double)sums[2][k], (double)sums[3][k]};
    }
    const doubles u = pixel[0] * all[BY_Y], v = pixel[1] * all[BY_X], whole = all[WHOLE];
    return (moments){
        whole,
        {u, v, w * whole + step * all[SECOND_WHOLE]},
        {
            (pixel[0] * pixel[0]) * all[BY_YY],
            (pixel[0] * pixel[1]) * all[BY_YX],
            w * u + (step * pixel[0]) * all[SECOND_BY_Y],
            (pixel[1] * pixel[1]) * all[BY_XX],
            w * v + (step * pixel[1]) * all[SECOND_BY_X],
            w * w * whole + (2 * w + step) * step * all[SECOND_WHOLE],
        },
    };
}

/* A M A of symmetric matrices. */
INLINE symmetric product_on_both_sides(const symmetric *a, const symmetric *m) {
    const points u = product(m, (points){a->uu, a->uv, a->uw}), v = product(m, (points){a->uv, a->vv, a->vw});
    const points w = product(m, (points){a->uw, a->vw, a->ww});
    const points by_u = product(a, u), by_v = product(a, v), by_w = product(a, w);
    return (symmetric){by_u.u, by_u.v, by_u.w, by_v.v, by_v.w, by_w.w};
}

#endif
