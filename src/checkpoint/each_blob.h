/*
 * each_blob.h - goes through a coded folder: every blob checked and decoded, every exact tensor checked.
 */
#ifndef MB_CHECKPOINT_EACH_BLOB_H
#define MB_CHECKPOINT_EACH_BLOB_H

#include "base/pool.h"
#include "checkpoint.h"
#include "progress.h"

/* A coded matrix while its blob is in memory. */
struct mb_walk_matrix {
    const struct mb_tensor *tensor; /* its blob */
    size_t index;                   /* in the blob */
    const struct mb_blob_matrix *info;
    const struct mb_coded_matrix *coded;
    char *name; /* the original one */
    void *user; /* 'user_nbytes' zeroed bytes for the caller */
};

/* Whatever fails ends the walk. All but 'rows' are called by the thread that walks. */
struct mb_walk_ops {
    size_t user_nbytes;
    enum mb_status (*begin)(void *ctx, struct mb_walk_matrix *matrix, struct mb_error *err);
    /* Decoded rows, at most MB_WALK_WEIGHTS weights, by any thread and in any order. */
    enum mb_status (*rows)(void *ctx, const struct mb_walk_matrix *matrix, uint64_t row, uint64_t n_rows,
                           float *weights, int thread, struct mb_error *err);
    enum mb_status (*end)(void *ctx, struct mb_walk_matrix *matrix, struct mb_error *err);
    /* A piece of an exact tensor, in order; at least one, of 0 bytes where there are none. */
    enum mb_status (*exact)(void *ctx, const struct mb_tensor *tensor, uint64_t pos, const void *bytes,
                            uint64_t nbytes, struct mb_error *err);
    /* Or NULL. Frees what 'user' holds, after 'end' or where that is not called. */
    void (*drop)(void *ctx, void *user);
};

enum { MB_WALK_WEIGHTS = 128 << 10, MB_WALK_PIECE_NBYTES = 1 << 20 };

/*
 * Tensors [first, first + n) of the folder, in order.  A blob is in memory as a whole, and the next one is
 * read and checked meanwhile where both are small.
 */
enum mb_status mb_walk(const struct mb_checkpoint *ckpt, size_t first, size_t n, struct mb_pool *pool,
                       const struct mb_walk_ops *ops, void *ctx, struct mb_progress *progress,
                       const char *what, struct mb_error *err);

/* What a blob holds, by its header alone: the payload is not read. */
struct mb_blob_header {
    uint8_t *bytes;
    struct mb_blob_matrix *infos; /* [n_matrices] names point into 'bytes' */
    size_t n_matrices;
};
enum mb_status mb_load_blob_header(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                   struct mb_blob_header *header, struct mb_error *err);
void mb_free_blob_header(struct mb_blob_header *header);

#endif
