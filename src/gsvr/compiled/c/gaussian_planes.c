/* Free Gaussians on parallel planes: every pair of a Gaussian and a plane is a splat that is added at once. The
 * components of the slice profile are added one by one: two thin ones may stand many standard deviations apart, and
 * then one is no multiple of the other in float32. */
#include "gaussian_kernels.h"
#include "gaussian_rows.h"
#include "tasks.h"

/* How many Gaussians ahead one is asked for from memory. */
enum { AHEAD = 8 };

/* Pieces that are added together. */
typedef struct {
    float forms[AT_ONCE * FORM_SIZE], amplitudes[AT_ONCE];
    int64_t corners[AT_ONCE], n_rows[AT_ONCE], count;
} waiting_pieces;

/* Pairs that are planned together: see `splats`. */
typedef struct {
    double u[FOUR], v[FOUR], distance[FOUR], blurred[6][FOUR], peak[FOUR];
    int64_t plane[FOUR], count;
    float amplitude[FOUR];
} waiting_pairs;

/* The part of the planes that a thread works on, its rows padded. */
typedef struct {
    const parallel_planes *planes;
    int64_t shape[2], stride, plane_size;
    float *values;
    waiting_pieces pieces;
    waiting_pairs pairs;
} plane_part;

static void add_waiting_pieces(plane_part *part) {
    const waiting_pieces *all = &part->pieces;
    const int64_t stride = part->stride;
    float *values = part->values;
    row rows[AT_ONCE];
    first_rows(1, all->forms, all->count, rows);
    for (int64_t i = 0; i < all->count; i++) {
        const steps step = steps_of(1, all->forms + FORM_SIZE * i);
        float *place = values + all->corners[i];
        const float *const below = place + all->n_rows[i] * stride;
        row now = rows[i];
        now.value *= all->amplitudes[i];
        for (; place != below; place += stride) {
            store(place, load(place) + now.value);
            next_row(1, &now, &step);
        }
    }
    part->pieces.count = 0;
}

INLINE void add_pieces_of_pair(plane_part *part, const quadratics *all, int lane) {
    const int64_t top = (int64_t)all->top[lane], left = (int64_t)all->left[lane], rows = (int64_t)all->rows[lane];
    const int64_t height = (int64_t)all->bottom[lane] + 1 - top, width = (int64_t)all->right[lane] + 1 - left;
    const int64_t corner = part->pairs.plane[lane] * part->plane_size + top * part->stride + left;
    waiting_pieces *to = &part->pieces;
    for (int64_t x = 0; x < width; x += LANES) {
        for (int64_t y = 0; y < height; y += rows) {
            const int64_t n = to->count;
            write_form(1, all, lane, (double)y, (double)x, to->forms + FORM_SIZE * n);
            to->corners[n] = corner + y * part->stride + x;
            to->n_rows[n] = height - y < rows ? height - y : rows;
            to->amplitudes[n] = part->pairs.amplitude[lane];
            to->count++;
            if (to->count == AT_ONCE) add_waiting_pieces(part);
        }
    }
}

/* Rows of a piece, see `PIECE_DEVIATIONS`. One component's largest value in any column is inside the ellipse, where
 * it is above exp(-cutoff^2 / 2), and the first row is no farther from it than the ellipse is long. So it does not
 * underflow if half the sum of squares is below 77: float32 begins at exp(-87), and peaks may be below one. */
INLINE doubles rows_of_planes(const splats *four, double cutoff, double spacing) {
    const doubles squares = four->seen.extent * four->seen.extent * four->precision.uu + cutoff * cutoff;
    return chosen(squares < 154, all_lanes(LONGEST_PIECE), rows_of_pieces(four->precision.uu, spacing));
}

static void add_waiting_pairs(plane_part *part) {
    const waiting_pairs *pairs = &part->pairs;
    const double *pixel = part->planes->spacing + 1, (*rows)[FOUR] = pairs->blurred;
    const symmetric blurred = {
        load_doubles(rows[0]), load_doubles(rows[1]), load_doubles(rows[2]),
        load_doubles(rows[3]), load_doubles(rows[4]), load_doubles(rows[5]),
    };
    splats four;
    four.u = load_doubles(pairs->u);
    four.v = load_doubles(pairs->v);
    four.distance = load_doubles(pairs->distance);
    four.peak = load_doubles(pairs->peak);
    four.seen = windows_in_sight(four.u, four.v, four.distance, &blurred, part->planes->cutoff, pixel, part->shape);
    doubles determinants;
    four.precision = inverses(blurred, &determinants);
    four.rows = rows_of_planes(&four, part->planes->cutoff, pixel[0]);
    if (part->planes->exact) four.peak -= 0.5 * binary_logarithm(determinants);
    quadratics forms;
    fill_quadratics(1, &forms, &four, pixel, 0, 0);
    for (int64_t lane = 0; lane < pairs->count; lane++) add_pieces_of_pair(part, &forms, (int)lane);
    part->pairs.count = 0;
}

/* One Gaussian on all planes of the part: mean at (u, v, w) from the part's first pixel. */
static void add_gaussian(plane_part *part, const double *one, double u, double w, int64_t n_planes) {
    const parallel_planes *planes = part->planes;
    const double between = planes->spacing[0];
    waiting_pairs *to = &part->pairs;
    for (int64_t m = 0; m < planes->n_components; m++) {
        const double variance = one[TURNED_COVARIANCE + 5] + planes->variances[m];
        const double reach = planes->cutoff * sqrt(variance), height = w - planes->offsets[m];
        const double first = ceil((height - reach) / between), last = floor((height + reach) / between);
        const int64_t begin = first > 0 ? (int64_t)fmin(first, (double)n_planes) : 0;
        const int64_t end = last < (double)(n_planes - 1) ? (int64_t)fmax(last, -1) + 1 : n_planes;
        const double peak = log2(planes->weights[m]) + (planes->exact ? one[TURNED_VOLUME] : 0);
        for (int64_t plane = begin; plane < end; plane++) {
            const int64_t n = to->count;
            to->u[n] = u;
            to->v[n] = one[1];
            to->distance[n] = (double)plane * between - height;
            for (int a = 0; a < 5; a++) to->blurred[a][n] = one[TURNED_COVARIANCE + a];
            to->blurred[5][n] = variance;
            to->peak[n] = peak;
            to->plane[n] = plane;
            to->amplitude[n] = (float)one[TURNED_AMPLITUDE];
            to->count++;
            if (to->count == FOUR) add_waiting_pairs(part);
        }
    }
}

static void fill_part(
    plane_part *part, const double *turned, const int64_t *chosen, const int64_t *limits, float *out) {
    const parallel_planes *planes = part->planes;
    const int64_t first_plane = limits[0], n_planes = limits[1], first_row = limits[2], n_rows = limits[3];
    const int64_t n_columns = planes->shape[2];
    const double low_u = (double)first_row * planes->spacing[1], low_w = (double)first_plane * planes->spacing[0];
    const double extent = (double)n_rows * planes->spacing[1];
    part->shape[0] = n_rows;
    part->plane_size = n_rows * part->stride;
    memset(part->values, 0, (size_t)(n_planes * part->plane_size + LANES) * sizeof(float));
    for (int64_t k = limits[4]; k < limits[5]; k++) {
        const double *one = turned + TURNED_SIZE * chosen[k];
        if (k + AHEAD < limits[5]) { /* they do not follow each other in memory */
            __builtin_prefetch(turned + TURNED_SIZE * chosen[k + AHEAD]);
            __builtin_prefetch(turned + TURNED_SIZE * chosen[k + AHEAD] + TURNED_REACH);
        }
        const double u = one[0] - low_u, reach = one[TURNED_REACH];
        if (u + reach >= 0 && u - reach <= extent) add_gaussian(part, one, u, one[2] - low_w, n_planes);
    }
    if (part->pairs.count > 0) {
        for (int64_t i = part->pairs.count; i < FOUR; i++) { /* anything that can be inverted */
            for (int a = 0; a < 6; a++) part->pairs.blurred[a][i] = part->pairs.blurred[a][0];
        }
        add_waiting_pairs(part);
    }
    add_waiting_pieces(part);
    for (int64_t plane = 0; plane < n_planes; plane++) {
        for (int64_t a = 0; a < n_rows; a++) {
            const float *source = part->values + plane * part->plane_size + a * part->stride;
            float *target = out + ((first_plane + plane) * planes->shape[1] + first_row + a) * n_columns;
            memcpy(target, source, (size_t)n_columns * sizeof(float));
        }
    }
}

KERNEL add_to_planes(
    tasks *all, const parallel_planes *planes, const double *turned, const int64_t *chosen, const int64_t *parts,
    float *out) {
    const int64_t n_columns = planes->shape[2], stride = n_columns + LANES;
    int64_t largest = 0;
    for (int64_t i = 0; i < all->count; i++) {
        const int64_t size = parts[6 * i + 1] * parts[6 * i + 3] * stride + LANES;
        if (size > largest) largest = size;
    }
    plane_part *part = malloc(sizeof(plane_part));
    float *values = malloc((size_t)largest * sizeof(float));
    const int ready = part && values;
    if (ready) {
        *part = (plane_part){.planes = planes, .shape = {0, n_columns}, .stride = stride, .values = values};
        FOR_EACH_TASK(i, all) fill_part(part, turned, chosen, parts + 6 * i, out);
    }
    free(part);
    free(values);
    return ready ? DONE : NO_MEMORY;
}
