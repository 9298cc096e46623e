/*
 * layout.h - which tensors of a checkpoint are coded, in which blob and shard, and in which order.
 */
#ifndef MB_CHECKPOINT_LAYOUT_H
#define MB_CHECKPOINT_LAYOUT_H

#include "bounds.h"

struct mb_layout_item {
    const struct mb_tensor *tensor;
    enum mb_bound_class class;
    struct mb_bound bound; /* MB_BOUND_EXACT: copied */
    size_t n_stem;         /* its blob is called by the first n_stem bytes of the name, and ".moebius" */
    const char *suffix;    /* the rest of the name, after the dot */
    unsigned order;        /* in its blob: gate, up, down */
    size_t shard;          /* of the output */
};

/*
 * A blob to be: items that share a stem.  Exact ones among them count for the mean of an expert, and are
 * copied.
 */
struct mb_unit {
    size_t first, n; /* items */
    size_t n_coded;  /* at least 1 */
    size_t shard;
};

/* A tensor that is copied. */
struct mb_exact {
    const struct mb_tensor *tensor;
    size_t shard;
};

struct mb_layout {
    struct mb_layout_item *items; /* by shard, stem, order */
    size_t n_items;
    struct mb_unit *units; /* by shard and stem */
    size_t n_units;
    struct mb_exact *exact; /* by shard, element size (large first), name */
    size_t n_exact;
    size_t n_shards;
    uint64_t hash; /* of all bounds */
};

/*
 * Gives every tensor its bound (bounds.h) and its place.  MB_UNSUPPORTED: a linear matrix of a type that
 * cannot be coded, or a name that coded folders use.  MB_USAGE: the plan file wants a tensor coded that
 * cannot be.
 */
enum mb_status mb_layout_make(const struct mb_checkpoint *ckpt, const struct mb_compress_options *options,
                              struct mb_layout *layout, struct mb_error *err);
void mb_layout_free(struct mb_layout *layout);

/* What a shard of the output will hold: blobs (their sizes not known), then exact tensors. */
struct mb_shard_layout {
    struct mb_tensor *tensors; /* [n_units + n_exact] blobs' names are owned */
    size_t first_unit, n_units, first_exact, n_exact;
    uint64_t hash;      /* of names and bounds */
    const char **coded; /* [n_coded] names of matrices that are coded, borrowed */
    size_t n_coded;
};
enum mb_status mb_shard_layout_make(const struct mb_layout *layout, size_t shard,
                                    struct mb_shard_layout *planned, struct mb_error *err);
void mb_shard_layout_free(struct mb_shard_layout *planned);

/* The blob of a unit as a tensor without a size: the name is malloc'ed, NULL when there is no memory. */
struct mb_tensor mb_unit_tensor(const struct mb_layout *layout, const struct mb_unit *unit);

/* The shard (one a layer, the rest last) of each name; sets *n_shards >= 1. For all folders that we write. */
enum mb_status mb_assign_shards(const char *const *names, size_t n, size_t *shards, size_t *n_shards,
                                struct mb_error *err);

/* "model-00001-of-00009.safetensors", or "model.safetensors" when there is one. */
void mb_shard_file_name(char name[48], size_t shard, size_t n_shards);

#endif
