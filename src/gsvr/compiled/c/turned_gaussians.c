/* Free Gaussians in the frame of parallel planes, as far as they may be seen there. */
#include <math.h>

#include "gaussian_kernels.h"
#include "lanes.h"
#include "tasks.h"

/* What the cull of all Gaussians needs, in float32: the planes' normal, how thick they are together, how far the slice
 * profile reaches. */
typedef struct {
    float normal[3], stand, thickness, cutoff, variance, offset;
} plane_depths;

static plane_depths depths_of_planes(const parallel_planes *planes) {
    const double *normal = planes->to_planes + 8;
    plane_depths out = {
        {(float)normal[0], (float)normal[1], (float)normal[2]},
        (float)normal[3],
        (float)(planes->spacing[0] * (double)(planes->shape[0] - 1)),
        (float)planes->cutoff,
        0,
        0,
    };
    for (int64_t m = 0; m < planes->n_components; m++) {
        out.variance = fmaxf(out.variance, (float)planes->variances[m]);
        out.offset = fmaxf(out.offset, (float)fabs(planes->offsets[m]));
    }
    return out;
}

/* Which of `count` Gaussians, at most eight, reach a plane by their largest standard deviation; how far each does. */
INLINE integers
near_planes(const plane_depths *depths, const float *means, const float *log_scales, int64_t count, vector *reaches) {
    vector height = broadcast(0), largest = broadcast(0);
    for (int64_t i = 0; i < count; i++) {
        const float *mean = means + 3 * i, *scales = log_scales + 3 * i;
        height[i] = depths->normal[0] * mean[0] + depths->normal[1] * mean[1] + depths->normal[2] * mean[2];
        const float longer = scales[0] > scales[1] ? scales[0] : scales[1];
        largest[i] = longer > scales[2] ? longer : scales[2];
    }
    height += depths->stand;
    const vector variance = power_of_two(largest * (float)(2 * LOG2_E)) + depths->variance;
    vector reach;
    for (int lane = 0; lane < LANES; lane++) reach[lane] = sqrtf(variance[lane]);
    reach = (depths->cutoff * reach + depths->offset) * (1 + 1e-5f); /* since all of this is rounded */
    *reaches = reach;
    return (height + reach >= 0) & (height - reach <= depths->thickness);
}

/* Upper triangle of the covariance in the frame of the planes. */
INLINE void turn_covariance(const double *m, const float *quaternion, const double *scales, double *out) {
    const double w = quaternion[0], x = quaternion[1], y = quaternion[2], z = quaternion[3];
    const double twice = 2 / (w * w + x * x + y * y + z * z);
    const double axes[3][3] = {
        {1 - twice * (y * y + z * z), twice * (x * y + w * z), twice * (x * z - w * y)},
        {twice * (x * y - w * z), 1 - twice * (x * x + z * z), twice * (y * z + w * x)},
        {twice * (x * z + w * y), twice * (y * z - w * x), 1 - twice * (x * x + y * y)},
    };
    double root[3][3];
    for (int a = 0; a < 3; a++) {
        for (int k = 0; k < 3; k++) {
            const double *axis = axes[k], *turn = m + 4 * a;
            root[a][k] = scales[k] * (turn[0] * axis[0] + turn[1] * axis[1] + turn[2] * axis[2]);
        }
    }
    for (int a = 0; a < 3; a++) {
        for (int b = a; b < 3; b++) {
            *out++ = root[a][0] * root[b][0] + root[a][1] * root[b][1] + root[a][2] * root[b][2];
        }
    }
}

/* Write a Gaussian in the frame of the planes; whether it may reach their pixels. */
INLINE int turn_gaussian(
    const parallel_planes *planes, const float *mean, const float *log_scales, const float *quaternion, float amplitude,
    double reach, double *out) {
    const double *m = planes->to_planes;
    for (int a = 0; a < 3; a++) {
        const double *turn = m + 4 * a;
        out[a] = turn[0] * (double)mean[0] + turn[1] * (double)mean[1] + turn[2] * (double)mean[2] + turn[3];
    }
    for (int a = 0; a < 2; a++) {
        const double extent = planes->spacing[1 + a] * (double)planes->shape[1 + a];
        if (out[a] + reach < 0 || out[a] - reach > extent) return 0;
    }
    const double scales[3] = {exp((double)log_scales[0]), exp((double)log_scales[1]), exp((double)log_scales[2])};
    turn_covariance(m, quaternion, scales, out + TURNED_COVARIANCE);
    out[TURNED_VOLUME] = LOG2_E * ((double)log_scales[0] + (double)log_scales[1] + (double)log_scales[2]);
    out[TURNED_AMPLITUDE] = (double)amplitude;
    out[TURNED_REACH] = reach;
    return 1;
}

KERNEL turn_gaussians(
    tasks *chunks, int64_t size, int64_t n, const parallel_planes *planes, const float *means, const float *log_scales,
    const float *quaternions, const float *amplitudes, double *turned, int64_t *counts) {
    const plane_depths depths = depths_of_planes(planes);
    FOR_EACH_TASK(chunk, chunks) {
        const int64_t begin = chunk * size, end = begin + size < n ? begin + size : n;
        int64_t found = begin;
        for (int64_t j = begin; j < end; j += LANES) {
            const int64_t count = end - j < LANES ? end - j : LANES;
            vector reaches;
            const integers near = near_planes(&depths, means + 3 * j, log_scales + 3 * j, count, &reaches);
            for (int64_t i = 0; i < count; i++) {
                if (!near[i]) continue;
                found += turn_gaussian(
                    planes, means + 3 * (j + i), log_scales + 3 * (j + i), quaternions + 4 * (j + i), amplitudes[j + i],
                    (double)reaches[i], turned + TURNED_SIZE * found);
            }
        }
        counts[chunk] = found - begin;
    }
    return DONE;
}
