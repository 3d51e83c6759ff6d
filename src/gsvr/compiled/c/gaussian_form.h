/* Forms of pieces: windows are cut into pieces of at most eight columns, and of as many rows as float32 has values for.
 *
 * A piece's form holds the coefficients of the quadratic that a blurred Gaussian is two to the power of, about the
 * piece's first pixel. That of a splat's first piece is computed for four splats at once, then moved to the others. */
#ifndef GSVR_GAUSSIAN_FORM_H
#define GSVR_GAUSSIAN_FORM_H

#include "gaussian_frame.h"
#include "gaussian_kernels.h"

/* Binary logarithms at the pixel in lane x of the first row, as coefficients of 1 and x: of the Gaussian (and of x
 * x), of the next row over this one, of the second component over the first. Then by what factors these two
 * ratios change from row to row. */
enum { VALUE = 0, NEXT_ROW = 3, SECOND = 5, NEXT_ROW_STEP = 7, SECOND_STEP = 8 };

/* A value below 2^-126 in the first row is lost for the whole piece. A Gaussian falls by exp(-n^2 / 2) over n of its
 * own standard deviations along the column, so pieces this long lose nothing that is nearer to its mean than five: a
 * value at most 5 + 8 of them from the largest in its column. That holds for the first component of a pair; what
 * very flat Gaussians (0.3 mm thin) lose of the second is below 2e-3 of its peak, as the bound of a cut-off of 3. */
#define PIECE_DEVIATIONS 8
#define LONGEST_PIECE 16
/* Largest binary logarithm of a ratio: float32 has nothing above 2^128. */
#define MOST_RATIO 115

/* Rows of a piece, given the precision along u. */
INLINE doubles rows_of_pieces(doubles precision, double spacing) {
    doubles rows = PIECE_DEVIATIONS / (square_root(precision) * spacing);
    return next_below(most(least(rows, all_lanes(LONGEST_PIECE)), all_lanes(1)));
}

INLINE doubles pieces_of_windows(const windows *seen, doubles rows) {
    doubles across = next_below((seen->right - seen->left) * (1.0 / LANES)) + 1;
    doubles down = next_below((seen->bottom - seen->top) / rows) + 1;
    return chosen(seen->bottom >= seen->top, across * down, all_lanes(0));
}

/* Four splats as one slice sees them. */
typedef struct {
    doubles u, v;        /* middle in the slice frame: the mean less the offset of the components */
    doubles distance;    /* of the slice from the Gaussian along w, as the first component sees it */
    symmetric precision; /* of the blurred Gaussians */
    doubles peak;        /* binary logarithm of the first component's peak */
    windows seen;
    doubles rows; /* of a piece */
} splats;

/* What forms of all pieces are made of, number by number and splat by splat: the quadratic about the first pixel. */
typedef struct {
    double value[FOUR], slope_y[FOUR], slope_x[FOUR], yy[FOUR], yx[FOUR], xx[FOUR];
    double second[FOUR], second_y[FOUR], second_x[FOUR], middle_y[FOUR], middle_x[FOUR];
    double top[FOUR], bottom[FOUR], left[FOUR], right[FOUR], rows[FOUR];
    double next_row_step[FOUR], second_step[FOUR];
} quadratics;

/* `step`: how much further the second component stands; `share`: binary logarithm of its weight over the first's. */
INLINE void fill_quadratics(
    int components, quadratics *out, const splats *all, const double *pixel, double step, double share) {
    const symmetric *precision = &all->precision;
    const double pu = pixel[0], pv = pixel[1];
    doubles yy = precision->uu * (-LOG2_E * pu * pu), yx = precision->uv * (-LOG2_E * pu * pv);
    doubles xx = precision->vv * (-LOG2_E * pv * pv), ww = precision->ww * -LOG2_E;
    doubles along_y = precision->uw * (-LOG2_E * pu), along_x = precision->vw * (-LOG2_E * pv);
    doubles distance = all->distance;
    doubles middle_y = all->u * (1 / pu) - all->seen.top, middle_x = all->v * (1 / pv) - all->seen.left;
    doubles slope_y = along_y * distance - yy * middle_y - yx * middle_x;
    doubles slope_x = along_x * distance - yx * middle_y - xx * middle_x;
    doubles tilt = along_y * middle_y + along_x * middle_x;
    /* by Euler: the quadratic at the corner is half of its slope there and half of its linear part times the place */
    doubles corner = -0.5 * (slope_y * middle_y + slope_x * middle_x + distance * tilt);
    store_doubles(out->value, all->peak + 0.5 * ww * distance * distance + corner);
    store_doubles(out->slope_y, slope_y);
    store_doubles(out->slope_x, slope_x);
    store_doubles(out->yy, yy);
    store_doubles(out->yx, yx);
    store_doubles(out->xx, xx);
    store_doubles(out->middle_y, middle_y);
    store_doubles(out->middle_x, middle_x);
    store_doubles(out->top, all->seen.top);
    store_doubles(out->bottom, all->seen.bottom);
    store_doubles(out->left, all->seen.left);
    store_doubles(out->right, all->seen.right);
    store_doubles(out->rows, all->rows);
    /* good to the last digit, since from the first row to the last they are multiplied a hundred times */
    store_doubles(out->next_row_step, exact_power_of_two(yy));
    if (components == 2) {
        store_doubles(out->second, share + step * (ww * (distance + 0.5 * step) - tilt));
        store_doubles(out->second_y, step * along_y);
        store_doubles(out->second_x, step * along_x);
        store_doubles(out->second_step, exact_power_of_two(step * along_y));
    }
}

/* Products of Gaussians, whose quadratics about the same pixels add. */
INLINE void multiply(quadratics *all, const quadratics *by) {
    for (int lane = 0; lane < FOUR; lane++) {
        all->value[lane] += by->value[lane];
        all->slope_y[lane] += by->slope_y[lane];
        all->slope_x[lane] += by->slope_x[lane];
        all->yy[lane] += by->yy[lane];
        all->yx[lane] += by->yx[lane];
        all->xx[lane] += by->xx[lane];
        all->next_row_step[lane] *= by->next_row_step[lane];
    }
}

/* The form of the piece of splat `lane` whose first pixel is (y, x) from that of the window. */
INLINE void write_form(int components, const quadratics *all, int lane, double y, double x, float *form) {
    const double yy = all->yy[lane], yx = all->yx[lane], xx = all->xx[lane];
    const double slope_y = all->slope_y[lane] + 0.5 * (yy * y) + yx * x, slope_x = all->slope_x[lane] + 0.5 * (xx * x);
    form[VALUE] = (float)(all->value[lane] + y * slope_y + x * slope_x);
    form[VALUE + 1] = (float)(all->slope_x[lane] + xx * x + yx * y);
    form[VALUE + 2] = (float)(0.5 * xx);
    form[NEXT_ROW] = (float)(slope_y + 0.5 * yy * (y + 1));
    form[NEXT_ROW + 1] = (float)yx;
    form[NEXT_ROW_STEP] = (float)all->next_row_step[lane];
    if (components == 1) return;
    form[SECOND] = (float)(all->second[lane] + y * all->second_y[lane] + x * all->second_x[lane]);
    form[SECOND + 1] = (float)all->second_x[lane];
    form[SECOND_STEP] = (float)all->second_step[lane];
}

#endif
