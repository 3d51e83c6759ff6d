/* Pixels of free Gaussians and their derivatives by the slices' poses: seven planes for every slice.
 *
 * With a component's covariance P and offset b, L = (Sigma + P)^-1, d = pixel + b - Gaussian and h = L d the derivative
 * by d is g = -h G. P and b turn with the slice: the torque is (P h - b) x g, plus G times the antisymmetric part of
 * P L, which comes from the peak. A second component has h and P h - b of the first plus constants. */
#include "gaussian_kernels.h"
#include "gaussian_seen.h"
#include "tasks.h"

enum { N_PLANES = 7 };

/* Of a piece: h at its first pixel, what it grows by from pixel to pixel along u and v, and from the first component to
 * the second; what P h - b grows by there; the antisymmetric part of P L if the peak is exact. */
typedef struct {
    float first[3], along_u[3], along_v[3], further[3], lever[3], peak[3];
} slopes;

/* What is the same for all pieces of a slice. */
typedef struct {
    float covariance[6], offset[3], step;
    int64_t stride, plane_size;
} slice_metric;

static slice_metric metric_of_slice(const gaussian_views *views, int64_t s) {
    slice_metric metric = {.step = (float)views->steps[s], .stride = padded_stride(views, s)};
    metric.plane_size = views->shapes[2 * s] * metric.stride + LANES;
    for (int a = 0; a < 6; a++) metric.covariance[a] = (float)views->covariances[6 * s + a];
    for (int a = 0; a < 3; a++) metric.offset[a] = (float)views->offsets[3 * s + a];
    return metric;
}

/* Slopes of the pieces from number `first` on. */
static void fill_slopes(
    const gaussian_buckets *buckets, const gaussian_views *views, int64_t s, const gaussian_pieces *pieces,
    int64_t first, int64_t count, slopes *out) {
    const double *pixel = views->pixel_spacing + 2 * s, *c = views->covariances + 6 * s, step = views->steps[s];
    const symmetric spread = widened((symmetric){0}, c);
    int32_t numbers[AT_ONCE];
    copy_numbers(pieces->gaussians + first, count, numbers);
    for (int64_t i = 0; i < count; i += FOUR) {
        const seen_gaussians seen = seen_again(buckets, views, s, numbers + i);
        const symmetric *p = &seen.precision;
        const doubles rows[3][3] = {{p->uu, p->uv, p->uw}, {p->uv, p->vv, p->vw}, {p->uw, p->vw, p->ww}};
        const doubles distance = views->offsets[3 * s + 2] - seen.mean.w;
        const points further = {step * p->uw, step * p->vw, step * p->ww};
        const points lever = product(&spread, further), peak = turning(&spread, p);
        const doubles levers[3] = {lever.u, lever.v, lever.w - step}, peaks[3] = {peak.u, peak.v, peak.w};
        for (int64_t lane = 0; lane < FOUR && i + lane < count; lane++) {
            const float *place = pieces->places + 2 * (first + i + lane);
            slopes *to = out + i + lane;
            for (int a = 0; a < 3; a++) {
                const double u = rows[a][0][lane] * pixel[0], v = rows[a][1][lane] * pixel[1], w = rows[a][2][lane];
                to->first[a] = (float)(w * distance[lane] - u * (double)place[0] - v * (double)place[1]);
                to->along_u[a] = (float)u;
                to->along_v[a] = (float)v;
                to->further[a] = (float)(w * step);
                to->lever[a] = (float)levers[a][lane];
                to->peak[a] = views->exact ? (float)peaks[a][lane] : 0;
            }
        }
    }
}

INLINE void add_to(float *place, vector values) { store(place, load(place) + values); }

/* Torques of a row, but for the peak's: `force` is the derivative of all components together, `apart` that of the
 * second alone. Where P is diagonal and b along w, as nearly always, P h x h has a single term on each axis. */
INLINE void fill_torques(
    int components, int upright, const slice_metric *metric, const slopes *by, const vector h[3], const vector force[3],
    const vector apart[3], vector torques[3]) {
    const float *p = metric->covariance, *b = metric->offset;
    if (upright) {
        const float widths[3] = {p[3] - p[5], p[5] - p[0], p[0] - p[3]};
        for (int a = 0; a < 3; a++) {
            const int next = (a + 1) % 3, last = (a + 2) % 3;
            torques[a] = force[next] * h[last];
            if (components == 2) torques[a] += apart[next] * by->further[last];
            torques[a] *= widths[a];
        }
        torques[0] += b[2] * force[1];
        torques[1] -= b[2] * force[0];
        if (components == 2) {
            torques[0] += metric->step * apart[1];
            torques[1] -= metric->step * apart[0];
        }
        return;
    }
    const vector levers[3] = {
        p[0] * h[0] + p[1] * h[1] + p[2] * h[2] - b[0],
        p[1] * h[0] + p[3] * h[1] + p[4] * h[2] - b[1],
        p[2] * h[0] + p[4] * h[1] + p[5] * h[2] - b[2],
    };
    for (int a = 0; a < 3; a++) {
        const int next = (a + 1) % 3, last = (a + 2) % 3;
        torques[a] = levers[next] * force[last] - levers[last] * force[next];
        if (components == 2) torques[a] += by->lever[next] * apart[last] - by->lever[last] * apart[next];
    }
}

/* Add a row of a piece, given minus its values: of both components together, and of the second alone. */
INLINE void add_row(
    int components, int upright, const slice_metric *metric, const slopes *by, const vector h[3], vector whole,
    vector second, float *place) {
    const int64_t size = metric->plane_size;
    vector force[3], apart[3], torques[3];
    for (int a = 0; a < 3; a++) {
        force[a] = whole * h[a];
        if (components == 2) {
            force[a] += second * by->further[a];
            apart[a] = second * (h[a] + by->further[a]);
        }
    }
    fill_torques(components, upright, metric, by, h, force, apart, torques);
    add_to(place, -whole);
    for (int a = 0; a < 3; a++) {
        add_to(place + (1 + a) * size, force[a]);
        add_to(place + (4 + a) * size, torques[a] - whole * by->peak[a]);
    }
}

INLINE void add_pieces(
    int components, int upright, const gaussian_buckets *buckets, const gaussian_views *views, int64_t s,
    const gaussian_pieces *pieces, const float *amplitudes, const slice_metric *metric, float *planes) {
    const gaussian_pieces all = *pieces;
    const slice_metric own = *metric;
    const int64_t end = first_piece(&all, s, all.n_buckets);
    row rows[AT_ONCE];
    slopes by[AT_ONCE];
    for (int64_t first = first_piece(&all, s, 0); first < end; first += AT_ONCE) {
        const int64_t count = end - first < AT_ONCE ? end - first : AT_ONCE;
        fill_slopes(buckets, views, s, &all, first, count, by);
        first_rows(components, all.forms + FORM_SIZE * first, count, rows);
        for (int64_t i = 0; i < count; i++) {
            const int64_t n = first + i, n_rows = all.n_rows[n];
            const steps step = steps_of(components, all.forms + FORM_SIZE * n);
            float *place = planes + all.corners[n];
            row now = rows[i];
            now.value *= -amplitudes[all.gaussians[n]];
            vector h[3];
            for (int a = 0; a < 3; a++) h[a] = by[i].first[a] + by[i].along_v[a] * lane_numbers();
            for (int64_t a = 0; a < n_rows; a++) {
                const vector second = components == 2 ? now.value * now.second : now.value;
                add_row(
                    components, upright, &own, by + i, h, components == 2 ? now.value + second : now.value, second,
                    place);
                for (int axis = 0; axis < 3; axis++) h[axis] += by[i].along_u[axis];
                place += own.stride;
                next_row(components, &now, &step);
            }
        }
    }
}

static void differentiate_slice(
    int64_t s, const gaussian_buckets *buckets, const gaussian_views *views, const gaussian_pieces *pieces,
    const float *amplitudes, float *planes, int64_t n_pixels, float *out) {
    const slice_metric metric = metric_of_slice(views, s);
    const int64_t *shape = views->shapes + 2 * s;
    memset(planes, 0, (size_t)(N_PLANES * metric.plane_size) * sizeof(float));
    const float *p = metric.covariance, *b = metric.offset;
    if (p[1] != 0 || p[2] != 0 || p[4] != 0 || b[0] != 0 || b[1] != 0) {
        if (views->n_components == 2) {
            add_pieces(2, 0, buckets, views, s, pieces, amplitudes, &metric, planes);
        } else {
            add_pieces(1, 0, buckets, views, s, pieces, amplitudes, &metric, planes);
        }
    } else if (views->n_components == 2) {
        add_pieces(2, 1, buckets, views, s, pieces, amplitudes, &metric, planes);
    } else {
        add_pieces(1, 1, buckets, views, s, pieces, amplitudes, &metric, planes);
    }
    for (int plane = 0; plane < N_PLANES; plane++) {
        const float *source = planes + plane * metric.plane_size;
        float *target = out + plane * n_pixels + views->first_pixel[s];
        for (int64_t a = 0; a < shape[0]; a++) {
            memcpy(target + a * shape[1], source + a * metric.stride, (size_t)shape[1] * sizeof(float));
        }
    }
}

KERNEL differentiate_gaussians(
    tasks *slices, const gaussian_buckets *buckets, const gaussian_views *views, const gaussian_pieces *pieces,
    const float *amplitudes, int64_t n_pixels, float *planes) {
    float *own = malloc((size_t)(N_PLANES * largest_padded_slice(views)) * sizeof(float));
    if (own) {
        FOR_EACH_TASK(s, slices) differentiate_slice(s, buckets, views, pieces, amplitudes, own, n_pixels, planes);
    }
    free(own);
    return own ? DONE : NO_MEMORY;
}
