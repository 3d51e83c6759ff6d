/* The transpose of `predict_gaussians`: the same loops with a sum in place of an addition. Several buckets together,
 * because their splats in one slice follow each other in memory. */
#include "gaussian_kernels.h"
#include "gaussian_rows.h"
#include "tasks.h"

KERNEL pad_gaussian_slices(tasks *slices, const gaussian_views *views, const float *pixels, float *padded) {
    FOR_EACH_TASK(s, slices) {
        const int64_t n_rows = views->shapes[2 * s], n_columns = views->shapes[2 * s + 1];
        const float *source = pixels + views->first_pixel[s];
        float *target = padded + views->padded_first[s];
        for (int64_t a = 0; a < n_rows; a++) {
            memcpy(target, source, (size_t)n_columns * sizeof(float));
            store(target + n_columns, broadcast(0));
            source += n_columns;
            target += n_columns + LANES;
        }
        store(target, broadcast(0));
    }
    return DONE;
}

/* Sums over the pieces of slice s from `begin` to `end`. Squared weights are those of pieces, which share no pixel. */
INLINE void sum_pieces(
    int components, int limited, int square, const gaussian_views *views, int64_t s, const gaussian_pieces *pieces,
    int64_t begin, int64_t end, const float *plane, float *sums) {
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
            const float *place = plane + all.corners[n];
            const float *const below = place + all.n_rows[n] * stride;
            const steps step = steps_of(components, all.forms + FORM_SIZE * n);
            row now = rows[i];
            vector sum = broadcast(0);
            reach near;
            if (limited)
                near = reach_of_piece(all.places + 2 * n, all.depths[n], offset, pixel, limits + all.corners[n]);
            for (; place != below; place += stride) {
                vector values = both_components(components, &now);
                if (limited) values = among_nearest(&near, stride, values);
                sum += (square ? values * values : values) * load(place);
                next_row(components, &now, &step);
            }
            sums[all.gaussians[n]] += sum_of_lanes(sum);
        }
    }
}

KERNEL adjoint_gaussians(
    tasks *groups, int64_t buckets_a_task, const gaussian_views *views, const gaussian_pieces *pieces,
    const float *padded, int64_t square, float *sums) {
    const int64_t n = pieces->n_buckets;
    FOR_EACH_TASK(group, groups) {
        const int64_t first = group * buckets_a_task, last = first + buckets_a_task < n ? first + buckets_a_task : n;
        for (int64_t s = 0; s < views->n_slices; s++) {
            const int64_t begin = first_piece(pieces, s, first), end = first_piece(pieces, s, last);
            const float *plane = padded + views->padded_first[s];
            if (square) {
                WITH_VIEWS(views, sum_pieces, 1, views, s, pieces, begin, end, plane, sums)
            } else {
                WITH_VIEWS(views, sum_pieces, 0, views, s, pieces, begin, end, plane, sums)
            }
        }
    }
    return DONE;
}
