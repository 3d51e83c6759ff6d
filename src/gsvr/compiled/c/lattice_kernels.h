/* Lattices of equal isotropic Gaussians: see kernels.h. */
#ifndef GSVR_LATTICE_KERNELS_H
#define GSVR_LATTICE_KERNELS_H

#include "kernels.h"

/* `gsvr.backends.windows.SliceWindows` of n slices, m components of the slice profile. */
typedef struct {
    int64_t n_components;
    int64_t n_rows; /* most pixels along u and along v that a Gaussian touches */
    int64_t n_columns;
    const double *from_lattice;    /* [n 3 4] */
    const double *sharpness;       /* [n 2] */
    const double *reach;           /* [n 2] */
    const double *depth;           /* [n 2] */
    const double *peaks;           /* [n m] */
    const double *offsets;         /* [n m] */
    const double *depth_sharpness; /* [n m] */
    const int64_t *shapes;         /* [n 2] */
    const int64_t *first_pixel;    /* [n + 1] */
    const double *pixel_spacing;   /* [n 2] */
} slice_windows;

/* Sites [first, first + count) of lattice row (ix, iy) touch slice s; where the splats of (s, ix) start. */
typedef struct {
    int64_t nx;
    int64_t ny;
    int64_t nz;
    const int16_t *first;       /* [n nx ny] */
    const int16_t *count;       /* [n nx ny] */
    const int64_t *splat_first; /* [n nx + 1] */
} touched_sites;

/* Splats, slice after slice, lattice row after lattice row: where the window starts in the slice's frame, the ratio of
 * neighbouring pixels along u and v in the middle of the window (but for the table), the peak. Of the last three eight
 * more than there are, so that whole vectors can be read. */
typedef struct {
    const int32_t *starts;
    const float *ratios_u;
    const float *ratios_v;
    const float *scales;
} lattice_splats;

/* For every lattice row, which of its sites touch a slice. */
KERNEL find_touched_sites(
    tasks *slices, const slice_windows *windows, int64_t nx, int64_t ny, int64_t nz,
    const int64_t *row_first,                /* [nx ny], first and last (excluded) site with a Gaussian */
    const int64_t *row_last, int16_t *first, /* [n nx ny], zeros */
    int16_t *count, int64_t *plane_counts);  /* [n nx] sums of `count` */

KERNEL plan_lattice(
    tasks *slices, const slice_windows *windows, const touched_sites *touched, int32_t *starts, float *ratios_u,
    float *ratios_v, float *scales);

KERNEL predict_lattice(
    tasks *slices, const slice_windows *windows, const touched_sites *touched, const lattice_splats *splats,
    const float *amplitudes, /* [nx ny nz] */
    float *pixels);

/* Pixels, derivatives by pixel - Gaussian along u, v, w, torques about u, v, w. */
KERNEL differentiate_lattice(
    tasks *slices, const slice_windows *windows, const touched_sites *touched, const lattice_splats *splats,
    const float *amplitudes,          /* [nx ny nz] */
    int64_t n_pixels, float *planes); /* [7 n_pixels] */

/* Copy slices into frames of zeros as wide as a window, so that windows need no border checks. */
KERNEL frame_lattice_slices(
    tasks *slices, const slice_windows *windows, const float *pixels, const int64_t *frame_first, /* [n + 1] */
    float *framed);

/* A^T r for blocks of `planes_a_task` planes of the lattice; with `square` every weight is squared, and `sharpness`
 * must be doubled in `windows`. */
KERNEL adjoint_lattice(
    tasks *blocks, int64_t planes_a_task, int64_t n_slices, const slice_windows *windows, const touched_sites *touched,
    const lattice_splats *splats, const float *framed, const int64_t *frame_first, int64_t square,
    float *sites); /* [nx ny nz] */

#endif
