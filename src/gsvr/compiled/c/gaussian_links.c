/* The prior and the preconditioner of free Gaussians (`gsvr.solver.priors.neighbours`): sums over neighbours. */
#include <math.h>

#include "solver_kernels.h"
#include "tasks.h"

KERNEL link_pairs(
    tasks *one, int64_t n_pairs, const int64_t *first, const int64_t *second, int64_t n, int64_t *row_first,
    int32_t *columns, int32_t *pairs) {
    FOR_EACH_TASK(task, one) {
        int64_t *next = malloc((size_t)(n + 1) * sizeof(int64_t));
        if (!next) return NO_MEMORY;
        for (int64_t pair = 0; pair < n_pairs; pair++) {
            row_first[first[pair] + 1]++;
            row_first[second[pair] + 1]++;
        }
        for (int64_t j = 0; j < n; j++) row_first[j + 1] += row_first[j];
        memcpy(next, row_first, (size_t)(n + 1) * sizeof(int64_t));
        for (int64_t pair = 0; pair < n_pairs; pair++) {
            const int64_t here = next[first[pair]]++, there = next[second[pair]]++;
            columns[here] = (int32_t)second[pair];
            columns[there] = (int32_t)first[pair];
            pairs[here] = pairs[there] = (int32_t)pair;
        }
        free(next);
    }
    return DONE;
}

KERNEL weigh_links(
    tasks *chunks, int64_t chunk, int64_t n, const int64_t *row_first, const int32_t *columns, const int32_t *pairs,
    const float *weights, const float *amplitudes, float scale, float *bonds, float *sums) {
    FOR_EACH_TASK(task, chunks) {
        const int64_t last = (task + 1) * chunk < n ? (task + 1) * chunk : n;
        for (int64_t j = task * chunk; j < last; j++) {
            float sum = 0;
            for (int64_t k = row_first[j]; k < row_first[j + 1]; k++) {
                const float difference = scale * (amplitudes[j] - amplitudes[columns[k]]);
                bonds[k] = weights[pairs[k]] * scale * scale / sqrtf(1 + difference * difference);
                sum += bonds[k];
            }
            sums[j] = sum;
        }
    }
    return DONE;
}

KERNEL apply_links(
    tasks *chunks, int64_t chunk, const gaussian_links *links, float factor, const float *values, const float *start,
    float *out) {
    FOR_EACH_TASK(task, chunks) {
        const int64_t last = (task + 1) * chunk < links->n ? (task + 1) * chunk : links->n;
        for (int64_t j = task * chunk; j < last; j++) {
            float sum = 0;
            for (int64_t k = links->row_first[j]; k < links->row_first[j + 1]; k++) {
                sum += links->bonds[k] * values[links->columns[k]];
            }
            out[j] = factor * (links->sums[j] * values[j] - sum) + (start ? start[j] : 0);
        }
    }
    return DONE;
}
