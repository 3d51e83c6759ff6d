/* The vectors of conjugate gradients, in as few passes over memory as may be. */
#include "solver_kernels.h"
#include "tasks.h"

KERNEL step_conjugate_gradients(
    tasks *planes, int64_t plane_size, float step, const float *direction, const float *curved, const float *inverse,
    float *amplitudes, float *gradient, float *preconditioned, float *products) {
    FOR_EACH_TASK(plane, planes) {
        const int64_t first = plane * plane_size, last = first + plane_size;
        vector sum = broadcast(0);
        int64_t k = first;
        for (; k + LANES <= last; k += LANES) {
            const vector residual = load(gradient + k) - step * load(curved + k);
            const vector weighted = load(inverse + k) * residual;
            store(amplitudes + k, load(amplitudes + k) + step * load(direction + k));
            store(gradient + k, residual);
            store(preconditioned + k, weighted);
            sum += residual * weighted;
        }
        float total = sum_of_lanes(sum);
        for (; k < last; k++) {
            amplitudes[k] += step * direction[k];
            gradient[k] -= step * curved[k];
            preconditioned[k] = inverse[k] * gradient[k];
            total += gradient[k] * preconditioned[k];
        }
        products[plane] = total;
    }
    return DONE;
}
