/*
 * checkpoint.h - Hugging Face model folders, plain and coded: open, read, compress, verify, decompress.
 *
 * A folder holds config.json, tokenizer files and safetensors (one file, or shards with an index).  A coded
 * folder (docs/format.md) holds blobs in place of some matrices; each blob stands for one matrix or
 * for the matrices of one expert.  Everything read is checked before it is used.
 *
 * Threads: an open checkpoint is read-only; any thread may read from it.
 */
#ifndef MOEBIUS_CHECKPOINT_H
#define MOEBIUS_CHECKPOINT_H

#include <moebius/codec.h>
#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Element types of safetensors that Moebius meets. MB_TENSOR_OTHER: kept and copied, never computed with. */
enum mb_tensor_type {
    MB_TENSOR_F32 = 0, /* the first three equal mb_dtype */
    MB_TENSOR_F16 = 1,
    MB_TENSOR_BF16 = 2,
    MB_TENSOR_U8 = 3,
    MB_TENSOR_F8_E4M3 = 4, /* refused by name for linear matrices */
    MB_TENSOR_OTHER = 5,
};

enum { MB_DIMS_MAX = 8 };

struct mb_tensor {
    const char *name;
    enum mb_tensor_type type;
    const char *type_name; /* as in the file: "BF16" */
    size_t n_dims;
    uint64_t shape[MB_DIMS_MAX];
    uint64_t n_elems;
    uint64_t nbytes;
    size_t shard;      /* number of its file */
    uint64_t file_pos; /* of its first byte in that file */
    size_t number;     /* mb_checkpoint_tensor(ckpt, number) is this one */
};

struct mb_checkpoint;

/* Open a folder: index, headers, config.json. Weights are not read. */
MB_API enum mb_status mb_checkpoint_open(const char *path, struct mb_checkpoint **ckpt, struct mb_error *err);
MB_API void mb_checkpoint_close(struct mb_checkpoint *ckpt);

MB_API const char *mb_checkpoint_path(const struct mb_checkpoint *ckpt);
MB_API bool mb_checkpoint_is_coded(const struct mb_checkpoint *ckpt);
MB_API const char *mb_checkpoint_config_text(const struct mb_checkpoint *ckpt); /* config.json, terminated */
MB_API uint64_t mb_checkpoint_file_nbytes(const struct mb_checkpoint *ckpt);    /* all safetensors files */

/* Tensors as stored (blobs are U8 tensors), ordered by shard and position. */
MB_API size_t mb_checkpoint_n_tensors(const struct mb_checkpoint *ckpt);
MB_API const struct mb_tensor *mb_checkpoint_tensor(const struct mb_checkpoint *ckpt, size_t i);
MB_API const struct mb_tensor *mb_checkpoint_find(const struct mb_checkpoint *ckpt,
                                                  const char *name); /* or NULL */
MB_API size_t mb_checkpoint_n_shards(const struct mb_checkpoint *ckpt);
MB_API const char *mb_checkpoint_shard_name(const struct mb_checkpoint *ckpt, size_t shard);

/* "PATH/model-00001-of-00002.safetensors", the file of a tensor: messages begin with it. */
MB_API const char *mb_tensor_path(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor);

/* The bytes of a stored tensor, mapped read-only for as long as the checkpoint is open. */
MB_API enum mb_status mb_checkpoint_map(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                        const void **bytes, struct mb_error *err);

/* Read nbytes at 'pos' of a stored tensor into memory of the caller. */
MB_API enum mb_status mb_checkpoint_read(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                         uint64_t pos, void *out, uint64_t nbytes, struct mb_error *err);

/* ---------------------------------------------------------------- what a tensor is */

/* Values never change. */
enum mb_role {
    MB_ROLE_EXPERT = 0,        /* of a routed expert */
    MB_ROLE_SHARED_EXPERT = 1, /* of an expert that every token passes */
    MB_ROLE_LINEAR = 2,        /* other linear matrices: attention, dense layers, lm_head */
    MB_ROLE_EMBEDDING = 3,
    MB_ROLE_ROUTER = 4, /* with its biases, and gates of shared experts */
    MB_ROLE_OTHER = 5,  /* norms, biases, whatever else */
};
enum { MB_N_ROLES = 6 };

/* The matrices that an expert's blob holds, in their order. */
enum mb_projection {
    MB_PROJECTION_NONE = 0,
    MB_PROJECTION_GATE = 1,
    MB_PROJECTION_UP = 2,
    MB_PROJECTION_DOWN = 3,
};

struct mb_tensor_role {
    enum mb_role role;
    int layer;                     /* from 0; -1: in none */
    int expert;                    /* from 0, in its layer; -1: no routed expert */
    enum mb_projection projection; /* NONE: no matrix of an expert */
};

/*
 * Told by the name alone, as Hugging Face models name their tensors (DeepSeek, Qwen, Mixtral).  Never fails:
 * what it does not know is MB_ROLE_OTHER.  Any thread.
 */
MB_API struct mb_tensor_role mb_role_of(const char *tensor_name);

/* ---------------------------------------------------------------- coded folders */

/* Whether a tensor is a coded blob: U8, one dimension, name ending in ".moebius", in a coded folder. */
MB_API bool mb_tensor_is_blob(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor);

/* "STEM.moebius" and a name inside the blob make "STEM.NAME": malloc'ed; NULL: out of memory. */
MB_API char *mb_blob_full_name(const struct mb_tensor *blob, const struct mb_blob_matrix *matrix);

/*
 * XXH3-64 (seed 0) of an exact tensor's bytes, as the coded folder keeps it.  false: it keeps none, or what
 * it keeps is not a checksum.
 */
MB_API bool mb_exact_xxh3(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor, uint64_t *xxh3);

/* ---------------------------------------------------------------- long work */

struct mb_tensor_bound {
    const char *pattern; /* PCRE2, searched in the tensor's name (llama.cpp's --tensor-type) */
    struct mb_bound bound;
};

/* Zeroed means: 30 % for experts, 5 % for other linear matrices, all online CPUs. */
struct mb_compress_options {
    size_t size; /* sizeof(struct mb_compress_options) */
    bool has_bound, has_dense_bound;
    struct mb_bound bound;                       /* routed and shared experts */
    struct mb_bound dense_bound;                 /* other linear matrices */
    const struct mb_tensor_bound *tensor_bounds; /* the last match wins */
    size_t n_tensor_bounds;
    bool dry_run; /* sample, predict, write nothing */
    bool force;   /* replace a finished folder, or a partial one made with other options */
    int n_threads;
    mb_progress_fn progress;
    void *progress_ctx;
    const char *plan_path; /* file of bounds by tensor name, or NULL */
};

struct mb_compress_report {
    uint64_t n_weights;       /* in coded matrices */
    uint64_t n_weights_exact; /* in tensors kept exact */
    uint64_t in_nbytes;       /* tensor bytes of the input */
    uint64_t out_nbytes;      /* all files of the output folder's weights; predicted when dry_run */
    uint64_t coded_nbytes;    /* blobs without page padding */
    uint64_t padding_nbytes;  /* page padding of blobs */
    uint64_t exact_nbytes;
    uint64_t expert_n_weights, expert_in_nbytes, expert_coded_nbytes;
    uint64_t dense_n_weights, dense_in_nbytes, dense_coded_nbytes;
    uint64_t n_outliers, n_raw_groups, n_groups;
    double seconds;
    size_t n_shards, n_shards_resumed;
};

/*
 * Write OUT as a coded folder.  Work goes to OUT.partial, shard by shard; the finished folder is renamed.
 * The same call after a kill resumes.  MB_BAD_DATA with tensor and position for NaN or infinity.
 */
MB_API enum mb_status mb_compress(const char *in_path, const char *out_path,
                                  const struct mb_compress_options *options,
                                  struct mb_compress_report *report, struct mb_error *err);

struct mb_verify_tensor {
    const char *name;
    enum mb_dtype dtype;
    uint64_t n_rows, n_cols;
    double eps;
    double err_abs_max;     /* against the original; NaN without one */
    uint64_t err_max_index; /* element index of the worst weight */
    double bits_per_weight; /* records and directory */
    double entropy_bits;    /* order-0 entropy of the indices q, outliers counted as one symbol */
    uint64_t n_outliers;
    uint64_t n_broken; /* weights over the bound */
};

struct mb_verify_report {
    uint64_t n_blobs, n_exact; /* checked */
    uint64_t n_files;   /* whose checksums config.json keeps; 0: it has none, an early program wrote it */
    uint64_t n_weights; /* compared with the original */
    uint64_t n_broken;  /* weights over their bound, and exact tensors that differ */
    double worst_ratio; /* max of err / eps over coded weights */
    char worst_tensor[256];
};

/*
 * Check every checksum and structure of CODED, config.json and files beside the weights included; with
 * 'original_path' (may be NULL) prove the bound for every weight and equality for every exact tensor.  'each'
 * (may be NULL) is called once per coded matrix, in order.  MB_OK even when the bound is broken: look at
 * n_broken.
 */
MB_API enum mb_status mb_verify(const char *coded_path, const char *original_path, int n_threads,
                                void (*each)(void *ctx, const struct mb_verify_tensor *tensor),
                                void *each_ctx, mb_progress_fn progress, void *progress_ctx,
                                struct mb_verify_report *report, struct mb_error *err);

struct mb_decompress_report {
    uint64_t out_nbytes;
    uint64_t n_weights;
    double err_enlarged_ratio; /* max over weights of |rounded - w'| / eps: what rounding adds to the bound */
    uint64_t n_weights_changed; /* by rounding to the output type */
};

/* Write an ordinary checkpoint. dtype: of the matrices that were coded; exact tensors keep their type. */
MB_API enum mb_status mb_decompress(const char *coded_path, const char *out_path, enum mb_dtype dtype,
                                    bool force, int n_threads, mb_progress_fn progress, void *progress_ctx,
                                    struct mb_decompress_report *report, struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
