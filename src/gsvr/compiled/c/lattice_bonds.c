/* The edge-preserving prior on a lattice (`gsvr.solver.priors.lattice`): bonds between neighbouring sites. */
#include <math.h>

#include "solver_kernels.h"
#include "tasks.h"

enum { N_DIRECTIONS = 13, N_GROUPS = 4 };

/* The first direction leads along a row of the lattice; then follow groups of three (z = -1, 0, 1), each to one other
 * row, by these steps along x and y. */
static const int ROW_STEPS[N_GROUPS][2] = {{0, 1}, {1, -1}, {1, 0}, {1, 1}};

/* row[k] += below[k] there[k - 1] + level[k] there[k] + above[k] there[k + 1] for first <= k < last. */
static void add_row(
    int64_t first, int64_t last, int64_t nz, const float *below, const float *level, const float *above,
    const float *restrict there, float *restrict row) {
    const int64_t end = nz - 1;
    if (first == 0) row[0] += level[0] * there[0] + (end > 0 ? above[0] * there[1] : 0); /* no bond leads out */
    if (last > end && end > 0) row[end] += below[end] * there[end - 1] + level[end] * there[end];
    if (first < 1) first = 1;
    if (last > end) last = end;
    for (int64_t k = first; k < last; k++) {
        row[k] += below[k] * there[k - 1] + level[k] * there[k] + above[k] * there[k + 1];
    }
}

/* `add_row` along the same bonds from their other ends: their sites are those of `there`. */
static void add_row_back(
    int64_t first, int64_t last, int64_t nz, const float *below, const float *level, const float *above,
    const float *restrict there, float *restrict row) {
    const int64_t end = nz - 1;
    if (first == 0) row[0] += level[0] * there[0] + (end > 0 ? below[1] * there[1] : 0);
    if (last > end && end > 0) row[end] += above[end - 1] * there[end - 1] + level[end] * there[end];
    if (first < 1) first = 1;
    if (last > end) last = end;
    for (int64_t k = first; k < last; k++) {
        row[k] += above[k - 1] * there[k - 1] + level[k] * there[k] + below[k + 1] * there[k + 1];
    }
}

/* Whether row (x, y) is in the lattice and has bonds. */
static int has_bonds(const lattice_bonds *b, int64_t x, int64_t y) {
    return x >= 0 && x < b->nx && y >= 0 && y < b->ny &&
           b->extent[2 * (x * b->ny + y)] < b->extent[2 * (x * b->ny + y) + 1];
}

/* For row (x, y), the sum of each site's neighbours times their bonds. */
static void sum_neighbours(const lattice_bonds *b, int64_t x, int64_t y, const float *values, float *row) {
    const int64_t nz = b->nz, n_sites = b->nx * b->ny * nz, place = x * b->ny + y;
    const int64_t first = b->extent[2 * place], last = b->extent[2 * place + 1];
    const float *here = values + place * nz, *along = b->weights + place * nz;
    memset(row, 0, (size_t)nz * sizeof(float));
    if (first == last) return;
    for (int64_t k = first; k < (last < nz - 1 ? last : nz - 1); k++) row[k] += along[k] * here[k + 1];
    for (int64_t k = first > 1 ? first : 1; k < last; k++) row[k] += along[k - 1] * here[k - 1];
    for (int group = 0; group < N_GROUPS; group++) {
        const float *below = b->weights + (1 + 3 * group) * n_sites;
        const int64_t dx = ROW_STEPS[group][0], dy = ROW_STEPS[group][1];
        if (has_bonds(b, x + dx, y + dy)) {
            const float *three = below + place * nz, *there = values + ((x + dx) * b->ny + y + dy) * nz;
            add_row(first, last, nz, three, three + n_sites, three + 2 * n_sites, there, row);
        }
        if (has_bonds(b, x - dx, y - dy)) {
            const int64_t back = ((x - dx) * b->ny + y - dy) * nz;
            const float *three = below + back;
            add_row_back(first, last, nz, three, three + n_sites, three + 2 * n_sites, values + back, row);
        }
    }
}

KERNEL sum_bonds(tasks *planes, const lattice_bonds *bonds, const float *ones, float *sums) {
    FOR_EACH_TASK(x, planes) {
        for (int64_t y = 0; y < bonds->ny; y++) {
            sum_neighbours(bonds, x, y, ones, sums + (x * bonds->ny + y) * bonds->nz);
        }
    }
    return DONE;
}

KERNEL apply_bonds(
    tasks *planes, const lattice_bonds *bonds, const float *sums, float factor, const float *values, const float *start,
    float *out) {
    float *neighbours = malloc((size_t)bonds->nz * sizeof(float));
    if (!neighbours) return NO_MEMORY;
    FOR_EACH_TASK(x, planes) {
        for (int64_t row = x * bonds->ny; row < (x + 1) * bonds->ny; row++) {
            const float *total = sums + row * bonds->nz, *here = values + row * bonds->nz;
            float *target = out + row * bonds->nz;
            sum_neighbours(bonds, x, row - x * bonds->ny, values, neighbours);
            if (start) {
                const float *from = start + row * bonds->nz;
                for (int64_t k = 0; k < bonds->nz; k++)
                    target[k] = from[k] + factor * (total[k] * here[k] - neighbours[k]);
            } else {
                for (int64_t k = 0; k < bonds->nz; k++) target[k] = factor * (total[k] * here[k] - neighbours[k]);
            }
        }
    }
    free(neighbours);
    return DONE;
}

static void weigh_row(
    int64_t count, const float *here, const float *there, const float *inside, const float *inside_there, float edge,
    float factor, float *restrict weights) {
    const float inverse_edge = 1 / edge;
    for (int64_t k = 0; k < count; k++) {
        const float t = (here[k] - there[k]) * inverse_edge;
        weights[k] = factor * inside[k] * inside_there[k] / sqrtf(1 + t * t);
    }
}

KERNEL weigh_bonds(
    tasks *planes, int64_t nx, int64_t ny, int64_t nz, const int64_t *directions, const float *lengths,
    const float *support, const int64_t *extent, const float *values, float edge, float *weights) {
    FOR_EACH_TASK(x, planes) {
        for (int n = 0; n < N_DIRECTIONS; n++) {
            const int64_t dx = directions[3 * n], dy = directions[3 * n + 1], dz = directions[3 * n + 2];
            if (x + dx < 0 || x + dx >= nx) continue;
            const float factor = 1 / (edge * edge * lengths[n]);
            for (int64_t y = dy < 0 ? -dy : 0; y < (dy > 0 ? ny - dy : ny); y++) {
                const int64_t row = x * ny + y;
                const int64_t first = extent[2 * row] > -dz ? extent[2 * row] : -dz;
                const int64_t last = extent[2 * row + 1] < nz - dz ? extent[2 * row + 1] : nz - dz;
                const int64_t here = row * nz + first, there = ((x + dx) * ny + y + dy) * nz + first + dz;
                weigh_row(
                    last - first, values + here, values + there, support + here, support + there, edge, factor,
                    weights + n * nx * ny * nz + here);
            }
        }
    }
    return DONE;
}
