/* Eigenvectors of symmetric 3 x 3 matrices by Jacobi's rotations, in float64. */
#include <math.h>

#include "solver_kernels.h"
#include "tasks.h"

enum { MOST_SWEEPS = 16 };

/* Turn axes p and q of the matrix so that the entry between them vanishes; `v` collects the rotations. */
static void rotate(double a[3][3], double v[3][3], int p, int q) {
    if (a[p][q] == 0) return;
    const double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
    const double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
    const double c = 1 / sqrt(t * t + 1), s = t * c, off = a[p][q];
    const int r = 3 - p - q;
    a[p][p] -= t * off;
    a[q][q] += t * off;
    a[p][q] = a[q][p] = 0;
    const double rp = a[r][p], rq = a[r][q];
    a[r][p] = a[p][r] = c * rp - s * rq;
    a[r][q] = a[q][r] = s * rp + c * rq;
    for (int axis = 0; axis < 3; axis++) {
        const double first = v[axis][p], second = v[axis][q];
        v[axis][p] = c * first - s * second;
        v[axis][q] = s * first + c * second;
    }
}

static void exchange(double *values, double *vectors, int p, int q) {
    if (values[p] <= values[q]) return;
    const double value = values[p];
    values[p] = values[q];
    values[q] = value;
    for (int axis = 0; axis < 3; axis++) {
        const double entry = vectors[3 * axis + p];
        vectors[3 * axis + p] = vectors[3 * axis + q];
        vectors[3 * axis + q] = entry;
    }
}

KERNEL find_eigenvectors(
    tasks *chunks, int64_t chunk, int64_t n, const float *matrices, double *eigenvalues, double *vectors) {
    FOR_EACH_TASK(task, chunks) {
        const int64_t last = (task + 1) * chunk < n ? (task + 1) * chunk : n;
        for (int64_t j = task * chunk; j < last; j++) {
            double a[3][3], v[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}, size = 0;
            for (int entry = 0; entry < 9; entry++) {
                a[entry / 3][entry % 3] = (double)matrices[9 * j + entry];
                size += a[entry / 3][entry % 3] * a[entry / 3][entry % 3];
            }
            for (int sweep = 0; sweep < MOST_SWEEPS; sweep++) {
                const double off = a[0][1] * a[0][1] + a[0][2] * a[0][2] + a[1][2] * a[1][2];
                if (off <= 1e-32 * size) break;
                rotate(a, v, 0, 1);
                rotate(a, v, 0, 2);
                rotate(a, v, 1, 2);
            }
            for (int axis = 0; axis < 3; axis++) eigenvalues[3 * j + axis] = a[axis][axis];
            memcpy(vectors + 9 * j, v, sizeof v);
            exchange(eigenvalues + 3 * j, vectors + 9 * j, 0, 1);
            exchange(eigenvalues + 3 * j, vectors + 9 * j, 1, 2);
            exchange(eigenvalues + 3 * j, vectors + 9 * j, 0, 1);
        }
    }
    return DONE;
}
