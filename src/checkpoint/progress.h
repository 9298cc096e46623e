/*
 * progress.h - how long work reports how far it is, and learns that it should stop.
 */
#ifndef MB_CHECKPOINT_PROGRESS_H
#define MB_CHECKPOINT_PROGRESS_H

#include "base/error.h"
#include <moebius/checkpoint.h>

struct mb_progress {
    mb_progress_fn fn; /* or NULL */
    void *ctx;
    uint64_t done_nbytes, total_nbytes;
};

/* MB_CANCELLED when the caller wants no more. One thread at a time. */
static inline enum mb_status mb_progress_add(struct mb_progress *progress, const char *what, uint64_t nbytes,
                                             struct mb_error *err)
{
    progress->done_nbytes += nbytes;
    if (progress->fn != NULL &&
        progress->fn(progress->ctx, what, progress->done_nbytes, progress->total_nbytes))
        return mb_fail(err, MB_CANCELLED, "cancelled");
    return MB_OK;
}

#endif
