/* Everything that Python may call. `gsvr.compiled` reads this file, too: it takes the types of arguments and
 * of the fields of structures from here, so keep one declaration to a statement and pointers next to their names.
 *
 * A kernel with `tasks` runs on all threads at once; its arrays are shared, and no two tasks write to one place, so that
 * the result does not depend on the number of threads. All arrays are contiguous, shapes are given in brackets. */
#ifndef GSVR_KERNELS_H
#define GSVR_KERNELS_H

#include <stdint.h>

#if defined(_WIN32)
#define KERNEL __declspec(dllexport) int
#else
#define KERNEL __attribute__((visibility("default"))) int
#endif

typedef struct {
    int64_t next;
    int64_t count;
} tasks;

/* Whether the processor has AVX2 and fused multiply-add. */
KERNEL has_avx2(void);

/* ---- pixels of slices ---- */

/* Average `factor` x `factor` pixels inside the mask; the last block of an axis may be partly empty. */
KERNEL bin_pixels(
    tasks *slices, int64_t factor,
    const int64_t *shapes,        /* [n 2] */
    const int64_t *first_pixel,   /* [n + 1] */
    const float *values, const uint8_t *mask,
    const int64_t *first_binned,  /* [n + 1] */
    float *binned, float *coverage);

/* Position of every pixel inside the mask, slice after slice. */
KERNEL place_pixels(
    tasks *slices,
    const int64_t *shapes,        /* [n 2] */
    const int64_t *first_pixel,   /* [n + 1] */
    const double *corners,        /* [n 3] position of the first pixel */
    const double *steps,          /* [n 2 3] from one pixel to the next along u and v */
    const uint8_t *mask,
    const int64_t *first_placed,  /* [n + 1] */
    double *positions);           /* [placed 3] */

/* A volume at every pixel, interpolated linearly; corners and steps in voxels. */
KERNEL sample_at_pixels(
    tasks *slices, const int64_t *shapes, const int64_t *first_pixel, const double *corners, const double *steps,
    const double *volume,         /* [nx ny nz] */
    int64_t nx, int64_t ny, int64_t nz,
    double outside,               /* value beyond the outermost voxels */
    double *samples);

/* ---- lattices of equal isotropic Gaussians ---- */

/* `gsvr.kernels.culling.SliceWindows` of n slices, m components of the slice profile. */
typedef struct {
    int64_t n_components;
    int64_t n_rows;               /* most pixels along u and along v that a Gaussian touches */
    int64_t n_columns;
    const double *from_lattice;   /* [n 3 4] */
    const double *sharpness;      /* [n 2] */
    const double *reach;          /* [n 2] */
    const double *depth;          /* [n 2] */
    const double *peaks;          /* [n m] */
    const double *offsets;        /* [n m] */
    const double *depth_sharpness; /* [n m] */
    const int64_t *shapes;        /* [n 2] */
    const int64_t *first_pixel;   /* [n + 1] */
    const double *pixel_spacing;  /* [n 2] */
} slice_windows;

/* Sites [first, first + count) of lattice row (ix, iy) touch slice s; where the splats of (s, ix) start. */
typedef struct {
    int64_t nx;
    int64_t ny;
    int64_t nz;
    const int16_t *first;         /* [n nx ny] */
    const int16_t *count;         /* [n nx ny] */
    const int64_t *splat_first;   /* [n nx + 1] */
} touched_sites;

/* Splats, slice after slice, lattice row after lattice row: where the window starts in the slice's frame, the ratio of
 * neighbouring pixels along u and v in the middle of the window (but for the table), the peak. Eight more than there
 * are, so that whole vectors can be read. */
typedef struct {
    const int32_t *starts;
    const float *ratios_u;
    const float *ratios_v;
    const float *scales;
} lattice_splats;

/* For every lattice row, which of its sites touch a slice. */
KERNEL find_touched_sites(
    tasks *slices, const slice_windows *windows, int64_t nx, int64_t ny, int64_t nz,
    const int64_t *row_first,     /* [nx ny], first and last (excluded) site with a Gaussian */
    const int64_t *row_last,
    int16_t *first,               /* [n nx ny], zeros */
    int16_t *count,
    int64_t *plane_counts);       /* [n nx] sums of `count` */

KERNEL plan_lattice(
    tasks *slices, const slice_windows *windows, const touched_sites *touched,
    int32_t *starts, float *ratios_u, float *ratios_v, float *scales);

KERNEL predict_lattice(
    tasks *slices, const slice_windows *windows, const touched_sites *touched, const lattice_splats *splats,
    const float *amplitudes,      /* [nx ny nz] */
    float *pixels);

/* Pixels, derivatives by pixel - Gaussian along u, v, w, torques about u, v, w. */
KERNEL differentiate_lattice(
    tasks *slices, const slice_windows *windows, const touched_sites *touched, const lattice_splats *splats,
    const float *amplitudes,      /* [nx ny nz] */
    int64_t n_pixels,
    float *planes);               /* [7 n_pixels] */

/* Copy slices into frames of zeros as wide as a window, so that windows need no border checks. */
KERNEL frame_lattice_slices(
    tasks *slices, const slice_windows *windows, const float *pixels,
    const int64_t *frame_first,   /* [n + 1] */
    float *framed);

/* A^T r for blocks of `planes_a_task` planes of the lattice; with `square` every weight is squared, and `sharpness`
 * must be doubled in `windows`. */
KERNEL adjoint_lattice(
    tasks *blocks, int64_t planes_a_task, int64_t n_slices, const slice_windows *windows,
    const touched_sites *touched, const lattice_splats *splats, const float *framed, const int64_t *frame_first,
    int64_t square,
    float *sites);                /* [nx ny nz] */

/* ---- the solver on lattices ---- */

/* Weights of the bonds to neighbours in 13 directions (`gsvr.solver.prior`), and the sites [first, last) of each row that
 * any bond may start or end at. */
typedef struct {
    int64_t nx;
    int64_t ny;
    int64_t nz;
    const float *weights;         /* [13 nx ny nz] */
    const int64_t *extent;        /* [nx ny 2] */
} lattice_bonds;

/* Weights of the bonds that start in each plane: 1 / (edge^2 sqrt(1 + (difference / edge)^2) length^2). */
KERNEL weigh_bonds(
    tasks *planes, int64_t nx, int64_t ny, int64_t nz,
    const int64_t *directions,    /* [13 3] */
    const float *lengths,         /* [13] squared */
    const float *support,         /* [nx ny nz] */
    const int64_t *extent,        /* [nx ny 2] */
    const float *values,          /* [nx ny nz] */
    float edge,
    float *weights);              /* [13 nx ny nz], zeros */

/* For every site the sum of its bonds. */
KERNEL sum_bonds(tasks *planes, const lattice_bonds *bonds, const float *ones, float *sums);

/* `factor` times the graph Laplacian, plus `start` if that is given: `sums` on its diagonal, minus the bonds. */
KERNEL apply_bonds(
    tasks *planes, const lattice_bonds *bonds, const float *sums, float factor, const float *values,
    const float *start, float *out);

/* One step of conjugate gradients along `direction`, and what the next one needs, in one pass: the gradient
 * preconditioned, and for every plane the product of the two. */
KERNEL step_conjugate_gradients(
    tasks *planes, int64_t plane_size, float step, const float *direction, const float *curved, const float *inverse,
    float *amplitudes, float *gradient, float *preconditioned,
    float *products);             /* [planes] */

/* J^T W J (upper triangle, row after row) and J^T W r of the pose of every slice, rotations in rad. */
KERNEL sum_pose_equations(
    tasks *slices,
    const float *planes,          /* [7 n_pixels], of `differentiate_lattice` */
    int64_t n_pixels,
    const int64_t *shapes,        /* [n 2] */
    const int64_t *first_pixel,   /* [n + 1] */
    const double *pixel_spacing,  /* [n 2] */
    const double *gains,          /* [n] */
    const float *values, const float *weights,
    double *sums,                 /* [n 21], zeros */
    double *gradients);           /* [n 6], zeros */

/* ---- masks ---- */

/* Whether a volume, interpolated linearly at a grid along its own axes, exceeds one half. For every position along an
 * axis the lower of the two voxels around it and the weights of both. */
KERNEL exceeds_half(
    tasks *planes,
    const float *values,          /* [sx sy sz] */
    int64_t sx, int64_t sy, int64_t sz, int64_t ny, int64_t nz,
    const int64_t *x, const float *x_weights, const int64_t *y, const float *y_weights, const int64_t *z,
    const float *z_weights,
    uint8_t *out);                /* [nx ny nz] */

#endif
