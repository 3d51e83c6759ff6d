/* What the solver does with amplitudes and poses: see kernels.h. */
#ifndef GSVR_SOLVER_KERNELS_H
#define GSVR_SOLVER_KERNELS_H

#include "kernels.h"

/* ---- the solver on lattices ---- */

/* Weights of the bonds to neighbours in 13 directions (`gsvr.solver.priors.lattice`), and the sites [first, last) of
 * each row that any bond may start or end at. */
typedef struct {
    int64_t nx;
    int64_t ny;
    int64_t nz;
    const float *weights;  /* [13 nx ny nz] */
    const int64_t *extent; /* [nx ny 2] */
} lattice_bonds;

/* Weights of the bonds that start in each plane: 1 / (edge^2 sqrt(1 + (difference / edge)^2) length^2). */
KERNEL weigh_bonds(
    tasks *planes, int64_t nx, int64_t ny, int64_t nz, const int64_t *directions, /* [13 3] */
    const float *lengths,                                                         /* [13] squared */
    const float *support,                                                         /* [nx ny nz] */
    const int64_t *extent,                                                        /* [nx ny 2] */
    const float *values,                                                          /* [nx ny nz] */
    float edge, float *weights);                                                  /* [13 nx ny nz], zeros */

/* For every site the sum of its bonds. */
KERNEL sum_bonds(
    tasks *planes, const lattice_bonds *bonds, const float *ones, /* [nx ny nz] */
    float *sums);                                                 /* [nx ny nz] */

/* `factor` times the graph Laplacian, plus `start` if that is given: `sums` on its diagonal, minus the bonds. */
KERNEL apply_bonds(
    tasks *planes, const lattice_bonds *bonds, const float *sums, /* [nx ny nz] */
    float factor, const float *values,                            /* [nx ny nz] */
    const OPTIONAL float *start,                                  /* [nx ny nz] */
    float *out);                                                  /* [nx ny nz] */

/* One step of conjugate gradients, for chunks of `size` of all n: amplitudes + step direction, gradient - step curved.
 */
KERNEL step_conjugate_gradients(
    tasks *chunks, int64_t size, int64_t n, float step, const float *direction, /* [n] */
    const float *curved,                                                        /* [n] */
    float *amplitudes,                                                          /* [n] */
    float *gradient);                                                           /* [n] */

/* J^T W J (upper triangle, row after row) and J^T W r of the pose of every slice, rotations in rad. */
KERNEL sum_pose_equations(
    tasks *slices, const float *planes,                      /* [7 n_pixels], of `differentiate_lattice` */
    int64_t n_pixels, const int64_t *shapes,                 /* [n 2] */
    const int64_t *first_pixel,                              /* [n + 1] */
    const double *pixel_spacing,                             /* [n 2] */
    const double *gains,                                     /* [n] */
    const float *values, const float *weights, double *sums, /* [n 21], zeros */
    double *gradients);                                      /* [n 6], zeros */

/* ---- the solver with free Gaussians ---- */

/* Gaussians and their neighbours: those of Gaussian j are columns[row_first[j] ...]. */
typedef struct {
    int64_t n;
    const int64_t *row_first; /* [n + 1] */
    const int32_t *columns;
    const float *bonds; /* one for each column */
    const float *sums;  /* [n] */
} gaussian_links;

/* Sort pairs by both of their ends. One task. */
KERNEL link_pairs(
    tasks *one, int64_t n_pairs, const int64_t *first, const int64_t *second, int64_t n,
    int64_t *row_first, /* [n + 1], zeros */
    int32_t *columns,   /* [2 n_pairs] */
    int32_t *pairs);    /* [2 n_pairs] which pair each column comes from */

/* Bonds of an edge-preserving prior, weight scale^2 / sqrt(1 + (scale difference)^2), and their sums. Tasks are `chunk`
 * Gaussians each. */
KERNEL weigh_links(
    tasks *chunks, int64_t chunk, int64_t n, const int64_t *row_first, const int32_t *columns, const int32_t *pairs,
    const float *weights, /* one for each pair */
    const float *amplitudes, float scale, float *bonds, float *sums);

/* `factor` times (sums values - bonds values of the neighbours), plus `start` if that is given. */
KERNEL apply_links(
    tasks *chunks, int64_t chunk, const gaussian_links *links, float factor, const float *values, /* [n] */
    const OPTIONAL float *start,                                                                  /* [n] */
    float *out);                                                                                  /* [n] */

/* Eigenvalues of symmetric matrices, smallest first, and their vectors, in columns. */
KERNEL find_eigenvectors(
    tasks *chunks, int64_t chunk, int64_t n, const float *matrices, /* [n 3 3] */
    double *eigenvalues,                                            /* [n 3] */
    double *vectors);                                               /* [n 3 3] */

#endif
