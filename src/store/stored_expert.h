/*
 * stored_expert.h - where the matrices of an expert are in the files, and where they go in memory.
 */
#ifndef MB_STORE_STORED_EXPERT_H
#define MB_STORE_STORED_EXPERT_H

#include "read.h"
#include "store.h"

/* A stored tensor of an expert, and its place in the expert's memory. */
struct mb_stored_piece {
    const struct mb_tensor *tensor;
    bool is_blob;
    uint64_t file_pos, read_nbytes; /* what is read: in whole pages */
    uint64_t read_at, at;           /* in memory: of the read, and of the tensor in it */
    uint64_t tables_at, tables_nbytes;
};

struct mb_stored_expert {
    const struct mb_bound_expert *bound;
    struct mb_stored_piece *pieces;
    size_t n_pieces;
    uint64_t nbytes, tables_nbytes; /* of the memory that it needs */
    uint32_t layer, number;         /* as in tensor names */
};

/* Memory of one expert. */
struct mb_expert_memory {
    uint8_t *bytes, *tables;
    struct mb_blob *blobs;   /* [n_pieces] */
    struct mb_matrix *views; /* [n_parts] of its matrices, once it is checked */
};

/* Fills *expert, but for layer and number; 'pieces' has room for as many as the expert has parts. */
void mb_stored_expert_list(const struct mb_index *index, const struct mb_bound_expert *bound,
                           struct mb_stored_piece *pieces, struct mb_stored_expert *expert);

/* Tells the timeline, if somebody looks, of an event of this expert. */
void mb_stored_expert_show(const struct mb_timeline *timeline, const struct mb_stored_expert *expert,
                           struct mb_timeline_event event);

/* Reads all by pread.  Fails as mb_reader_read; the message names file and tensor. */
enum mb_status mb_stored_expert_read(const struct mb_checkpoint *ckpt, const struct mb_reader *reader,
                                     const struct mb_stored_expert *expert,
                                     const struct mb_expert_memory *memory, struct mb_error *err);

/*
 * Checks all that was read, and makes views of it.  'check': it has begun, and the expert is that one blob;
 * NULL: nothing was looked at.  MB_BAD_DATA names file, tensor and position.
 */
enum mb_status mb_stored_expert_check(const struct mb_checkpoint *ckpt, const struct mb_stored_expert *expert,
                                      const struct mb_expert_memory *memory, struct mb_blob_check *check,
                                      struct mb_error *err);

#endif
