/* Gaussians of planned pieces once more in the slice's frame, for what their forms do not tell. */
#ifndef GSVR_GAUSSIAN_SEEN_H
#define GSVR_GAUSSIAN_SEEN_H

#include "gaussian_kernels.h"
#include "gaussian_rows.h"

typedef struct {
    points mean;
    symmetric covariance, precision; /* the Gaussian itself; of the blurred one */
} seen_gaussians;

INLINE seen_gaussians
seen_again(const gaussian_buckets *buckets, const gaussian_views *views, int64_t s, const int32_t *numbers) {
    const double *turn = views->to_slice + 12 * s;
    seen_gaussians out;
    out.mean = turned_means(turn, gathered_means(buckets, numbers));
    out.covariance = turned_covariances(turn, gathered_covariances(buckets, numbers));
    doubles determinants;
    out.precision = inverses(widened(out.covariance, views->covariances + 6 * s), &determinants);
    return out;
}

/* Gaussians of pieces that are handled together; the last is repeated. */
INLINE void copy_numbers(const int32_t *gaussians, int64_t count, int32_t *numbers) {
    for (int64_t i = 0; i < AT_ONCE; i++) numbers[i] = gaussians[i < count ? i : count - 1];
}

#endif
