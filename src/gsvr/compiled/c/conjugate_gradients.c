/* The vectors of conjugate gradients, in one pass over memory. */
#include "solver_kernels.h"
#include "tasks.h"

KERNEL step_conjugate_gradients(
    tasks *chunks, int64_t size, int64_t n, float step, const float *direction, const float *curved, float *amplitudes,
    float *gradient) {
    FOR_EACH_TASK(chunk, chunks) {
        const int64_t first = chunk * size, last = first + size < n ? first + size : n;
        int64_t k = first;
        for (; k + LANES <= last; k += LANES) {
            store(amplitudes + k, load(amplitudes + k) + step * load(direction + k));
            store(gradient + k, load(gradient + k) - step * load(curved + k));
        }
        for (; k < last; k++) {
            amplitudes[k] += step * direction[k];
            gradient[k] -= step * curved[k];
        }
    }
    return DONE;
}
