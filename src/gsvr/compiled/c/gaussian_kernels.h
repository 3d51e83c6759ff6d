/* Free Gaussians: see kernels.h. */
#ifndef GSVR_GAUSSIAN_KERNELS_H
#define GSVR_GAUSSIAN_KERNELS_H

#include "kernels.h"

/* Numbers of a piece's form, see `gaussian_form.h`. */
enum { FORM_SIZE = 9 };

/* Gaussians in the order of their buckets (`gsvr.backends.cpu.gaussian_plan.Buckets`). `values` has ten rows of
 * `stride` numbers: x, y, z of the mean; xx, xy, xz, yy, yz, zz of the covariance; its determinant. After the last
 * Gaussian there is room for a few more, so that several can be read at once. */
typedef struct {
    int64_t n_buckets;
    int64_t stride;
    const int64_t *first;  /* [b + 1] */
    const double *centres; /* [b 3] */
    const double *radii;   /* [b] */
    const double *values;  /* [10 stride] */
} gaussian_buckets;

/* `gsvr.backends.views.SliceViews` of n slices, and of their point spread function m components that are handled as
 * one: a single one, or a pair of equal covariance of which the second stands further along w. Slices are padded: their
 * rows are eight columns wider, and after the last there is room for one vector. */
typedef struct {
    int64_t n_slices;
    int64_t n_components;
    int64_t exact;
    double cutoff;
    const double *to_slice;       /* [n 3 4] */
    const double *weights;        /* [m] */
    const double *covariances;    /* [n 6], upper triangles */
    const double *offsets;        /* [n 3], of the first component */
    const double *steps;          /* [n], from there to the last along w */
    const double *pixel_spacing;  /* [n 2] */
    const double *centres;        /* [n 2] */
    const int64_t *shapes;        /* [n 2] */
    const int64_t *first_pixel;   /* [n + 1] */
    const int64_t *padded_first;  /* [n + 1] */
    const OPTIONAL float *limits; /* padded slices, see `SliceViews.squared_radii`; or none */
} gaussian_views;

/* Pieces of splats (pairs of a Gaussian and a slice), by slice and then by bucket; `first` tells where those of a slice
 * and a bucket start. Of each: its Gaussian, its first pixel in the padded slice, its rows, its form (see
 * `gaussian_form.h`), where the Gaussian's middle stands from its first pixel (pixels, along u and v; the middle is the
 * mean less the offset of the components), and the square of the mean's distance from the slice (mm^2), which only
 * limits ask for. */
typedef struct {
    int64_t n_buckets;
    const int64_t *first;         /* [n b + 1] */
    const int32_t *gaussians;     /* [p] */
    const int32_t *corners;       /* [p] */
    const int16_t *n_rows;        /* [p] */
    const float *forms;           /* [p FORM_SIZE] */
    const float *places;          /* [p 2] */
    const OPTIONAL float *depths; /* [p], or none */
} gaussian_pieces;

/* How many pieces each slice and bucket will have, into first[s, b + 1], and how many splats each slice has. With other
 * components in `times`, a single one both, the pieces are those of the products: of a Gaussian seen through one times
 * itself seen through the other. */
KERNEL count_gaussian_pieces(
    tasks *slices, const gaussian_buckets *buckets, const gaussian_views *views, const OPTIONAL gaussian_views *times,
    int64_t *first,     /* [n b + 1] */
    int64_t *n_splats); /* [n] */

KERNEL plan_gaussians(
    tasks *slices, const gaussian_buckets *buckets, const gaussian_views *views, const OPTIONAL gaussian_views *times,
    const int64_t *first, int32_t *gaussians, int32_t *corners, int16_t *n_rows, float *forms, float *places,
    OPTIONAL float *depths);

KERNEL pad_gaussian_slices(tasks *slices, const gaussian_views *views, const float *pixels, float *padded);

KERNEL predict_gaussians(
    tasks *slices, const gaussian_views *views, const gaussian_pieces *pieces, const float *amplitudes, float *pixels);

/* A^T r for groups of `buckets_a_task` buckets, added to `sums`; with `square` every weight is squared. */
KERNEL adjoint_gaussians(
    tasks *groups, int64_t buckets_a_task, const gaussian_views *views, const gaussian_pieces *pieces,
    const float *padded, int64_t square, float *sums); /* by Gaussian */

/* Pixels, their derivatives by d = pixel - Gaussian along u, v, w, and torques about u, v, w; without limits. */
KERNEL differentiate_gaussians(
    tasks *slices, const gaussian_buckets *buckets, const gaussian_views *views, const gaussian_pieces *pieces,
    const float *amplitudes, int64_t n_pixels, float *planes); /* [7 n_pixels] */

/* Gradient of the sum of r times the pixels by geometry and poses, for g groups of `buckets_a_task` buckets, where r is
 * `residuals` times a Gaussian's amplitude, plus `densities` if they are given (both padded). By poses: rotation and
 * translation in each slice's frame about its centre. All but the peaks are added to what is there. */
KERNEL gaussian_gradient(
    tasks *groups, int64_t buckets_a_task, const gaussian_buckets *buckets, const gaussian_views *views,
    const gaussian_pieces *pieces, const float *amplitudes, const float *residuals, const OPTIONAL float *densities,
    double *peaks,       /* by Gaussian, the sum of r G; zero before */
    double *means,       /* [.. 3] */
    double *covariances, /* [.. 6], upper triangles */
    double *poses);      /* [n g 6] */

/* `gsvr.backends.cpu.planes.ParallelPlanes`, m components of the slice profile. */
typedef struct {
    int64_t n_components;
    int64_t exact;
    double cutoff;
    const int64_t *shape;    /* planes, rows, columns */
    const double *spacing;   /* of each */
    const double *to_planes; /* [3 4] */
    const double *weights;   /* [m] */
    const double *offsets;   /* [m] */
    const double *variances; /* [m] */
} parallel_planes;

/* A Gaussian in the frame of the planes: mean (3), covariance (upper triangle, 6), binary logarithm of the root of its
 * determinant, amplitude, farthest that it is seen (mm). */
enum {
    TURNED_MEAN = 0,
    TURNED_COVARIANCE = 3,
    TURNED_VOLUME = 9,
    TURNED_AMPLITUDE = 10,
    TURNED_REACH = 11,
    TURNED_SIZE = 12
};

/* Gaussians that may reach a plane, for chunks of `size` of all n: how many of a chunk these are, and, from the chunk's
 * place in `turned` on, each in the frame of the planes. */
KERNEL turn_gaussians(
    tasks *chunks, int64_t size, int64_t n, const parallel_planes *planes, const float *means, /* [n 3] */
    const float *log_scales,                                                                   /* [n 3] */
    const float *quaternions,                                                                  /* [n 4] */
    const float *amplitudes,                                                                   /* [n] */
    double *turned,                                                                            /* [n TURNED_SIZE] */
    int64_t *counts);                                                                          /* by chunk */

/* Add Gaussians to parts of planes. A part is six numbers: its first plane and their number, its first row and their
 * number, and which of `chosen` reach it (first and last, excluded). */
KERNEL add_to_planes(
    tasks *all, const parallel_planes *planes, const double *turned, const int64_t *chosen, /* numbers in `turned` */
    const int64_t *parts,                                                                   /* [.. 6] */
    float *out);                                                                            /* [planes rows columns] */

/* The nearest of every Gaussian in the 27 cells around its own, for chunks of `size` of all n, which are sorted by cell
 * and read eight at a time. */
KERNEL find_nearest_neighbours(
    tasks *chunks, int64_t size, int64_t n, int64_t stride, int64_t count,
    const float *places,  /* [3 stride], stride >= n + 8 */
    const int64_t *cells, /* [n 3] */
    const int64_t *shape, /* cells along x, y, z */
    const int64_t *first, /* the first Gaussian of every cell, and n */
    int64_t *found);      /* [n count], nearest first; -1 before, and where there are no more */

#endif
