/* Splats whose windows are at most eight pixels wide and long, as nearly all are: many at a time.
 *
 * What belongs to the splats alone, the powers of their ratios, is computed for eight splats at once, one in each lane;
 * `transpose` then turns eight splats into eight windows. What is left for each splat by itself is its rows of pixels.
 * Their number is the same for all splats of a slice, and known to the compiler where `WITH_ROWS` is used. */
#ifndef GSVR_SHORT_WINDOWS_H
#define GSVR_SHORT_WINDOWS_H

#include "lanes.h"

/* Splats that are handled together; what is computed for a batch of them stays in the first-level cache. */
enum { BATCH = 256 };

typedef struct {
    float factors[LANES * BATCH]; /* of row a and splat i: [a * BATCH + i] */
    float windows[LANES * BATCH]; /* of splat i and column l: [i * LANES + l] */
} batch;

/* Call `function` with `rows` as a constant. */
#define WITH_ROWS(rows, function, ...)                                                                                 \
    switch (rows) {                                                                                                    \
    case 1:                                                                                                            \
        function(1, __VA_ARGS__);                                                                                      \
        break;                                                                                                         \
    case 2:                                                                                                            \
        function(2, __VA_ARGS__);                                                                                      \
        break;                                                                                                         \
    case 3:                                                                                                            \
        function(3, __VA_ARGS__);                                                                                      \
        break;                                                                                                         \
    case 4:                                                                                                            \
        function(4, __VA_ARGS__);                                                                                      \
        break;                                                                                                         \
    case 5:                                                                                                            \
        function(5, __VA_ARGS__);                                                                                      \
        break;                                                                                                         \
    case 6:                                                                                                            \
        function(6, __VA_ARGS__);                                                                                      \
        break;                                                                                                         \
    case 7:                                                                                                            \
        function(7, __VA_ARGS__);                                                                                      \
        break;                                                                                                         \
    default:                                                                                                           \
        function(8, __VA_ARGS__);                                                                                      \
    }

/* factors[a, i] = scale ratio^a table[a] of splats i < count; with `square` ratios and scales are squared first. */
INLINE void fill_factors(
    int rows, batch *all, const float *ratios, const float *scales, const float *table, int64_t count, int square) {
    for (int64_t i = 0; i < count; i += LANES) {
        vector ratio = load(ratios + i), power = load(scales + i);
        if (square) {
            ratio *= ratio;
            power *= power;
        }
        for (int a = 0; a < rows; a++) {
            store(all->factors + a * BATCH + i, power * table[a]);
            power *= ratio;
        }
    }
}

/* windows[i, l] = height ratio^l table[l]; where the table is zero, a power may have overflowed. */
INLINE void fill_windows(batch *all, const float *ratios, const float *heights, const float *table, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) {
        vector ratio = load(ratios + i), power = load(heights + i), columns[LANES];
        for (int l = 0; l < LANES; l++) {
            columns[l] = table[l] > 0 ? power * table[l] : broadcast(0);
            power *= ratio;
        }
        transpose(columns);
        for (int l = 0; l < LANES; l++) store(all->windows + (i + l) * LANES, columns[l]);
    }
}

/* products[i] = sum over l of windows[i, l] ratio^l table[l]: transpose of `fill_windows`. */
INLINE void multiply_windows(
    batch *all, const float *ratios, const float *table, int64_t count, int square, float *products) {
    for (int64_t i = 0; i < count; i += LANES) {
        vector ratio = load(ratios + i), columns[LANES];
        if (square) ratio *= ratio;
        for (int l = 0; l < LANES; l++) columns[l] = load(all->windows + (i + l) * LANES);
        transpose(columns);
        vector total = columns[LANES - 1] * table[LANES - 1];
        for (int l = LANES - 2; l >= 0; l--) total = total * ratio + columns[l] * table[l];
        store(products + i, total);
    }
}

#endif
