/* What `turn_gaussians` writes of every Gaussian. */
#ifndef GSVR_TURNED_GAUSSIANS_H
#define GSVR_TURNED_GAUSSIANS_H

#include "gaussian_kernels.h"

enum {
    TURNED_MEAN = 0,
    TURNED_COVARIANCE = 3,
    TURNED_VOLUME = 9,
    TURNED_AMPLITUDE = 10,
    TURNED_REACH = 11,
    TURNED_SIZE = 12
};

#endif
