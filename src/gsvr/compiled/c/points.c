/* Fields at points anywhere. */
#include <math.h>

#include "point_kernels.h"
#include "tasks.h"

enum { PRECISION = 3, AMPLITUDE = 9, REACH = 10, SIZE = 11 };

/* Middle of the box around some points, and how far the farthest point is from it. */
static double ball_around(const double *points, int64_t count, double centre[3]) {
    for (int axis = 0; axis < 3; axis++) {
        double low = points[axis], high = low;
        for (int64_t n = 1; n < count; n++) {
            low = fmin(low, points[3 * n + axis]);
            high = fmax(high, points[3 * n + axis]);
        }
        centre[axis] = 0.5 * (low + high);
    }
    double farthest = 0;
    for (int64_t n = 0; n < count; n++) {
        const double x = points[3 * n] - centre[0], y = points[3 * n + 1] - centre[1],
                     z = points[3 * n + 2] - centre[2];
        farthest = fmax(farthest, x * x + y * y + z * z);
    }
    return sqrt(farthest);
}

INLINE void add_gaussian(
    const double *g, double most, const double *point, double limit, int derivatives, double *sums) {
    const double x = point[0] - g[0], y = point[1] - g[1], z = point[2] - g[2];
    const double squared = x * x + y * y + z * z;
    if (squared > g[REACH] || squared > limit) return;
    const double *p = g + PRECISION;
    const double by_x = p[0] * x + p[1] * y + p[2] * z;
    const double by_y = p[1] * x + p[3] * y + p[4] * z;
    const double by_z = p[2] * x + p[4] * y + p[5] * z;
    const double form = x * by_x + y * by_y + z * by_z;
    if (form > most) return;
    const double height = exp(-0.5 * form), value = g[AMPLITUDE] * height;
    sums[0] += value;
    sums[1] += height;
    if (!derivatives) return;
    sums[2] -= value * by_x;
    sums[3] -= value * by_y;
    sums[4] -= value * by_z;
    sums[5] -= height * by_x;
    sums[6] -= height * by_y;
    sums[7] -= height * by_z;
}

KERNEL sum_at_points(
    tasks *blocks, const int64_t *first_point, const double *points, const OPTIONAL double *limits,
    const gaussians_in_space *gaussians, int64_t derivatives, double *sums) {
    const int64_t n_sums = derivatives ? 8 : 2;
    const double most = gaussians->cutoff * gaussians->cutoff;
    FOR_EACH_TASK(block, blocks) {
        const int64_t begin = first_point[block], end = first_point[block + 1];
        double centre[3];
        const double radius = ball_around(points + 3 * begin, end - begin, centre);
        for (int64_t n = n_sums * begin; n < n_sums * end; n++) sums[n] = 0;
        for (int64_t b = 0; b < gaussians->n_buckets; b++) {
            const double *there = gaussians->centres + 3 * b;
            const double x = there[0] - centre[0], y = there[1] - centre[1], z = there[2] - centre[2];
            const double touch = (gaussians->radii[b] + radius) * (1 + 1e-9); /* since all of this is rounded */
            if (x * x + y * y + z * z > touch * touch) continue;
            for (int64_t j = gaussians->first[b]; j < gaussians->first[b + 1]; j++) {
                for (int64_t n = begin; n < end; n++) {
                    add_gaussian(
                        gaussians->numbers + SIZE * j, most, points + 3 * n, limits ? limits[n] : INFINITY,
                        (int)derivatives, sums + n_sums * n);
                }
            }
        }
    }
    return DONE;
}
