/* The rows of pieces. From row to row a Gaussian follows by two multiplications, so only the first row takes
 * exponentials. They are taken for many pieces in turn: each is a long chain of operations that depend on each other,
 * and a processor works on several chains at a time only where nothing between them has to be guessed. */
#ifndef GSVR_GAUSSIAN_ROWS_H
#define GSVR_GAUSSIAN_ROWS_H

#include "gaussian_form.h"
#include "gaussian_kernels.h"

/* Pieces whose first rows are prepared together. */
enum { AT_ONCE = 16 };

INLINE int64_t padded_stride(const gaussian_views *views, int64_t s) { return views->shapes[2 * s + 1] + LANES; }

/* The most numbers of a padded slice. */
INLINE int64_t largest_padded_slice(const gaussian_views *views) {
    int64_t largest = 0;
    for (int64_t s = 0; s < views->n_slices; s++) {
        const int64_t size = views->padded_first[s + 1] - views->padded_first[s];
        if (size > largest) largest = size;
    }
    return largest;
}

/* Where the pieces of a slice and a bucket start. */
INLINE int64_t first_piece(const gaussian_pieces *pieces, int64_t s, int64_t bucket) {
    return pieces->first[s * (pieces->n_buckets + 1) + bucket];
}

/* One row of a piece: the Gaussian of the first component, the next row over it, the second component over the first.
 */
typedef struct {
    vector value, change, second;
} row;

/* First rows of `count` pieces; the second component only where there are two. */
INLINE void first_rows(int components, const float *forms, int64_t count, row *rows) {
    const vector x = lane_numbers(), largest = broadcast(MOST_RATIO);
    for (int64_t i = 0; i < count; i++) {
        const float *form = forms + i * FORM_SIZE;
        rows[i].value = power_of_two((form[VALUE + 2] * x + form[VALUE + 1]) * x + form[VALUE]);
        rows[i].change = power_of_two(smaller(form[NEXT_ROW + 1] * x + form[NEXT_ROW], largest));
        if (components == 2) {
            rows[i].second = power_of_two(smaller(form[SECOND + 1] * x + form[SECOND], largest));
        }
    }
}

/* By what the ratios change from row to row. */
typedef struct {
    vector change, second;
} steps;

INLINE steps steps_of(int components, const float *form) {
    return (steps){broadcast(form[NEXT_ROW_STEP]), broadcast(components == 2 ? form[SECOND_STEP] : 1)};
}

INLINE void next_row(int components, row *now, const steps *by) {
    now->value *= now->change;
    now->change *= by->change;
    if (components == 2) now->second *= by->second;
}

INLINE vector both_components(int components, const row *now) {
    return components == 2 ? now->value * now->second + now->value : now->value;
}

/* Which pixels of a piece have its Gaussian among their nearest: those whose limit is no smaller than the squared
 * distance (mm^2) of pixel and mean. */
typedef struct {
    vector columns;       /* what columns add to the squared distance */
    float y, unit, depth; /* the row from the mean; mm^2 a squared pixel; the slice's part */
    const float *limits;  /* of the row */
} reach;

INLINE reach
reach_of_piece(const float *place, float depth, const double *offset, const double *pixel, const float *limits) {
    const float y = place[0] + (float)(offset[0] / pixel[0]);
    const vector x = lane_numbers() - (place[1] + (float)(offset[1] / pixel[1]));
    return (reach){x * x * (float)(pixel[1] * pixel[1]), -y, (float)(pixel[0] * pixel[0]), depth, limits};
}

/* The values of the row, zero where the Gaussian is not among the nearest; then on to the next. */
INLINE vector among_nearest(reach *now, int64_t stride, vector values) {
    const vector kept = where(now->columns + (now->y * now->y * now->unit + now->depth) <= load(now->limits), values);
    now->y += 1;
    now->limits += stride;
    return kept;
}

/* Call `function` with the number of components, and whether there are limits, as constants. */
#define WITH_VIEWS(views, function, ...)                                                                               \
    if ((views)->limits) {                                                                                             \
        if ((views)->n_components == 2)                                                                                \
            function(2, 1, __VA_ARGS__);                                                                               \
        else                                                                                                           \
            function(1, 1, __VA_ARGS__);                                                                               \
    } else {                                                                                                           \
        if ((views)->n_components == 2)                                                                                \
            function(2, 0, __VA_ARGS__);                                                                               \
        else                                                                                                           \
            function(1, 0, __VA_ARGS__);                                                                               \
    }

#endif
