/*
 * dispatch.h - which table of functions this process uses: the best that the CPU can run and that has proved
 * itself against the scalar one.
 */
#ifndef MB_BASE_DISPATCH_H
#define MB_BASE_DISPATCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum { MB_DISPATCH_TABLES_MAX = 8 };

struct mb_dispatch_table {
    const char *isa;   /* "scalar", "avx2", ... */
    const void *table; /* of the caller's type */
    unsigned needs;    /* of enum mb_cpu */
};

/*
 * Defined by each part that has kernels, static or global, with the first two members given and 'lock'
 * initialised (MB_DISPATCH).
 */
struct mb_dispatch {
    /* [n_tables] slowest first. The first needs nothing: it is the specification. isa NULL ends the list. */
    const struct mb_dispatch_table *tables;
    /* Whether a table gives the bits of the first. Called once for each other table, by one thread. */
    bool (*agrees)(const void *table);

    /* The choice, made by the first call. */
    pthread_mutex_t lock;
    bool is_usable[MB_DISPATCH_TABLES_MAX];
    _Atomic(const void *) best; /* NULL: not chosen yet */
};

#define MB_DISPATCH(tables, agrees)                              \
    {                                                            \
        (tables), (agrees), PTHREAD_MUTEX_INITIALIZER, {0}, NULL \
    }

/* Any thread. The first call checks all tables that the CPU (less MOEBIUS_CPU) can run. */
const void *mb_dispatch_best(struct mb_dispatch *dispatch);

/* NULL when the CPU, less MOEBIUS_CPU, cannot run it, or it has failed its check. */
const void *mb_dispatch_by_isa(struct mb_dispatch *dispatch, const char *isa);

#endif
