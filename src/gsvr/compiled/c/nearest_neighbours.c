/* Which Gaussians are nearest to each other.
 *
 * Of two at one distance the one with the smaller number is nearer: then it does not matter in which order they are
 * looked at. Products are rounded before they are added, so that distances are the same on every machine. */
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif

#include "gaussian_kernels.h"
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

/* Whether a distance comes before that of this rank. */
INLINE int is_nearer(const nearest *best, int64_t rank, float square, int64_t number) {
    return square < best->squares[rank] || (square == best->squares[rank] && number < best->numbers[rank]);
}

INLINE void insert(const nearest *best, float square, int64_t number) {
    int64_t rank = best->count - 1;
    for (; rank > 0 && is_nearer(best, rank - 1, square, number); rank--) {
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
        if (!any_lane(squares <= *worst)) continue;
        for (int64_t lane = 0; lane < LANES && k + lane < end; lane++) {
            if (k + lane == j || !is_nearer(best, best->count - 1, squares[lane], k + lane)) continue;
            insert(best, squares[lane], k + lane);
        }
    }
}

/* Cells around one along x and y: those that hold the nearest come first, so that later ones have little to add. */
static const int64_t AROUND[9][2] = {{0, 0}, {-1, 0}, {1, 0}, {0, -1}, {0, 1}, {-1, -1}, {-1, 1}, {1, -1}, {1, 1}};

static void search_cells(
    const float *places, int64_t stride, int64_t j, const int64_t *cell, const int64_t *shape, const int64_t *first,
    const nearest *best) {
    const int64_t low = cell[2] > 0 ? cell[2] - 1 : 0, high = cell[2] + 2 < shape[2] ? cell[2] + 2 : shape[2];
    for (int64_t i = 0; i < best->count; i++) best->squares[i] = __builtin_inff();
    for (int i = 0; i < 9; i++) {
        const int64_t x = cell[0] + AROUND[i][0], y = cell[1] + AROUND[i][1];
        if (x < 0 || y < 0 || x >= shape[0] || y >= shape[1]) continue;
        /* cells along z follow each other */
        const int64_t *row = first + (x * shape[1] + y) * shape[2];
        search_run(places, stride, j, row[low], row[high], best);
    }
}

KERNEL find_nearest_neighbours(
    tasks *chunks, int64_t size, int64_t n, int64_t stride, int64_t count, const float *places, const int64_t *cells,
    const int64_t *shape, const int64_t *first, int64_t *found) {
    if (count < 1) return DONE;
    float *squares = malloc((size_t)count * sizeof(float));
    if (squares) {
        FOR_EACH_TASK(chunk, chunks) {
            const int64_t end = (chunk + 1) * size < n ? (chunk + 1) * size : n;
            for (int64_t j = chunk * size; j < end; j++) {
                const nearest best = {squares, found + j * count, count};
                search_cells(places, stride, j, cells + 3 * j, shape, first, &best);
            }
        }
    }
    free(squares);
    return squares ? DONE : NO_MEMORY;
}
