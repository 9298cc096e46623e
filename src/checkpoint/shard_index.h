/*
 * shard_index.h - model.safetensors.index.json: which shards a checkpoint has, and where they disagree with
 * it.
 */
#ifndef MB_CHECKPOINT_SHARD_INDEX_H
#define MB_CHECKPOINT_SHARD_INDEX_H

#include "checkpoint.h"

/* The file names in weight_map, each once, sorted. *names is the caller's to free, after a failure too. */
enum mb_status mb_shard_index_names(const char *path, const json_t *map, const char ***names, size_t *n,
                                    struct mb_error *err);

/*
 * Drops from the headers of the open shards what does not count: a tensor that the index says is in another
 * shard, and one that it does not name and a later shard has too (transformers reads shards by name, and the
 * last one wins).  Notes what was dropped.
 */
enum mb_status mb_shard_index_settle(struct mb_checkpoint *ckpt, const json_t *map, struct mb_error *err);

/*
 * Every tensor of the index is in the shard that it names, and in a coded folder there are no others.  For
 * settled shards whose tensors are listed.
 */
enum mb_status mb_shard_index_check(const struct mb_checkpoint *ckpt, const char *path, const json_t *map,
                                    struct mb_error *err);

#endif
