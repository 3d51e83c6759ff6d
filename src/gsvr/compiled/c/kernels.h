/* What Python may call is declared in the files *_kernels.h. `gsvr.compiled` reads them, too: it takes the types of
 * arguments and of the fields of structures from there, so keep one declaration to a statement and pointers next to
 * their names.
 *
 * A kernel with `tasks` runs on all threads at once; its arrays are shared, and no two tasks write to one place, so
 * that the result does not depend on the number of threads. All arrays are contiguous. A bracket right behind a
 * declaration is its shape, which `gsvr.compiled.lengths` checks at every call. */
#ifndef GSVR_KERNELS_H
#define GSVR_KERNELS_H

#include <stdint.h>

#if defined(_WIN32)
#define KERNEL __declspec(dllexport) int
#else
#define KERNEL __attribute__((visibility("default"))) int
#endif

/* Marks an array that may be absent: a null pointer, None in Python. */
#define OPTIONAL

typedef struct {
    int64_t next;
    int64_t count;
} tasks;

/* Whether the processor has AVX2 and fused multiply-add. */
KERNEL has_avx2(void);

/* A checksum of the files *_kernels.h that the library was compiled with: with others it must not be called. */
KERNEL checksum_of_declarations(void);

#endif
