/*
 * layout.h - which tensors of a checkpoint are coded, with which bound, in which blob and shard.
 */
#ifndef MB_CHECKPOINT_LAYOUT_H
#define MB_CHECKPOINT_LAYOUT_H

#include "checkpoint.h"

/* Bounds without options, as parts of the mean absolute weight. */
#define MB_EXPERT_FRACTION 0.3
#define MB_LINEAR_FRACTION 0.05

enum mb_role {
    MB_ROLE_EXPERT, /* gate, up and down of a routed or shared expert: one blob */
    MB_ROLE_LINEAR, /* any other linear matrix */
    MB_ROLE_OTHER,  /* router, norms, biases, embedding: exact unless a pattern names them */
};

struct mb_plan_item {
    const struct mb_tensor *tensor;
    enum mb_role role;
    struct mb_bound bound; /* MB_BOUND_EXACT: copied */
    size_t n_stem;         /* its blob is the first n_stem bytes of the name, and ".moebius" */
    const char *suffix;    /* the rest of the name, behind the dot */
    unsigned order;        /* in its blob: gate, up, down */
    size_t shard;          /* of the output */
};

/* A blob to be: items that share a stem. Exact ones among them count for the mean of an expert, and are
 * copied. */
struct mb_plan_unit {
    size_t first, n; /* items */
    size_t n_coded;  /* at least 1 */
    size_t shard;
};

struct mb_plan {
    struct mb_plan_item *items; /* by shard, stem, order */
    size_t n_items;
    struct mb_plan_unit *units; /* by shard and stem */
    size_t n_units;
    const struct mb_tensor **exact; /* by shard, element size (large first), name */
    size_t *exact_shards;
    size_t n_exact;
    size_t n_shards;
    size_t n_too_wide; /* linear matrices kept exact for their number of columns */
    uint64_t hash;     /* of all bounds */
};

/* bound for experts, dense_bound for other linear matrices; the last pattern that matches wins over both. */
enum mb_status mb_plan_make(const struct mb_checkpoint *ckpt, const struct mb_compress_options *options,
                            struct mb_plan *plan, struct mb_error *err);
void mb_plan_free(struct mb_plan *plan);

/* What a shard of the output will hold: blobs (their sizes not known), then exact tensors. */
struct mb_planned {
    struct mb_tensor *tensors; /* [n_units + n_exact] blobs' names are owned */
    size_t first_unit, n_units, first_exact, n_exact;
    uint64_t hash; /* of names and bounds */
};
enum mb_status mb_plan_shard(const struct mb_plan *plan, size_t shard, struct mb_planned *planned,
                             struct mb_error *err);
void mb_planned_free(struct mb_planned *planned);

/* The blob of a unit as a tensor without a size: the name is malloc'ed, NULL when there is no memory. */
struct mb_tensor mb_unit_tensor(const struct mb_plan *plan, const struct mb_plan_unit *unit);

/* The shard (one a layer, the rest last) of each name; sets *n_shards >= 1. For all folders that we write. */
enum mb_status mb_assign_shards(const char *const *names, size_t n, size_t *shards, size_t *n_shards,
                                struct mb_error *err);

/* "model-00001-of-00009.safetensors", or "model.safetensors" when there is one. */
void mb_shard_file_name(char name[48], size_t shard, size_t n_shards);

#endif
