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

/* ---- the solver with free Gaussians ---- */

/* Gaussians and their neighbours: those of Gaussian j are columns[row_first[j] ...]. */
typedef struct {
    int64_t n;
    const int64_t *row_first;     /* [n + 1] */
    const int32_t *columns;
    const float *bonds;           /* one for each column */
    const float *sums;            /* [n] */
} gaussian_links;

/* Sort pairs by both of their ends. One task. */
KERNEL link_pairs(
    tasks *one, int64_t n_pairs, const int64_t *first, const int64_t *second, int64_t n,
    int64_t *row_first,           /* [n + 1], zeros */
    int32_t *columns,             /* [2 n_pairs] */
    int32_t *pairs);              /* [2 n_pairs] which pair each column comes from */

/* Bonds of an edge-preserving prior, weight scale^2 / sqrt(1 + (scale difference)^2), and their sums. Tasks are `chunk`
 * Gaussians each. */
KERNEL weigh_links(
    tasks *chunks, int64_t chunk, int64_t n, const int64_t *row_first, const int32_t *columns, const int32_t *pairs,
    const float *weights,         /* one for each pair */
    const float *amplitudes, float scale,
    float *bonds, float *sums);

/* `factor` times (sums values - bonds values of the neighbours), plus `start` if that is given. */
KERNEL apply_links(
    tasks *chunks, int64_t chunk, const gaussian_links *links, float factor, const float *values, const float *start,
    float *out);

/* Eigenvalues of symmetric matrices, smallest first, and their vectors, in columns. */
KERNEL find_eigenvectors(
    tasks *chunks, int64_t chunk, int64_t n,
    const float *matrices,        /* [n 3 3] */
    double *eigenvalues,          /* [n 3] */
    double *vectors);             /* [n 3 3] */

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

/* ---- free Gaussians ---- */

/* Gaussians in the order of their buckets (`gsvr.kernels.gaussian_plan.Buckets`). `values` has ten rows of `stride`
 * numbers: x, y, z of the mean; xx, xy, xz, yy, yz, zz of the covariance; its determinant. After the last Gaussian
 * there is room for a few more, so that several can be read at once. */
typedef struct {
    int64_t n_buckets;
    int64_t stride;
    const int64_t *first;         /* [b + 1] */
    const double *centres;        /* [b 3] */
    const double *radii;          /* [b] */
    const double *values;         /* [10 stride] */
} gaussian_buckets;

/* `gsvr.kernels.gaussian_views.SliceViews` of n slices, m = 1 or 2 components of the slice profile. Slices are padded:
 * their rows are eight columns wider, and after the last there is room for one vector. */
typedef struct {
    int64_t n_slices;
    int64_t n_components;
    int64_t exact;
    double cutoff;
    const double *to_slice;       /* [n 3 4] */
    const double *in_plane;       /* [n 2] */
    const double *weights;        /* [m] */
    const double *offsets;        /* [n m] */
    const double *variances;      /* [n m] */
    const double *pixel_spacing;  /* [n 2] */
    const double *centres;        /* [n 2] */
    const int64_t *shapes;        /* [n 2] */
    const int64_t *first_pixel;   /* [n + 1] */
    const int64_t *padded_first;  /* [n + 1] */
    const float *limits;          /* padded slices, see `SliceViews.squared_radii`; or none */
} gaussian_views;

/* Pieces of splats (pairs of a Gaussian and a slice), by slice and then by bucket; `first` tells where those of a slice
 * and a bucket start. Of each: its Gaussian, its first pixel in the padded slice, its rows, its form (see
 * `gaussian_form.h`), where the mean stands from its first pixel (pixels, along u and v), and the square of its
 * distance from the slice (mm^2), which only limits ask for. */
typedef struct {
    int64_t n_buckets;
    const int64_t *first;         /* [n b + 1] */
    const int32_t *gaussians;     /* [p] */
    const int32_t *corners;       /* [p] */
    const int16_t *n_rows;        /* [p] */
    const float *forms;           /* [p 9] */
    const float *places;          /* [p 2] */
    const float *depths;          /* [p], or none */
} gaussian_pieces;

/* How many pieces each slice and bucket will have, into first[s, b + 1], and how many splats each slice has. */
KERNEL count_gaussian_pieces(
    tasks *slices, const gaussian_buckets *buckets, const gaussian_views *views,
    int64_t *first,               /* [n b + 1] */
    int64_t *n_splats);           /* [n] */

KERNEL plan_gaussians(
    tasks *slices, const gaussian_buckets *buckets, const gaussian_views *views, const int64_t *first,
    int32_t *gaussians, int32_t *corners, int16_t *n_rows, float *forms, float *places, float *depths);

KERNEL pad_gaussian_slices(tasks *slices, const gaussian_views *views, const float *pixels, float *padded);

KERNEL predict_gaussians(
    tasks *slices, const gaussian_views *views, const gaussian_pieces *pieces, const float *amplitudes,
    float *pixels);

/* A^T r for groups of `buckets_a_task` buckets; with `square` every weight is squared. */
KERNEL adjoint_gaussians(
    tasks *groups, int64_t buckets_a_task, const gaussian_views *views, const gaussian_pieces *pieces,
    const float *padded, int64_t square,
    float *sums);                 /* by Gaussian, zero before */

/* Pixels, their derivatives by d = pixel - Gaussian along u, v, w, and torques about u, v, w; without limits. */
KERNEL differentiate_gaussians(
    tasks *slices, const gaussian_buckets *buckets, const gaussian_views *views, const gaussian_pieces *pieces,
    const float *amplitudes, int64_t n_pixels,
    float *planes);               /* [7 n_pixels] */

/* Gradient of the sum of r times the pixels by geometry and poses, for g groups of `buckets_a_task` buckets, where r is
 * `residuals` times a Gaussian's amplitude, plus `densities` if they are given (both padded). By poses: rotation and
 * translation in each slice's frame about its centre. */
KERNEL gaussian_gradient(
    tasks *groups, int64_t buckets_a_task, const gaussian_buckets *buckets, const gaussian_views *views,
    const gaussian_pieces *pieces, const float *amplitudes, const float *residuals, const float *densities,
    double *peaks,                /* by Gaussian, the sum of r G; this and all below zero before */
    double *means,                /* [.. 3] */
    double *covariances,          /* [.. 6], upper triangles */
    double *poses);               /* [n g 6] */

/* `gsvr.kernels.gaussian_planes.ParallelPlanes`, m components of the slice profile. */
typedef struct {
    int64_t n_components;
    int64_t exact;
    double cutoff;
    const int64_t *shape;         /* planes, rows, columns */
    const double *spacing;        /* of each */
    const double *to_planes;      /* [3 4] */
    const double *weights;        /* [m] */
    const double *offsets;        /* [m] */
    const double *variances;      /* [m] */
} parallel_planes;

/* Gaussians that may reach a plane, for chunks of `size` of all n: how many of a chunk these are, and, from the chunk's
 * place in `turned` on, each in the frame of the planes - mean (3), covariance (upper triangle, 6), binary logarithm of
 * the root of its determinant, amplitude, farthest that it is seen (mm). */
KERNEL turn_gaussians(
    tasks *chunks, int64_t size, int64_t n, const parallel_planes *planes,
    const float *means,           /* [n 3] */
    const float *log_scales,      /* [n 3] */
    const float *quaternions,     /* [n 4] */
    const float *amplitudes,      /* [n] */
    double *turned,               /* [n 12] */
    int64_t *counts);             /* by chunk */

/* Add Gaussians to parts of planes. A part is six numbers: its first plane and their number, its first row and their
 * number, and which of `chosen` reach it (first and last, excluded). */
KERNEL add_to_planes(
    tasks *all, const parallel_planes *planes, const double *turned,
    const int64_t *chosen,        /* numbers in `turned` */
    const int64_t *parts,         /* [.. 6] */
    float *out);                  /* [planes rows columns] */

/* The nearest of every Gaussian in the 27 cells around its own, for chunks of `size` of all n, which are sorted by cell
 * and read eight at a time. */
KERNEL find_nearest_neighbours(
    tasks *chunks, int64_t size, int64_t n, int64_t stride, int64_t count,
    const float *places,          /* [3 stride], stride >= n + 8 */
    const int64_t *cells,         /* [n 3] */
    const int64_t *shape,         /* cells along x, y, z */
    const int64_t *first,         /* the first Gaussian of every cell, and n */
    int64_t *found);              /* [n count], nearest first; -1 before, and where there are no more */

#endif
