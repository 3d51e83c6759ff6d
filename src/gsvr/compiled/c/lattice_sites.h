/* The sites of a lattice plane that a slice touches, in the order of its splats. */
#ifndef GSVR_LATTICE_SITES_H
#define GSVR_LATTICE_SITES_H

#include "lanes.h"
#include "lattice_kernels.h"

/* line[n] = value at the site of splat n. */
INLINE void gather_plane(const touched_sites *touched, int64_t s, int64_t x, const float *values, float *line) {
    const int64_t row = (s * touched->nx + x) * touched->ny;
    for (int64_t y = 0; y < touched->ny; y++) {
        const int64_t count = touched->count[row + y];
        if (count == 0) continue;
        const float *source = values + (x * touched->ny + y) * touched->nz + touched->first[row + y];
        memcpy(line, source, (size_t)count * sizeof(float));
        line += count;
    }
}

/* Transpose of `gather_plane`. */
INLINE void scatter_plane(const touched_sites *touched, int64_t s, int64_t x, const float *line, float *values) {
    const int64_t row = (s * touched->nx + x) * touched->ny;
    for (int64_t y = 0; y < touched->ny; y++) {
        const int64_t count = touched->count[row + y];
        if (count == 0) continue;
        float *target = values + (x * touched->ny + y) * touched->nz + touched->first[row + y];
        for (int64_t i = 0; i < count; i++) target[i] += line[i];
        line += count;
    }
}

#endif
