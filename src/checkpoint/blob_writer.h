/*
 * blob_writer.h - codes the blobs of a shard: bounds first, then row chunks on all threads.
 */
#ifndef MB_CHECKPOINT_BLOB_WRITER_H
#define MB_CHECKPOINT_BLOB_WRITER_H

#include "layout.h"
#include "progress.h"
#include "reuse.h"
#include "shard_writer.h"

struct mb_coder;

/*
 * Everything stays the caller's. Buffers take less than 90 MB whatever the checkpoint and n_threads, beside
 * what a rounder (or NULL) takes for the units that threads work on.
 */
enum mb_status mb_coder_create(const struct mb_checkpoint *ckpt, const struct mb_layout *layout,
                               const struct mb_rounder *rounder, int n_threads, struct mb_progress *progress,
                               struct mb_coder **coder, struct mb_error *err);
void mb_coder_free(struct mb_coder *coder);

/* From now on blobs of an earlier folder are taken where they are what would be coded. Borrowed; may be NULL.
 */
void mb_coder_reuse(struct mb_coder *coder, const struct mb_reuse *reuse);

/* Writes the blobs of these units, in order. What they hold is added to the report. */
enum mb_status mb_coder_run(struct mb_coder *coder, const struct mb_unit *units, size_t n_units,
                            struct mb_shard_writer *writer, struct mb_compress_report *report,
                            struct mb_error *err);

#endif
