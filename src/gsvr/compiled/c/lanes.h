/* Vector code without intrinsics: eight float32 lanes at a time, in the vector extension of GCC and Clang.
 *
 * Where the machine has no registers of 256 bits, the compiler takes several smaller ones. */
#ifndef GSVR_LANES_H
#define GSVR_LANES_H

#include <stdint.h>
#include <string.h>

#define LANES 8
#define LOG2_E 1.4426950408889634
#define INLINE static inline __attribute__((always_inline))

typedef float vector __attribute__((vector_size(4 * LANES)));
typedef int32_t integers __attribute__((vector_size(4 * LANES)));
/* the bits of numbers: sums and shifts of them may overflow */
typedef uint32_t bit_patterns __attribute__((vector_size(4 * LANES)));
/* the same in memory, at any address that holds a float */
typedef float unaligned_vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t unaligned_integers __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (integers){__VA_ARGS__})
#endif

INLINE vector load(const float *place) { return *(const unaligned_vector *)place; }

INLINE void store(float *place, vector values) { *(unaligned_vector *)place = values; }

/* The first `count` lanes, if they are fewer than eight. */
INLINE void store_first(float *place, vector values, int64_t count) {
    if (count >= LANES) {
        store(place, values);
    } else {
        memcpy(place, &values, (size_t)count * sizeof(float));
    }
}

/* As many lanes as there are, if they are fewer than eight; then zeros. */
INLINE vector load_first(const float *place, int64_t count) {
    if (count >= LANES) return load(place);
    vector values = {0};
    memcpy(&values, place, (size_t)count * sizeof(float));
    return values;
}

INLINE void store_first_integers(int32_t *place, integers values, int64_t count) {
    if (count >= LANES) {
        *(unaligned_integers *)place = values;
    } else {
        memcpy(place, &values, (size_t)count * sizeof(int32_t));
    }
}

INLINE vector broadcast(float value) { return (vector){value, value, value, value, value, value, value, value}; }

INLINE vector lane_numbers(void) { return (vector){0, 1, 2, 3, 4, 5, 6, 7}; }

INLINE float sum_of_lanes(vector v) {
    v += SHUFFLE(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
    v += SHUFFLE(v, v, 2, 3, 0, 1, 6, 7, 4, 5);
    return v[0] + v[1];
}

/* Values where the lanes of `mask` (the result of a comparison) are true, zero elsewhere. */
INLINE vector where(integers mask, vector values) { return (vector)(mask & (integers)values); }

INLINE vector smaller(vector a, vector b) {
    integers first = a < b;
    return (vector)((first & (integers)a) | (~first & (integers)b));
}

INLINE vector larger(vector a, vector b) {
    integers first = a > b;
    return (vector)((first & (integers)a) | (~first & (integers)b));
}

/* Smallest whole number not below x, |x| < 2^31. */
INLINE vector round_up(vector x) {
    vector whole = __builtin_convertvector(__builtin_convertvector(x, integers), vector);
    return whole + where(whole < x, broadcast(1));
}

/* 2^y for y <= 115; zero below -126.
 *
 * y = k + f: 2^f by the polynomial of degree five whose largest relative error over |f| <= 1/2 is smallest (8e-8), and
 * 2^k by the bits of a float. Adding 1.5 x 2^23 rounds to a whole number, which is then in the lowest bits. The
 * relative error is that of y in float32 for the most part: below 5e-6 from -126 to 115, below 1.5e-6 from -23 to 0. */
INLINE vector power_of_two(vector y) {
    const float rounder = 12582912.0f;
    vector rounded = y + rounder;
    vector f = y - (rounded - rounder);
    vector p = broadcast(0.00132764721f);
    p = p * f + 0.00967554143f;
    p = p * f + 0.0555071327f;
    p = p * f + 0.2402211972f;
    p = p * f + 0.6931469671f;
    p = p * f + 1.0000000717f;
    vector power = (vector)((bit_patterns)p + ((bit_patterns)rounded << 23));
    return where(y > broadcast(-126), power);
}

/* Eight vectors of eight lanes, turned: blocks of four lanes are exchanged, then of two, then of one. */
INLINE void transpose(vector rows[LANES]) {
    for (int first = 0; first < 4; first++) {
        vector a = rows[first], b = rows[first + 4];
        rows[first] = SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
        rows[first + 4] = SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    }
    for (int first = 0; first < LANES; first += first % 4 == 1 ? 3 : 1) {
        vector a = rows[first], b = rows[first + 2];
        rows[first] = SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
        rows[first + 2] = SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int first = 0; first < LANES; first += 2) {
        vector a = rows[first], b = rows[first + 1];
        rows[first] = SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
        rows[first + 1] = SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
    }
}

#endif
