/* Gradient by means, covariances and poses, all from the moments of the residual in each Gaussian.
 *
 * With M the moments of r G d d^T and L the inverse of the blurred covariance, the gradient by the covariance is
 * L M L / 2 - L sum(r G) / 2, that by the mean L times the moments of r G d. */
#include "gaussian_kernels.h"
#include "gaussian_moments.h"
#include "tasks.h"

/* Moments of the pieces from number `first` on. */
INLINE void fill_moments(
    int components, int limited, int dense, const gaussian_views *views, int64_t s, const gaussian_pieces *pieces,
    int64_t first, int64_t count, const float *amplitudes, const float *residuals, const float *densities,
    float (*out)[LANES + 1]) {
    const int64_t stride = padded_stride(views, s);
    const float *limits = limited ? views->limits + views->padded_first[s] : 0;
    const double *pixel = views->pixel_spacing + 2 * s, *middle = views->offsets + 3 * s;
    row rows[AT_ONCE];
    first_rows(components, pieces->forms + FORM_SIZE * first, count, rows);
    for (int64_t i = 0; i < count; i++) {
        const int64_t n = first + i, n_rows = pieces->n_rows[n], corner = pieces->corners[n];
        const float *place = pieces->places + 2 * n, amplitude = amplitudes[pieces->gaussians[n]];
        const steps step = steps_of(components, pieces->forms + FORM_SIZE * n);
        row now = rows[i];
        columns sums = {{0}, {0}, {0}, {0}, {0}};
        reach near;
        if (limited) near = reach_of_piece(place, pieces->depths[n], middle, pixel, limits + corner);
        for (int64_t a = 0; a < n_rows; a++) {
            const int64_t offset = corner + a * stride;
            vector residual = amplitude * load(residuals + offset);
            if (dense) residual += load(densities + offset);
            vector part = now.value * residual;
            if (limited) part = among_nearest(&near, stride, part);
            add_moments(components, &sums, part, now.second, broadcast((float)a - place[0]));
            next_row(components, &now, &step);
        }
        write_moments(&sums, lane_numbers() - place[1], out[i]);
    }
}

/* Of each of four pieces: sum of r G, gradient by mean and by covariance (world), by the slice's pose. */
typedef struct {
    double whole[FOUR], mean[3][FOUR], covariance[6][FOUR], pose[6][FOUR];
} gradients;

static void fill_gradients(
    const gaussian_buckets *buckets, const gaussian_views *views, int64_t s, const int32_t *numbers,
    const float (*sums)[LANES + 1], gradients *out) {
    const double *turn = views->to_slice + 12 * s;
    const seen_gaussians seen = seen_again(buckets, views, s, numbers);
    const symmetric *precision = &seen.precision;
    const moments all =
        moments_of_four(sums, views->offsets[3 * s + 2] - seen.mean.w, views->steps[s], views->pixel_spacing + 2 * s);
    symmetric outer = product_on_both_sides(precision, &all.second);
    if (views->exact) { /* the peak has the determinant of the blurred covariance in it */
        outer.uu -= all.whole * precision->uu;
        outer.uv -= all.whole * precision->uv;
        outer.uw -= all.whole * precision->uw;
        outer.vv -= all.whole * precision->vv;
        outer.vw -= all.whole * precision->vw;
        outer.ww -= all.whole * precision->ww;
    }
    const points pull = product(precision, all.first), turned = turning(&outer, &seen.covariance);
    const points lever = {
        seen.mean.u - views->centres[2 * s],
        seen.mean.v - views->centres[2 * s + 1],
        seen.mean.w,
    };
    store_doubles(out->whole, all.whole);
    for (int a = 0, n = 0; a < 3; a++) {
        const points axis = {all_lanes(turn[a]), all_lanes(turn[4 + a]), all_lanes(turn[8 + a])};
        const points along = product(&outer, axis);
        store_doubles(out->mean[a], axis.u * pull.u + axis.v * pull.v + axis.w * pull.w);
        for (int b = a; b < 3; b++, n++) {
            const doubles sum = along.u * turn[b] + along.v * turn[4 + b] + along.w * turn[8 + b];
            store_doubles(out->covariance[n], 0.5 * sum);
        }
    }
    store_doubles(out->pose[0], pull.v * lever.w - pull.w * lever.v + turned.u);
    store_doubles(out->pose[1], pull.w * lever.u - pull.u * lever.w + turned.v);
    store_doubles(out->pose[2], pull.u * lever.v - pull.v * lever.u + turned.w);
    store_doubles(out->pose[3], -pull.u);
    store_doubles(out->pose[4], -pull.v);
    store_doubles(out->pose[5], -pull.w);
}

typedef struct {
    double *peaks, *means, *covariances;
} sums_by_gaussian;

/* Add what pieces `begin` to `end` of slice s give; to `pose` as well. */
static void add_pieces(
    const gaussian_buckets *buckets, const gaussian_views *views, int64_t s, const gaussian_pieces *pieces,
    int64_t begin, int64_t end, const float *amplitudes, const float *residuals, const float *densities,
    const sums_by_gaussian *out, double *pose) {
    const gaussian_pieces all = *pieces;
    float moments[AT_ONCE][LANES + 1] = {{0}};
    int32_t numbers[AT_ONCE];
    gradients four;
    for (int64_t first = begin; first < end; first += AT_ONCE) {
        const int64_t count = end - first < AT_ONCE ? end - first : AT_ONCE;
        if (densities) {
            WITH_VIEWS(views, fill_moments, 1, views, s, &all, first, count, amplitudes, residuals, densities, moments)
        } else {
            WITH_VIEWS(views, fill_moments, 0, views, s, &all, first, count, amplitudes, residuals, 0, moments)
        }
        copy_numbers(all.gaussians + first, count, numbers);
        for (int64_t i = 0; i < count; i += FOUR) {
            fill_gradients(buckets, views, s, numbers + i, (const float (*)[LANES + 1])(moments + i), &four);
            for (int64_t lane = 0; lane < FOUR && i + lane < count; lane++) {
                const int64_t j = numbers[i + lane];
                out->peaks[j] += four.whole[lane];
                for (int a = 0; a < 3; a++) out->means[3 * j + a] += four.mean[a][lane];
                for (int a = 0; a < 6; a++) out->covariances[6 * j + a] += four.covariance[a][lane];
                for (int a = 0; a < 6; a++) pose[a] += four.pose[a][lane];
            }
        }
    }
}

/* An exact peak grows with sqrt(det Sigma). */
static void add_growth_of_peaks(
    const gaussian_buckets *buckets, int64_t begin, int64_t end, const sums_by_gaussian *out) {
    for (int64_t first = begin; first < end; first += FOUR) {
        int32_t numbers[FOUR];
        for (int64_t i = 0; i < FOUR; i++) numbers[i] = (int32_t)(first + i < end ? first + i : end - 1);
        doubles determinants;
        const symmetric inverse = inverses(gathered_covariances(buckets, numbers), &determinants);
        const doubles parts[6] = {inverse.uu, inverse.uv, inverse.uw, inverse.vv, inverse.vw, inverse.ww};
        for (int64_t i = 0; i < FOUR && first + i < end; i++) {
            const double half = 0.5 * out->peaks[first + i];
            for (int a = 0; a < 6; a++) out->covariances[6 * (first + i) + a] += half * parts[a][i];
        }
    }
}

KERNEL gaussian_gradient(
    tasks *groups, int64_t buckets_a_task, const gaussian_buckets *buckets, const gaussian_views *views,
    const gaussian_pieces *pieces, const float *amplitudes, const float *residuals, const float *densities,
    double *peaks, double *means, double *covariances, double *poses) {
    const sums_by_gaussian out = {peaks, means, covariances};
    const int64_t n = pieces->n_buckets, n_groups = groups->count;
    FOR_EACH_TASK(group, groups) {
        const int64_t first = group * buckets_a_task, last = first + buckets_a_task < n ? first + buckets_a_task : n;
        for (int64_t s = 0; s < views->n_slices; s++) {
            const int64_t begin = first_piece(pieces, s, first), end = first_piece(pieces, s, last);
            const float *residual = residuals + views->padded_first[s];
            const float *density = densities ? densities + views->padded_first[s] : 0;
            double *pose = poses + 6 * (s * n_groups + group);
            add_pieces(buckets, views, s, pieces, begin, end, amplitudes, residual, density, &out, pose);
        }
        if (views->exact) add_growth_of_peaks(buckets, buckets->first[first], buckets->first[last], &out);
    }
    return DONE;
}
