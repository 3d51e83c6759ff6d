/* Pixels of free Gaussians: the pieces of every slice are added to it. */
#include "gaussian_kernels.h"
#include "gaussian_rows.h"
#include "tasks.h"

INLINE void add_pieces(
    int components, int limited, const gaussian_views *views, int64_t s, const gaussian_pieces *pieces, int64_t begin,
    int64_t end, const float *amplitudes, float *plane) {
    const int64_t stride = padded_stride(views, s);
    const double *pixel = views->pixel_spacing + 2 * s, *offset = views->offsets + 3 * s;
    const float *limits = limited ? views->limits + views->padded_first[s] : 0;
    /* of their own, since for all the compiler knows the pixels may overlap with the structure */
    const gaussian_pieces all = *pieces;
    row rows[AT_ONCE];
    for (int64_t first = begin; first < end; first += AT_ONCE) {
        const int64_t count = end - first < AT_ONCE ? end - first : AT_ONCE;
        first_rows(components, all.forms + FORM_SIZE * first, count, rows);
        for (int64_t i = 0; i < count; i++) {
            const int64_t n = first + i;
            float *place = plane + all.corners[n];
            const float *const below = place + all.n_rows[n] * stride;
            const steps step = steps_of(components, all.forms + FORM_SIZE * n);
            row now = rows[i];
            now.value *= amplitudes[all.gaussians[n]];
            reach near;
            if (limited)
                near = reach_of_piece(all.places + 2 * n, all.depths[n], offset, pixel, limits + all.corners[n]);
            for (; place != below; place += stride) {
                vector values = both_components(components, &now);
                if (limited) values = among_nearest(&near, stride, values);
                store(place, load(place) + values);
                next_row(components, &now, &step);
            }
        }
    }
}

static void predict_slice(
    int64_t s, const gaussian_views *views, const gaussian_pieces *pieces, int64_t begin, int64_t end,
    const float *amplitudes, float *plane, float *pixels) {
    const int64_t *shape = views->shapes + 2 * s, stride = padded_stride(views, s);
    memset(plane, 0, (size_t)(shape[0] * stride + LANES) * sizeof(float));
    WITH_VIEWS(views, add_pieces, views, s, pieces, begin, end, amplitudes, plane)
    for (int64_t a = 0; a < shape[0]; a++) {
        memcpy(pixels + views->first_pixel[s] + a * shape[1], plane + a * stride, (size_t)shape[1] * sizeof(float));
    }
}

KERNEL predict_gaussians(
    tasks *slices, const gaussian_views *views, const gaussian_pieces *pieces, const float *amplitudes, float *pixels) {
    float *plane = malloc((size_t)largest_padded_slice(views) * sizeof(float));
    if (plane) {
        FOR_EACH_TASK(s, slices) {
            const int64_t begin = first_piece(pieces, s, 0), end = first_piece(pieces, s, pieces->n_buckets);
            predict_slice(s, views, pieces, begin, end, amplitudes, plane, pixels);
        }
    }
    free(plane);
    return plane ? DONE : NO_MEMORY;
}
