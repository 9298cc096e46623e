/*
 * checkpoint.h - an open folder, as the files of this part see it.
 */
#ifndef MB_CHECKPOINT_CHECKPOINT_H
#define MB_CHECKPOINT_CHECKPOINT_H

#include "base/buf.h"
#include "safetensors.h"
#include <assert.h>
#include <time.h>

enum {
    MB_FORMAT_VERSION = 1,       /* what is written, but for */
    MB_FORMAT_VERSION_STEPS = 2, /* steps of their own */
    MB_FORMAT_VERSION_MAX = 3,   /* what is read: exponents of columns */
    MB_CONFIG_NBYTES_MAX = 16 << 20,
    MB_INDEX_NBYTES_MAX = 64 << 20,
    MB_SIDE_FILE_NBYTES_MAX = 256 << 20, /* of a tokenizer file and the like */
};

struct mb_shard {
    char *name; /* in the folder */
    char *path;
    int fd;
    uint64_t nbytes;
    struct timespec changed; /* as it was opened */
    void *map;               /* the whole file */
    struct mb_st_header header;
};

struct mb_checkpoint {
    char *path;
    char *config_text;
    json_t *config;
    bool is_coded;
    struct mb_shard *shards;
    size_t n_shards;
    char index_xxh3[MB_XXH128_NBYTES]; /* of the index; "": there is none */
    struct mb_bytes notes;             /* terminated lines; p NULL: none (notes.h) */
    const struct mb_tensor **tensors;  /* what is handed out, by shard and position */
    const struct mb_tensor **by_name;
    size_t n_tensors;
    /* Plain folders (views.h): */
    struct mb_view *views;           /* [n_tensors] what 'tensors' are; NULL: they are all stored ones */
    const struct mb_tensor **stored; /* [n_stored] as the files have them, by shard and position */
    size_t n_stored;
    struct mb_fused *fused; /* [n_fused] fused.h */
    size_t n_fused;
};

/* F32, F16 or BF16: weights that can be computed with and coded. */
static inline bool mb_tensor_is_float(const struct mb_tensor *tensor)
{
    return tensor->type <= MB_TENSOR_BF16;
}

/* The codec's name of a float tensor's type. */
static inline enum mb_dtype mb_tensor_dtype(const struct mb_tensor *tensor)
{
    assert(mb_tensor_is_float(tensor));
    return (enum mb_dtype)tensor->type;
}

/* Bytes of an element; 1 for a tensor without elements, or whose elements are smaller (F4, F6). */
static inline size_t mb_elem_nbytes(const struct mb_tensor *tensor)
{
    return tensor->nbytes <= tensor->n_elems ? 1 : (size_t)(tensor->nbytes / tensor->n_elems);
}

/* Whether each element has bytes of its own, which pieces of a tensor need. */
static inline bool mb_has_whole_bytes(const struct mb_tensor *tensor)
{
    return tensor->nbytes >= tensor->n_elems;
}

/* XXH3-64 of what a blob was coded from (reuse.h); false: the folder does not say. */
bool mb_blob_origin(const struct mb_checkpoint *ckpt, const struct mb_tensor *blob, uint64_t *origin);

#endif
