/* Which Gaussians are nearest to each other. */
#include "tasks.h"

typedef int64_t halves __attribute__((vector_size(4 * LANES)));

INLINE int any_lane(integers mask) {
    const halves pairs = (halves)mask;
    return (pairs[0] | pairs[1] | pairs[2] | pairs[3]) != 0;
}

/* The nearest found so far, nearest first. */
typedef struct {
    float *squares;
    int64_t *numbers;
    int64_t count;
} nearest;

INLINE void insert(const nearest *best, float square, int64_t number) {
    int64_t rank = best->count - 1;
    for (; rank > 0 && best->squares[rank - 1] > square; rank--) {
        best->squares[rank] = best->squares[rank - 1];
        best->numbers[rank] = best->numbers[rank - 1];
    }
    best->squares[rank] = square;
    best->numbers[rank] = number;
}

/* Look for what is nearer to Gaussian j among those from `begin` to `end`. */
static void search_run(
    const float *places, int64_t stride, int64_t j, int64_t begin, int64_t end, const nearest *best) {
    const float *x = places, *y = places + stride, *z = places + 2 * stride;
    const float here_x = x[j], here_y = y[j], here_z = z[j];
    const float *worst = best->squares + best->count - 1;
    for (int64_t k = begin; k < end; k += LANES) {
        const vector by_x = load(x + k) - here_x, by_y = load(y + k) - here_y, by_z = load(z + k) - here_z;
        const vector squares = by_x * by_x + by_y * by_y + by_z * by_z;
        if (!any_lane(squares < *worst)) continue;
        for (int64_t lane = 0; lane < LANES && k + lane < end; lane++) {
            if (squares[lane] < *worst && k + lane != j) insert(best, squares[lane], k + lane);
        }
    }
}

KERNEL find_nearest_neighbours(
    tasks *chunks, int64_t size, int64_t n, int64_t stride, int64_t count, const float *places, const int64_t *cells,
    const int64_t *shape, const int64_t *first, int64_t *found) {
    float *squares = malloc((size_t)(count > 0 ? count : 1) * sizeof(float));
    if (squares && count > 0) {
        FOR_EACH_TASK(chunk, chunks) {
            const int64_t end = (chunk + 1) * size < n ? (chunk + 1) * size : n;
            for (int64_t j = chunk * size; j < end; j++) {
                const nearest best = {squares, found + j * count, count};
                int64_t low[3], high[3];
                for (int a = 0; a < 3; a++) {
                    low[a] = cells[3 * j + a] > 0 ? cells[3 * j + a] - 1 : 0;
                    high[a] = cells[3 * j + a] + 2 < shape[a] ? cells[3 * j + a] + 2 : shape[a];
                }
                for (int64_t i = 0; i < count; i++) squares[i] = __builtin_inff();
                for (int64_t x = low[0]; x < high[0]; x++) {
                    for (int64_t y = low[1]; y < high[1]; y++) {
                        /* cells along z follow each other */
                        const int64_t *row = first + (x * shape[1] + y) * shape[2];
                        search_run(places, stride, j, row[low[2]], row[high[2]], &best);
                    }
                }
            }
        }
    }
    const int ready = squares != 0;
    free(squares);
    return ready ? DONE : NO_MEMORY;
}
