/* How threads share the work of a kernel: each takes the next task when it is free. */
#ifndef GSVR_TASKS_H
#define GSVR_TASKS_H

#include <stdlib.h>

#include "kernels.h"
#include "lanes.h"

INLINE int64_t next_task(tasks *all) {
    int64_t task = __atomic_fetch_add(&all->next, 1, __ATOMIC_RELAXED);
    return task < all->count ? task : -1;
}

#define FOR_EACH_TASK(task, all) for (int64_t task; (task = next_task(all)) >= 0;)

/* What a kernel returns: 0, or that a thread could not get its scratch memory. */
enum { DONE = 0, NO_MEMORY = 1 };

#endif
