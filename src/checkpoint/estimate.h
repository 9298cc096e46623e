/*
 * estimate.h - the size of a coded folder from samples.
 */
#ifndef MB_CHECKPOINT_ESTIMATE_H
#define MB_CHECKPOINT_ESTIMATE_H

#include "layout.h"
#include "progress.h"

/* Fills the report as mb_compress would, all figures predicted, and calls options->each. Small matrices are
 * coded completely. */
enum mb_status mb_estimate(const struct mb_checkpoint *ckpt, const struct mb_layout *layout,
                           const struct mb_compress_options *options, struct mb_progress *progress,
                           struct mb_compress_report *report, struct mb_error *err);

#endif
