/* One splat at a time, with a window of any number of rows and of vectors in each. */
#ifndef GSVR_LONG_WINDOWS_H
#define GSVR_LONG_WINDOWS_H

#include "lanes.h"

/* window[l] = scale ratio^l table[l] for l < 8 blocks: a Gaussian along pixels without an exponential. */
INLINE void fill_window(float *window, const float *table, float ratio, float scale, int64_t blocks) {
    const float square = ratio * ratio, fourth = square * square;
    const vector ones = {1, ratio, 1, ratio, 1, ratio, 1, ratio}, twos = {1, 1, square, square, 1, 1, square, square};
    vector power = ones * twos * (vector){1, 1, 1, 1, fourth, fourth, fourth, fourth} * scale;
    for (int64_t block = 0; block < blocks; block++) {
        const vector peaks = load(table + block * LANES);
        store(window + block * LANES, where(peaks > broadcast(0), peaks * power)); /* the power may have overflowed */
        power *= fourth * fourth;
    }
}

/* place[a stride + l] += column[a] row[l]. */
INLINE void add_outer(
    float *place, int64_t stride, const float *column, int64_t n_rows, const float *row, int64_t blocks) {
    for (int64_t block = 0; block < blocks; block++) {
        const vector values = load(row + block * LANES);
        float *here = place + block * LANES;
        for (int64_t a = 0; a < n_rows; a++) store(here + a * stride, load(here + a * stride) + column[a] * values);
    }
}

/* Sum of place[a stride + l] column[a] row[l]. */
INLINE float dot_outer(
    const float *place, int64_t stride, const float *column, int64_t n_rows, const float *row, int64_t blocks) {
    vector total = broadcast(0);
    for (int64_t block = 0; block < blocks; block++) {
        const float *here = place + block * LANES;
        vector sum = broadcast(0);
        for (int64_t a = 0; a < n_rows; a++) sum += column[a] * load(here + a * stride);
        total += sum * load(row + block * LANES);
    }
    return sum_of_lanes(total);
}

#endif
