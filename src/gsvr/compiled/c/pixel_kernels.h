/* Pixels of slices, and masks: see kernels.h. */
#ifndef GSVR_PIXEL_KERNELS_H
#define GSVR_PIXEL_KERNELS_H

#include "kernels.h"

/* ---- pixels of slices ---- */

/* Average `factor` x `factor` pixels inside the mask; the last block of an axis may be partly empty. */
KERNEL bin_pixels(
    tasks *slices, int64_t factor, const int64_t *shapes,                  /* [n 2] */
    const int64_t *first_pixel,                                            /* [n + 1] */
    const float *values, const uint8_t *mask, const int64_t *first_binned, /* [n + 1] */
    float *binned, float *coverage);

/* Position of every pixel inside the mask, slice after slice. */
KERNEL place_pixels(
    tasks *slices, const int64_t *shapes,             /* [n 2] */
    const int64_t *first_pixel,                       /* [n + 1] */
    const double *corners,                            /* [n 3] position of the first pixel */
    const double *steps,                              /* [n 2 3] from one pixel to the next along u and v */
    const uint8_t *mask, const int64_t *first_placed, /* [n + 1] */
    double *positions);                               /* [placed 3] */

/* Mark the sites of a lattice that are nearest to some points; tasks are `chunk` points each. */
KERNEL mark_sites(
    tasks *chunks, int64_t chunk, int64_t n_points, const double *points, /* [n_points 3] */
    double spacing, const int64_t *low,         /* [3] multiple of the spacing at which the lattice begins */
    int64_t ny, int64_t nz, uint8_t *occupied); /* [nx ny nz] */

/* A volume at every pixel, interpolated linearly; corners and steps in voxels. */
KERNEL sample_at_pixels(
    tasks *slices, const int64_t *shapes, const int64_t *first_pixel, const double *corners, const double *steps,
    const double *volume,                               /* [nx ny nz] */
    int64_t nx, int64_t ny, int64_t nz, double outside, /* value beyond the outermost voxels */
    double *samples);

/* ---- masks ---- */

/* Whether a volume, interpolated linearly at a grid along its own axes, exceeds one half. For every position along an
 * axis the lower of the two voxels around it and the weights of both. */
KERNEL exceeds_half(
    tasks *planes, const float *values, /* [sx sy sz] */
    int64_t sx, int64_t sy, int64_t sz, int64_t ny, int64_t nz, const int64_t *x, const float *x_weights,
    const int64_t *y, const float *y_weights, const int64_t *z, const float *z_weights, uint8_t *out); /* [nx ny nz] */

#endif
