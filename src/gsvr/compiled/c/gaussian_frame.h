/* Free Gaussians in the frame of a slice: four at a time, in float64. */
#ifndef GSVR_GAUSSIAN_FRAME_H
#define GSVR_GAUSSIAN_FRAME_H

#include <math.h>

#include "gaussian_kernels.h"
#include "lanes.h"

#define FOUR 4

/* Rows of `gaussian_buckets.values`; those of the means come first. */
enum { COVARIANCE_ROW = 3, DETERMINANT_ROW = 9 };

typedef double doubles __attribute__((vector_size(8 * FOUR)));
typedef int64_t choices __attribute__((vector_size(8 * FOUR)));
typedef int32_t whole_numbers __attribute__((vector_size(4 * FOUR)));
/* the same in memory, at any address that holds a double */
typedef double unaligned_doubles __attribute__((vector_size(8 * FOUR), aligned(8), may_alias));

INLINE doubles load_doubles(const double *place) { return *(const unaligned_doubles *)place; }

INLINE void store_doubles(double *place, doubles values) { *(unaligned_doubles *)place = values; }

INLINE doubles all_lanes(double value) { return (doubles){value, value, value, value}; }

/* Elements of `from` with these numbers. */
INLINE doubles gathered(const double *from, const int32_t *numbers) {
    return (doubles){from[numbers[0]], from[numbers[1]], from[numbers[2]], from[numbers[3]]};
}

INLINE doubles chosen(choices mask, doubles yes, doubles no) {
    return (doubles)((mask & (choices)yes) | (~mask & (choices)no));
}

INLINE doubles least(doubles a, doubles b) { return chosen(a < b, a, b); }

INLINE doubles most(doubles a, doubles b) { return chosen(a > b, a, b); }

INLINE doubles square_root(doubles x) { return (doubles){sqrt(x[0]), sqrt(x[1]), sqrt(x[2]), sqrt(x[3])}; }

/* Whole numbers next to x, |x| < 2^31. */
INLINE doubles next_below(doubles x) {
    doubles whole = __builtin_convertvector(__builtin_convertvector(x, whole_numbers), doubles);
    return whole - chosen(whole > x, all_lanes(1), all_lanes(0));
}

INLINE doubles next_above(doubles x) { return -next_below(-x); }

/* Binary logarithm of normal positive numbers, to 1e-10: log m = 2 artanh((m - 1) / (m + 1)) for a mantissa m between
 * sqrt(1/2) and sqrt(2). */
INLINE doubles binary_logarithm(doubles x) {
    const int64_t half = 0x3fe6a09e667f3bcd; /* sqrt(1/2) */
    choices bits = (choices)x - half;
    choices exponent = bits >> 52;
    doubles m = (doubles)((choices)x - (exponent << 52));
    doubles t = (m - 1) / (m + 1), square = t * t;
    doubles p = all_lanes(1.0 / 13);
    p = p * square + 1.0 / 11;
    p = p * square + 1.0 / 9;
    p = p * square + 1.0 / 7;
    p = p * square + 1.0 / 5;
    p = p * square + 1.0 / 3;
    p = p * square + 1;
    doubles whole = {(double)exponent[0], (double)exponent[1], (double)exponent[2], (double)exponent[3]};
    return whole + 2.8853900817779268 * t * p;
}

/* 2^y to 1e-9, for y cut to between -126 and 115, where float32 has it. */
INLINE doubles exact_power_of_two(doubles y) {
    y = most(least(y, all_lanes(115)), all_lanes(-126));
    doubles whole = next_below(y + 0.5);
    doubles f = (y - whole) * 0.69314718055994531; /* and then by Taylor's series */
    doubles p = all_lanes(1.0 / 40320);
    p = p * f + 1.0 / 5040;
    p = p * f + 1.0 / 720;
    p = p * f + 1.0 / 120;
    p = p * f + 1.0 / 24;
    p = p * f + 1.0 / 6;
    p = p * f + 0.5;
    p = p * f + 1;
    p = p * f + 1;
    return (doubles)((choices)p + (__builtin_convertvector(whole, choices) << 52));
}

/* Upper triangles of symmetric 3 x 3 matrices. */
typedef struct {
    doubles uu, uv, uw, vv, vw, ww;
} symmetric;

typedef struct {
    doubles u, v, w;
} points;

/* Means in the slice frame (mm); `m` is the slice's rigid map. */
INLINE points turned_means(const double *m, points mean) {
    return (points){
        m[0] * mean.u + m[1] * mean.v + m[2] * mean.w + m[3],
        m[4] * mean.u + m[5] * mean.v + m[6] * mean.w + m[7],
        m[8] * mean.u + m[9] * mean.v + m[10] * mean.w + m[11],
    };
}

/* R Sigma R^T for the rotation R of a rigid map. */
INLINE symmetric turned_covariances(const double *m, symmetric c) {
    doubles rows[3][3];
    for (int a = 0; a < 3; a++) {
        const double *turn = m + 4 * a;
        rows[a][0] = turn[0] * c.uu + turn[1] * c.uv + turn[2] * c.uw;
        rows[a][1] = turn[0] * c.uv + turn[1] * c.vv + turn[2] * c.vw;
        rows[a][2] = turn[0] * c.uw + turn[1] * c.vw + turn[2] * c.ww;
    }
    return (symmetric){
        rows[0][0] * m[0] + rows[0][1] * m[1] + rows[0][2] * m[2],
        rows[0][0] * m[4] + rows[0][1] * m[5] + rows[0][2] * m[6],
        rows[0][0] * m[8] + rows[0][1] * m[9] + rows[0][2] * m[10],
        rows[1][0] * m[4] + rows[1][1] * m[5] + rows[1][2] * m[6],
        rows[1][0] * m[8] + rows[1][1] * m[9] + rows[1][2] * m[10],
        rows[2][0] * m[8] + rows[2][1] * m[9] + rows[2][2] * m[10],
    };
}

/* Covariances plus one of all, its upper triangle given. */
INLINE symmetric widened(symmetric c, const double *by) {
    return (symmetric){c.uu + by[0], c.uv + by[1], c.uw + by[2], c.vv + by[3], c.vw + by[4], c.ww + by[5]};
}

/* Inverses, and the determinants of what is inverted. */
INLINE symmetric inverses(symmetric c, doubles *determinants) {
    doubles a = c.vv * c.ww - c.vw * c.vw, b = c.uw * c.vw - c.uv * c.ww, d = c.uv * c.vw - c.uw * c.vv;
    *determinants = c.uu * a + c.uv * b + c.uw * d;
    doubles share = 1 / *determinants;
    return (symmetric){
        a * share,
        b * share,
        d * share,
        (c.uu * c.ww - c.uw * c.uw) * share,
        (c.uv * c.uw - c.uu * c.vw) * share,
        (c.uu * c.vv - c.uv * c.uv) * share,
    };
}

INLINE points product(const symmetric *a, points p) {
    return (points){
        a->uu * p.u + a->uv * p.v + a->uw * p.w,
        a->uv * p.u + a->vv * p.v + a->vw * p.w,
        a->uw * p.u + a->vw * p.v + a->ww * p.w,
    };
}

/* The antisymmetric part of a product: what turning one of the two changes in its trace. */
INLINE points turning(const symmetric *h, const symmetric *c) {
    return (points){
        h->uv * c->uw + h->vv * c->vw + h->vw * c->ww - h->uw * c->uv - h->vw * c->vv - h->ww * c->vw,
        h->uw * c->uu + h->vw * c->uv + h->ww * c->uw - h->uu * c->uw - h->uv * c->vw - h->uw * c->ww,
        h->uu * c->uv + h->uv * c->vv + h->uw * c->vw - h->uv * c->uu - h->vv * c->uv - h->vw * c->uw,
    };
}

/* Gaussians with these numbers, in the order of the buckets. */
INLINE points gathered_means(const gaussian_buckets *buckets, const int32_t *numbers) {
    const double *values = buckets->values;
    const int64_t n = buckets->stride;
    return (points){gathered(values, numbers), gathered(values + n, numbers), gathered(values + 2 * n, numbers)};
}

INLINE symmetric gathered_covariances(const gaussian_buckets *buckets, const int32_t *numbers) {
    const int64_t n = buckets->stride;
    const double *values = buckets->values + COVARIANCE_ROW * n;
    return (symmetric){
        gathered(values, numbers),         gathered(values + n, numbers),     gathered(values + 2 * n, numbers),
        gathered(values + 3 * n, numbers), gathered(values + 4 * n, numbers), gathered(values + 5 * n, numbers),
    };
}

INLINE doubles gathered_determinants(const gaussian_buckets *buckets, const int32_t *numbers) {
    return gathered(buckets->values + DETERMINANT_ROW * buckets->stride, numbers);
}

/* First and last rows and columns inside the cut-off; out of sight where the last is before the first. And how far
 * along u the ellipse inside the cut-off reaches (mm), also where it is no longer on the slice. */
typedef struct {
    doubles top, bottom, left, right, extent;
} windows;

INLINE windows windows_in_sight(
    doubles u, doubles v, doubles distance, const symmetric *blurred, double cutoff, const double *pixel,
    const int64_t *shape) {
    const double far = 1 << 30;
    doubles share = 1 / blurred->ww, left_over = cutoff * cutoff - distance * distance * share;
    doubles kept = most(left_over, all_lanes(0));
    /* given the distance through the plane, the Gaussian is centred elsewhere in it, and narrower */
    doubles cross_u = blurred->uw * share, cross_v = blurred->vw * share;
    doubles middle_u = u + cross_u * distance, middle_v = v + cross_v * distance;
    doubles half_u = square_root(kept * most(blurred->uu - blurred->uw * cross_u, all_lanes(0)));
    doubles half_v = square_root(kept * most(blurred->vv - blurred->vw * cross_v, all_lanes(0)));
    const double per_u = 1 / pixel[0], per_v = 1 / pixel[1];
    /* cut before they become whole numbers, which have fewer digits */
    doubles low_u = least((middle_u - half_u) * per_u, all_lanes(far));
    doubles low_v = least((middle_v - half_v) * per_v, all_lanes(far));
    doubles high_u = most((middle_u + half_u) * per_u, all_lanes(-1));
    doubles high_v = most((middle_v + half_v) * per_v, all_lanes(-1));
    windows found = {
        next_above(most(low_u, all_lanes(0))),
        next_below(least(high_u, all_lanes((double)(shape[0] - 1)))),
        next_above(most(low_v, all_lanes(0))),
        next_below(least(high_v, all_lanes((double)(shape[1] - 1)))),
        half_u,
    };
    choices seen = (left_over > 0) & (found.bottom >= found.top) & (found.right >= found.left);
    return (windows){
        chosen(seen, found.top, all_lanes(far)),
        chosen(seen, found.bottom, all_lanes(-1)),
        chosen(seen, found.left, all_lanes(far)),
        chosen(seen, found.right, all_lanes(-1)),
        2 * half_u,
    };
}

/* The smallest windows around two. */
INLINE windows joined(windows a, windows b) {
    return (windows){
        least(a.top, b.top),    most(a.bottom, b.bottom), least(a.left, b.left),
        most(a.right, b.right), most(a.extent, b.extent),
    };
}

/* What two windows share; out of sight where that is nothing. */
INLINE windows shared(windows a, windows b) {
    windows both = {
        most(a.top, b.top),      least(a.bottom, b.bottom), most(a.left, b.left),
        least(a.right, b.right), least(a.extent, b.extent),
    };
    both.bottom = chosen(both.right >= both.left, both.bottom, all_lanes(-1));
    return both;
}

#endif
