/* Which free Gaussians each slice sees, and the forms of their pieces. Most candidates are turned down by their depth
 * alone; those that are left are seen four at a time. */
#include "gaussian_form.h"
#include "gaussian_kernels.h"
#include "tasks.h"

/* Pieces are counted first and then written: both must see the same windows to the last digit, so it is the same
 * machine code that finds them. */
#if defined(__clang__)
#define ONE_COPY static __attribute__((noinline))
#else
#define ONE_COPY static __attribute__((noinline, noclone))
#endif

/* What is the same for all Gaussians that a slice sees through some components. */
typedef struct {
    const double *turn, *covariance, *offset, *pixel;
    const int64_t *shape;
    int64_t n_components, exact;
    double cutoff, step, depth, reach_u, reach_v, log_weight, share;
} slice_view;

static slice_view view_of_slice(const gaussian_views *views, int64_t s) {
    const int64_t m = views->n_components;
    const double *covariance = views->covariances + 6 * s, *offset = views->offsets + 3 * s;
    const double cutoff = views->cutoff, step = views->steps[s];
    return (slice_view){
        .turn = views->to_slice + 12 * s,
        .covariance = covariance,
        .offset = offset,
        .pixel = views->pixel_spacing + 2 * s,
        .shape = views->shapes + 2 * s,
        .n_components = m,
        .exact = views->exact,
        .cutoff = cutoff,
        .step = step,
        .depth = fmax(fabs(offset[2]), fabs(offset[2] + step)) + cutoff * sqrt(covariance[5]),
        .reach_u = fabs(offset[0]) + cutoff * sqrt(covariance[0]),
        .reach_v = fabs(offset[1]) + cutoff * sqrt(covariance[3]),
        .log_weight = log2(views->weights[0]),
        .share = m == 2 ? log2(views->weights[1] / views->weights[0]) : 0,
    };
}

/* Whether the ball around a bucket, widened by the point spread function, reaches the slice. */
static int bucket_in_sight(const slice_view *view, const double *centre, double radius) {
    double place[3];
    for (int a = 0; a < 3; a++) {
        const double *turn = view->turn + 4 * a;
        place[a] = turn[0] * centre[0] + turn[1] * centre[1] + turn[2] * centre[2] + turn[3];
    }
    const double u = radius + view->reach_u, v = radius + view->reach_v;
    return fabs(place[2]) <= radius + view->depth && place[0] >= -u && place[1] >= -v &&
           place[0] <= view->pixel[0] * (double)(view->shape[0] - 1) + u &&
           place[1] <= view->pixel[1] * (double)(view->shape[1] - 1) + v;
}

/* Gaussians from `begin` to `end` that the slice is not too far away from for any pixel of it to see; their number. */
ONE_COPY int64_t
find_in_depth(const slice_view *view, const gaussian_buckets *buckets, int64_t begin, int64_t end, int32_t *found) {
    const double *normal = view->turn + 8, x = normal[0], y = normal[1], z = normal[2], stand = normal[3];
    const double products[6] = {x * x, 2 * x * y, 2 * x * z, y * y, 2 * y * z, z * z};
    const double square = view->cutoff * view->cutoff;
    const int64_t stride = buckets->stride;
    int64_t count = 0;
    for (int64_t j = begin; j < end; j += FOUR) {
        const double *mean = buckets->values + j, *covariance = mean + COVARIANCE_ROW * stride;
        doubles w = all_lanes(stand), variance = all_lanes(0);
        for (int a = 0; a < 3; a++) w += normal[a] * load_doubles(mean + a * stride);
        for (int a = 0; a < 6; a++) variance += products[a] * load_doubles(covariance + a * stride);
        choices near = {0};
        for (int64_t m = 0; m < view->n_components; m++) {
            doubles distance = view->offset[2] + (double)m * view->step - w;
            near |= distance * distance < square * (variance + view->covariance[5]);
        }
        for (int64_t lane = 0; lane < FOUR && j + lane < end; lane++) {
            found[count] = (int32_t)(j + lane);
            count -= near[lane];
        }
    }
    return count;
}

/* Four of the found Gaussians in the slice. */
ONE_COPY void see_four(const slice_view *view, const gaussian_buckets *buckets, const int32_t *found, splats *out) {
    const points mean = turned_means(view->turn, gathered_means(buckets, found));
    const symmetric covariance = turned_covariances(view->turn, gathered_covariances(buckets, found));
    const symmetric blurred = widened(covariance, view->covariance);
    const doubles u = mean.u - view->offset[0], v = mean.v - view->offset[1], distance = view->offset[2] - mean.w;
    const double cutoff = view->cutoff;
    out->u = u;
    out->v = v;
    out->distance = distance;
    out->seen = windows_in_sight(u, v, distance, &blurred, cutoff, view->pixel, view->shape);
    if (view->n_components == 2) {
        const doubles second = distance + view->step;
        out->seen = joined(out->seen, windows_in_sight(u, v, second, &blurred, cutoff, view->pixel, view->shape));
    }
    doubles determinants;
    out->precision = inverses(blurred, &determinants);
    out->rows = rows_of_pieces(out->precision.uu, view->pixel[0]);
    out->peak = all_lanes(view->log_weight);
    if (view->exact) out->peak += 0.5 * binary_logarithm(gathered_determinants(buckets, found) / determinants);
}

/* Four products: where both of their factors are seen. */
ONE_COPY void see_products(
    const slice_view *view, const slice_view *times, const gaussian_buckets *buckets, const int32_t *found, splats *one,
    splats *other) {
    see_four(view, buckets, found, one);
    see_four(times, buckets, found, other);
    one->seen = other->seen = shared(one->seen, other->seen);
    one->rows = rows_of_pieces(one->precision.uu + other->precision.uu, view->pixel[0]);
}

static int64_t largest_bucket(const gaussian_buckets *buckets) {
    int64_t largest = 0;
    for (int64_t bucket = 0; bucket < buckets->n_buckets; bucket++) {
        const int64_t size = buckets->first[bucket + 1] - buckets->first[bucket];
        if (size > largest) largest = size;
    }
    return largest;
}

/* Found Gaussians of a bucket; the last is repeated until there are whole fours. */
static int64_t find_in_bucket(const slice_view *view, const gaussian_buckets *buckets, int64_t bucket, int32_t *found) {
    if (!bucket_in_sight(view, buckets->centres + 3 * bucket, buckets->radii[bucket])) return 0;
    const int64_t count = find_in_depth(view, buckets, buckets->first[bucket], buckets->first[bucket + 1], found);
    for (int64_t i = count; i % FOUR != 0; i++) found[i] = found[count - 1];
    return count;
}

static void count_slice(
    int64_t s, const gaussian_buckets *buckets, const gaussian_views *views, const gaussian_views *times,
    int32_t *found, int64_t *first, int64_t *n_splats) {
    const slice_view view = view_of_slice(views, s), other = view_of_slice(times ? times : views, s);
    doubles splats_seen = all_lanes(0);
    for (int64_t bucket = 0; bucket < buckets->n_buckets; bucket++) {
        const int64_t count = find_in_bucket(&view, buckets, bucket, found);
        doubles total = all_lanes(0);
        for (int64_t i = 0; i < count; i += FOUR) {
            splats four, factors;
            if (times) {
                see_products(&view, &other, buckets, found + i, &four, &factors);
            } else {
                see_four(&view, buckets, found + i, &four);
            }
            const doubles left = all_lanes((double)(count - i)), lane = {0, 1, 2, 3};
            const doubles pieces = chosen(lane < left, pieces_of_windows(&four.seen, four.rows), all_lanes(0));
            total += pieces;
            splats_seen += least(pieces, all_lanes(1));
        }
        first[s * (buckets->n_buckets + 1) + bucket + 1] = (int64_t)(total[0] + total[1] + total[2] + total[3]);
    }
    n_splats[s] = (int64_t)(splats_seen[0] + splats_seen[1] + splats_seen[2] + splats_seen[3]);
}

KERNEL count_gaussian_pieces(
    tasks *slices, const gaussian_buckets *buckets, const gaussian_views *views, const gaussian_views *times,
    int64_t *first, int64_t *n_splats) {
    int32_t *found = malloc((size_t)(largest_bucket(buckets) + FOUR) * sizeof(int32_t));
    if (found) {
        FOR_EACH_TASK(s, slices) count_slice(s, buckets, views, times, found, first, n_splats);
    }
    free(found);
    return found ? DONE : NO_MEMORY;
}

/* A piece of a bucket before it is given its place. */
typedef struct {
    float form[FORM_SIZE], place[2], depth;
    int32_t gaussian, corner, n_rows;
} new_piece;

/* Append all pieces of one splat; the number after the last. */
INLINE int64_t append_pieces(
    const quadratics *all, int lane, int32_t gaussian, int64_t stride, double depth, int64_t n, new_piece *out) {
    const int64_t top = (int64_t)all->top[lane], left = (int64_t)all->left[lane], rows = (int64_t)all->rows[lane];
    const int64_t height = (int64_t)all->bottom[lane] + 1 - top, width = (int64_t)all->right[lane] + 1 - left;
    for (int64_t x = 0; x < width; x += LANES) {
        for (int64_t y = 0; y < height; y += rows) {
            new_piece *piece = out + n++;
            write_form(2, all, lane, (double)y, (double)x, piece->form);
            piece->place[0] = (float)(all->middle_y[lane] - (double)y);
            piece->place[1] = (float)(all->middle_x[lane] - (double)x);
            piece->depth = (float)depth;
            piece->gaussian = gaussian;
            piece->corner = (int32_t)((top + y) * stride + left + x);
            piece->n_rows = (int32_t)(height - y < rows ? height - y : rows);
        }
    }
    return n;
}

typedef struct {
    int32_t *gaussians, *corners;
    int16_t *n_rows;
    float *forms, *places, *depths;
} written_pieces;

/* Write the pieces of a bucket, from number `begin` on: those of equally many rows together, since a processor guesses
 * how long a loop will run by how long the last ones ran. */
static void write_pieces(const new_piece *pieces, int64_t count, int64_t begin, const written_pieces *out) {
    int64_t next[LONGEST_PIECE + 2] = {0};
    for (int64_t i = 0; i < count; i++) next[pieces[i].n_rows + 1]++;
    next[0] = begin;
    for (int rows = 1; rows <= LONGEST_PIECE + 1; rows++) next[rows] += next[rows - 1];
    for (int64_t i = 0; i < count; i++) {
        const new_piece *piece = pieces + i;
        const int64_t n = next[piece->n_rows]++;
        memcpy(out->forms + FORM_SIZE * n, piece->form, sizeof(piece->form));
        memcpy(out->places + 2 * n, piece->place, sizeof(piece->place));
        if (out->depths) out->depths[n] = piece->depth;
        out->gaussians[n] = piece->gaussian;
        out->corners[n] = piece->corner;
        out->n_rows[n] = (int16_t)piece->n_rows;
    }
}

typedef struct {
    int32_t *found;
    new_piece *pieces;
} scratch;

static void plan_slice(
    int64_t s, const gaussian_buckets *buckets, const gaussian_views *views, const gaussian_views *times,
    const int64_t *first, const scratch *own, const written_pieces *out) {
    const slice_view view = view_of_slice(views, s), other = view_of_slice(times ? times : views, s);
    const int64_t *begin = first + s * (buckets->n_buckets + 1);
    for (int64_t bucket = 0; bucket < buckets->n_buckets; bucket++) {
        if (begin[bucket] == begin[bucket + 1]) continue;
        const int64_t count = find_in_bucket(&view, buckets, bucket, own->found);
        int64_t n = 0;
        for (int64_t i = 0; i < count; i += FOUR) {
            const int32_t *found = own->found + i;
            splats four, factors;
            quadratics forms, others;
            if (times) {
                see_products(&view, &other, buckets, found, &four, &factors);
                fill_quadratics(1, &others, &factors, view.pixel, 0, 0);
            } else {
                see_four(&view, buckets, found, &four);
            }
            fill_quadratics(2, &forms, &four, view.pixel, view.step, view.share);
            if (times) multiply(&forms, &others);
            const doubles height = view.offset[2] - four.distance, depth = height * height;
            for (int lane = 0; lane < FOUR && i + lane < count; lane++) {
                n = append_pieces(&forms, lane, found[lane], view.shape[1] + LANES, depth[lane], n, own->pieces);
            }
        }
        write_pieces(own->pieces, n, begin[bucket], out);
    }
}

/* Most pieces of a slice and a bucket. */
static int64_t most_pieces(const int64_t *first, int64_t n_slices, int64_t n_buckets) {
    int64_t largest = 1;
    for (int64_t s = 0; s < n_slices; s++) {
        const int64_t *begin = first + s * (n_buckets + 1);
        for (int64_t bucket = 0; bucket < n_buckets; bucket++) {
            if (begin[bucket + 1] - begin[bucket] > largest) largest = begin[bucket + 1] - begin[bucket];
        }
    }
    return largest;
}

KERNEL plan_gaussians(
    tasks *slices, const gaussian_buckets *buckets, const gaussian_views *views, const gaussian_views *times,
    const int64_t *first, int32_t *gaussians, int32_t *corners, int16_t *n_rows, float *forms, float *places,
    float *depths) {
    const written_pieces out = {gaussians, corners, n_rows, forms, places, depths};
    const size_t room = (size_t)most_pieces(first, views->n_slices, buckets->n_buckets);
    const scratch own = {
        malloc((size_t)(largest_bucket(buckets) + FOUR) * sizeof(int32_t)),
        malloc(room * sizeof(new_piece)),
    };
    const int ready = own.found && own.pieces;
    if (ready) {
        FOR_EACH_TASK(s, slices) plan_slice(s, buckets, views, times, first, &own, &out);
    }
    free(own.found);
    free(own.pieces);
    return ready ? DONE : NO_MEMORY;
}
