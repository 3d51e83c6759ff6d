/* A mask on another grid along the same axes. */
#include "pixel_kernels.h"
#include "tasks.h"

KERNEL exceeds_half(
    tasks *planes, const float *values, int64_t sx, int64_t sy, int64_t sz, int64_t ny, int64_t nz, const int64_t *x,
    const float *x_weights, const int64_t *y, const float *y_weights, const int64_t *z, const float *z_weights,
    uint8_t *out) {
    float *row = malloc((size_t)sz * sizeof(float));
    if (!row) return NO_MEMORY;
    FOR_EACH_TASK(i, planes) {
        const float *here = values + x[i] * sy * sz, *next = x[i] + 1 < sx ? here + sy * sz : here;
        for (int64_t j = 0; j < ny; j++) {
            const int64_t low = y[j] * sz, high = (y[j] + 1 < sy ? y[j] + 1 : sy - 1) * sz;
            const float a = x_weights[2 * i] * y_weights[2 * j], b = x_weights[2 * i] * y_weights[2 * j + 1];
            const float c = x_weights[2 * i + 1] * y_weights[2 * j], d = x_weights[2 * i + 1] * y_weights[2 * j + 1];
            for (int64_t k = 0; k < sz; k++) {
                row[k] = a * here[low + k] + b * here[high + k] + c * next[low + k] + d * next[high + k];
            }
            for (int64_t k = 0; k < nz; k++) {
                const float above = row[z[k] + 1 < sz ? z[k] + 1 : sz - 1];
                out[(i * ny + j) * nz + k] = z_weights[2 * k] * row[z[k]] + z_weights[2 * k + 1] * above > 0.5f;
            }
        }
    }
    free(row);
    return DONE;
}
