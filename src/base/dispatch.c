/*
 * dispatch.c - see dispatch.h.
 */
#include "base/dispatch.h"
#include "base/cpu.h"
#include <assert.h>
#include <string.h>

static const void *choose(struct mb_dispatch *dispatch)
{
    const unsigned features = mb_cpu_features();
    const void *best = NULL;
    for (size_t i = 0; dispatch->tables[i].isa != NULL; i++) {
        assert(i < MB_DISPATCH_TABLES_MAX);
        const struct mb_dispatch_table *table = &dispatch->tables[i];
        bool can_run = (table->needs & ~features) == 0;
        dispatch->is_usable[i] = can_run && (i == 0 || dispatch->agrees(table->table));
        if (dispatch->is_usable[i])
            best = table->table;
    }
    return best;
}

const void *mb_dispatch_best(struct mb_dispatch *dispatch)
{
    const void *best = atomic_load_explicit(&dispatch->best, memory_order_acquire);
    if (best != NULL)
        return best;
    pthread_mutex_lock(&dispatch->lock);
    best = atomic_load_explicit(&dispatch->best, memory_order_relaxed);
    if (best == NULL) {
        best = choose(dispatch);
        atomic_store_explicit(&dispatch->best, best, memory_order_release);
    }
    pthread_mutex_unlock(&dispatch->lock);
    return best;
}

const void *mb_dispatch_by_isa(struct mb_dispatch *dispatch, const char *isa)
{
    mb_dispatch_best(dispatch);
    for (size_t i = 0; dispatch->tables[i].isa != NULL; i++)
        if (dispatch->is_usable[i] && strcmp(dispatch->tables[i].isa, isa) == 0)
            return dispatch->tables[i].table;
    return NULL;
}
