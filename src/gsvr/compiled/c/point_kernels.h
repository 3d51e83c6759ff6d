/* Fields at points anywhere: see kernels.h. */
#ifndef GSVR_POINT_KERNELS_H
#define GSVR_POINT_KERNELS_H

#include "kernels.h"

/* Free Gaussians in buckets, cubes of space. Of each Gaussian, in the order of the buckets: x, y, z of its mean; xx,
 * xy, xz, yy, yz, zz of its precision (the inverse of its covariance); its amplitude; the square of the distance from
 * its mean at which it is cut off. */
typedef struct {
    int64_t n_buckets;
    double cutoff;         /* in standard deviations */
    const int64_t *first;  /* [b + 1] */
    const double *centres; /* [b 3] of a ball around the means, each with all that is not cut off */
    const double *radii;   /* [b] */
    const double *numbers; /* [n 11] */
} gaussians_in_space;

/* Sums over the Gaussians at points, which come in blocks of neighbours: of c_j e_j and of e_j = exp(-q_j / 2), then
 * with `derivatives` the derivatives of both by x, y, z. Where `limits` are given, only Gaussians whose mean is at most
 * so far away (square of the distance) count at a point. */
KERNEL sum_at_points(
    tasks *blocks, const int64_t *first_point,                /* [blocks + 1] */
    const double *points,                                     /* [p 3] */
    const OPTIONAL double *limits,                            /* [p] */
    const gaussians_in_space *gaussians, int64_t derivatives, /* 0 or 1 */
    double *sums);                                            /* [p 2] or [p 8] */

#endif
