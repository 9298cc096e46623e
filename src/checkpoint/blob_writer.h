/*
 * blob_writer.h - codes the blobs of a shard: bounds first, then row chunks on all threads.
 */
#ifndef MB_CHECKPOINT_BLOB_WRITER_H
#define MB_CHECKPOINT_BLOB_WRITER_H

#include "layout.h"
#include "output_folder.h"
#include "progress.h"

struct mb_coder;

/* Everything stays the caller's. Buffers take less than 80 MB whatever the checkpoint and n_threads. */
enum mb_status mb_coder_create(const struct mb_checkpoint *ckpt, const struct mb_plan *plan, int n_threads,
                               struct mb_progress *progress, struct mb_coder **coder, struct mb_error *err);
void mb_coder_free(struct mb_coder *coder);

/* Writes the blobs of these units, in order. What they hold is added to the report. */
enum mb_status mb_coder_run(struct mb_coder *coder, const struct mb_plan_unit *units, size_t n_units,
                            struct mb_shard_writer *writer, struct mb_compress_report *report,
                            struct mb_error *err);

/* ---------------------------------------------------------------- shared with the prediction */

/* Adds the weights of one tensor, all or a sample, to what its bound is relative to. */
typedef enum mb_status (*mb_add_stats_fn)(void *ctx, const struct mb_tensor *tensor,
                                          struct mb_weight_stats *stats, struct mb_error *err);

/*
 * eps of each item of a unit (0 for exact ones).  Matrices of an expert share their statistics; 'add' is not
 * called where bounds do not depend on weights.
 */
enum mb_status mb_unit_eps(const struct mb_plan *plan, const struct mb_plan_unit *unit, mb_add_stats_fn add,
                           void *ctx, double *eps, struct mb_error *err);

/* Names row and column of a weight that is NaN or infinite. */
enum mb_status mb_fail_weight(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                              uint64_t index, struct mb_error *err);

/* Rows that fill a buffer of 'nbytes', whole row groups, at least one of them. */
uint64_t mb_chunk_rows(const struct mb_tensor *tensor, size_t nbytes);

/* A coded matrix as the blob's header will name it; sizes are 0. */
struct mb_blob_matrix mb_item_info(const struct mb_plan_item *item, double eps);

/* Adds a finished blob to a report. */
void mb_report_blob(struct mb_compress_report *report, enum mb_role role, uint64_t n_weights,
                    uint64_t in_nbytes, uint64_t blob_nbytes);

enum { MB_CHUNK_NBYTES = 512 << 10 };

#endif
