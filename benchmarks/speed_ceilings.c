/* The loops whose speed is a ceiling for the kernels: data in the first-level cache, nothing else to do. */
#include "lanes.h"

void powers_of_two(const float *x, float *y, int64_t size, int64_t repeats) {
    for (int64_t repeat = 0; repeat < repeats; repeat++) {
        for (int64_t i = 0; i < size; i += LANES) store(y + i, power_of_two(load(x + i)));
        __asm__ volatile("" ::: "memory");
    }
}

void multiply_add_store(const float *x, float *y, int64_t size, int64_t repeats) {
    float factor = 1e-3f;
    for (int64_t repeat = 0; repeat < repeats; repeat++) {
        for (int64_t i = 0; i < size; i += LANES) store(y + i, load(y + i) + factor * load(x + i));
        factor = -factor;
        __asm__ volatile("" ::: "memory");
    }
}

void dot(const float *x, float *y, int64_t size, int64_t repeats) {
    for (int64_t repeat = 0; repeat < repeats; repeat++) {
        vector sums[4] = {{0}};
        for (int64_t i = 0; i < size; i += 4 * LANES) {
            for (int chain = 0; chain < 4; chain++) {
                sums[chain] += load(x + i + chain * LANES) * load(y + i + chain * LANES);
            }
        }
        y[0] = 1e-30f * sum_of_lanes(sums[0] + sums[1] + sums[2] + sums[3]);
    }
}
