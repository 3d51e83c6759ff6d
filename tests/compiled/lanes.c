/* The building blocks of `lanes.h`, one function each, for test_lanes.py. */
#include "lanes.h"

void powers(const float *source, float *target, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) store(target + i, power_of_two(load(source + i)));
}

void rounded_up(const float *source, float *target, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) store(target + i, round_up(load(source + i)));
}

void sums(const float *source, float *target, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) target[i / LANES] = sum_of_lanes(load(source + i));
}

void turned(const float *source, float *target) {
    vector rows[LANES];
    for (int row = 0; row < LANES; row++) rows[row] = load(source + row * LANES);
    transpose(rows);
    for (int row = 0; row < LANES; row++) store(target + row * LANES, rows[row]);
}

void first_of(const float *source, float *target, int64_t count) {
    store_first(target, load_first(source, count), count);
}

void extremes(const float *a, const float *b, float *target) {
    store(target, smaller(load(a), load(b)));
    store(target + LANES, larger(load(a), load(b)));
}
