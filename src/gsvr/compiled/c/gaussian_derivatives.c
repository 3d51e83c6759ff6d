/* Pixels of free Gaussians and their derivatives by the slices' poses: seven planes for every slice.
 *
 * With L = (Sigma + P)^-1, d = pixel - Gaussian and h = L d the derivative by d is g = -h G. The torque about u is
 * (P_w - P_v) (h_v h_w - L_vw) G, where L_vw comes from the peak, plus what the offset b of a component of the slice
 * profile adds to the lever, b g_v; about v and w alike. The second component has h of the first plus a constant. */
#include "gaussian_kernels.h"
#include "gaussian_seen.h"
#include "tasks.h"

enum { N_PLANES = 7 };

/* Of a piece: h at its first pixel, what it grows by from pixel to pixel along u and v, and from the profile's first
 * component to its second; L_vw, L_uw, L_uv if the peak is exact. */
typedef struct {
    float first[3], along_u[3], along_v[3], further[3], peak[3];
} slopes;

/* What is the same for all pieces of a slice. */
typedef struct {
    float widths[3];    /* P_v - P_w, P_w - P_u, P_u - P_v */
    float offset, step; /* of the first component, and from it to the second */
    int64_t stride, plane_size;
} slice_metric;

static slice_metric metric_of_slice(const gaussian_views *views, int64_t s) {
    const int64_t m = views->n_components, stride = padded_stride(views, s);
    const double *offsets = views->offsets + m * s, u = views->in_plane[2 * s], v = views->in_plane[2 * s + 1];
    const double w = views->variances[m * s];
    return (slice_metric){
        {(float)(v - w), (float)(w - u), (float)(u - v)},
        (float)offsets[0],
        (float)(offsets[m - 1] - offsets[0]),
        stride,
        views->shapes[2 * s] * stride + LANES,
    };
}

/* Slopes of the pieces from number `first` on. */
static void fill_slopes(
    const gaussian_buckets *buckets, const gaussian_views *views, int64_t s, const gaussian_pieces *pieces,
    int64_t first, int64_t count, slopes *out) {
    const double *pixel = views->pixel_spacing + 2 * s, *offsets = views->offsets + views->n_components * s;
    const double step = offsets[views->n_components - 1] - offsets[0];
    int32_t numbers[AT_ONCE];
    copy_numbers(pieces->gaussians + first, count, numbers);
    for (int64_t i = 0; i < count; i += FOUR) {
        const seen_gaussians seen = seen_again(buckets, views, s, numbers + i);
        const symmetric *p = &seen.precision;
        const doubles rows[3][3] = {{p->uu, p->uv, p->uw}, {p->uv, p->vv, p->vw}, {p->uw, p->vw, p->ww}};
        const doubles distance = offsets[0] - seen.mean.w, peaks[3] = {p->vw, p->uw, p->uv};
        for (int64_t lane = 0; lane < FOUR && i + lane < count; lane++) {
            const float *place = pieces->places + 2 * (first + i + lane);
            slopes *to = out + i + lane;
            for (int a = 0; a < 3; a++) {
                const double u = rows[a][0][lane] * pixel[0], v = rows[a][1][lane] * pixel[1], w = rows[a][2][lane];
                to->first[a] = (float)(w * distance[lane] - u * (double)place[0] - v * (double)place[1]);
                to->along_u[a] = (float)u;
                to->along_v[a] = (float)v;
                to->further[a] = (float)(w * step);
                to->peak[a] = views->exact ? (float)peaks[a][lane] : 0;
            }
        }
    }
}

INLINE void add_to(float *place, vector values) { store(place, load(place) + values); }

/* Add a row of a piece, given minus its values: of both components together, and of the second alone. */
INLINE void add_row(
    int components, const slice_metric *metric, const slopes *by, const vector h[3], vector whole, vector second,
    float *place) {
    const int64_t size = metric->plane_size;
    vector force[3], apart[3], turning[3];
    for (int a = 0; a < 3; a++) {
        force[a] = whole * h[a];
        if (components == 2) {
            force[a] += second * by->further[a];
            apart[a] = second * (h[a] + by->further[a]);
        }
    }
    for (int a = 0; a < 3; a++) {
        const int b = (a + 1) % 3, c = (a + 2) % 3;
        turning[a] = force[b] * h[c] - whole * by->peak[a];
        if (components == 2) turning[a] += apart[b] * by->further[c];
        turning[a] *= metric->widths[a];
    }
    turning[0] += metric->offset * force[1];
    turning[1] -= metric->offset * force[0];
    if (components == 2) {
        turning[0] += metric->step * apart[1];
        turning[1] -= metric->step * apart[0];
    }
    add_to(place, -whole);
    for (int a = 0; a < 3; a++) {
        add_to(place + (1 + a) * size, force[a]);
        add_to(place + (4 + a) * size, turning[a]);
    }
}

INLINE void add_pieces(
    int components, const gaussian_buckets *buckets, const gaussian_views *views, int64_t s,
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
                add_row(components, &own, by + i, h, components == 2 ? now.value + second : now.value, second, place);
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
    if (views->n_components == 2) {
        add_pieces(2, buckets, views, s, pieces, amplitudes, &metric, planes);
    } else {
        add_pieces(1, buckets, views, s, pieces, amplitudes, &metric, planes);
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
