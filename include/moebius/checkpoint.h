/*
 * checkpoint.h - Hugging Face model folders, plain and coded: open, read, compress, verify, decompress.
 *
 * A folder holds config.json, tokenizer files and safetensors (one file, or shards with an index).  A coded
 * folder (docs/format.md) holds blobs in place of some matrices; each blob codes one matrix or the
 * matrices of one expert.  Everything read is checked before it is used.
 *
 * Threads: an open checkpoint is read-only; any thread may read from it.  Close it when no thread does.
 * Lifetime: every string, tensor and mapping that a checkpoint hands out belongs to it and lasts until
 * mb_checkpoint_close.
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
    MB_TENSOR_F8_E4M3 = 4, /* of no matrix: those are handed out as F32, times their scales */
    MB_TENSOR_OTHER = 5,
};

enum { MB_DIMS_MAX = 8 };

struct mb_tensor {
    const char *name;
    enum mb_tensor_type type;
    const char *type_name;       /* as in the file: "BF16" */
    size_t n_dims;               /* 0: a single value */
    uint64_t shape[MB_DIMS_MAX]; /* [n_dims]; a matrix is rows, columns */
    uint64_t n_elems;            /* the product of the shape */
    uint64_t nbytes;             /* n_elems times the size of an element */
    size_t shard;                /* number of its file, from 0 */
    uint64_t file_pos;           /* of its first value in that file */
    size_t number;               /* mb_checkpoint_tensor(ckpt, number) is this one */
};

struct mb_checkpoint;

/*
 * Whether 'path' looks like the folder of a model: config.json, and weights that can be read.  Reads nothing.
 * MB_BAD_DATA says what is there in their place, and what to do.  mb_checkpoint_open looks first.
 */
MB_API enum mb_status mb_checkpoint_look(const char *path, struct mb_error *err);

/*
 * Open a folder: index, headers, config.json.  Weights are not read.  The files stay open and mapped; they
 * must not be changed meanwhile.  After a failure there is nothing to close.  mb_checkpoint_close(NULL) does
 * nothing.
 */
MB_API enum mb_status mb_checkpoint_open(const char *path, struct mb_checkpoint **ckpt, struct mb_error *err);
MB_API void mb_checkpoint_close(struct mb_checkpoint *ckpt);

MB_API const char *mb_checkpoint_path(const struct mb_checkpoint *ckpt); /* as it was given */
MB_API bool mb_checkpoint_is_coded(const struct mb_checkpoint *ckpt);
MB_API const char *mb_checkpoint_config_text(const struct mb_checkpoint *ckpt); /* config.json, terminated */
MB_API uint64_t mb_checkpoint_file_nbytes(const struct mb_checkpoint *ckpt);    /* all safetensors files */

/* What was found in the folder and is not read, one line each, without their ends; "" when nothing. */
MB_API const char *mb_checkpoint_notes(const struct mb_checkpoint *ckpt);

/*
 * Tensors by the names that the model's family gives them, ordered by shard and position: i is 0 to
 * n_tensors - 1.  Mostly they are as stored (blobs are U8 tensors).  Others are pieces of stored tensors or
 * computed from them (an expert of a tensor that fuses all experts of a layer, an 8-bit matrix times its
 * scales).
 */
MB_API size_t mb_checkpoint_n_tensors(const struct mb_checkpoint *ckpt);
MB_API const struct mb_tensor *mb_checkpoint_tensor(const struct mb_checkpoint *ckpt, size_t i);
MB_API const struct mb_tensor *mb_checkpoint_find(const struct mb_checkpoint *ckpt,
                                                  const char *name); /* or NULL */
MB_API size_t mb_checkpoint_n_shards(const struct mb_checkpoint *ckpt);
MB_API const char *mb_checkpoint_shard_name(const struct mb_checkpoint *ckpt, size_t shard);

/* "PATH/model-00001-of-00002.safetensors", the file of a tensor: messages begin with it. */
MB_API const char *mb_tensor_path(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor);

/* Whether the bytes of a tensor lie in its file as they are, and can be mapped; always in coded folders. */
MB_API bool mb_tensor_is_mapped(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor);

/*
 * Bytes that a tensor takes in the files, with its scales, and the name of its type there ("F8_E4M3"): what
 * differs from nbytes and type_name where it is computed.  Of all tensors together: what the files hold
 * beside headers.
 */
MB_API uint64_t mb_tensor_stored_nbytes(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor);
MB_API const char *mb_tensor_stored_type(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor);

/*
 * The nbytes of such a tensor, mapped read-only, maybe unaligned.  MB_USAGE: it is computed.  Reading them
 * ends the program (SIGBUS) where the file was cut since it was opened: mb_checkpoint_read reports that.
 */
MB_API enum mb_status mb_checkpoint_map(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                        const void **bytes, struct mb_error *err);

/*
 * Read nbytes from byte 'pos' of a tensor on into memory of the caller.  MB_USAGE: they are not all
 * inside the tensor.  MB_IO, MB_BAD_DATA (the file has been cut): 'out' holds unspecified bytes.
 */
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
 * Whether a tensor is of the text model, by its name.  The others (multi-token prediction, towers for images
 * and sound) are used by nobody: mb_checkpoint_notes counts them.
 */
MB_API bool mb_tensor_is_text(const struct mb_checkpoint *ckpt, const char *tensor_name);

/*
 * Told by the name alone, as Hugging Face models name their tensors (DeepSeek, Qwen, Mixtral, Granite). Never
 * fails: what it does not know is MB_ROLE_OTHER.  Any thread.
 */
MB_API struct mb_tensor_role mb_role_of(const char *tensor_name);

/* Whether columns of the matrix may have exponents (codec.h): second matrices of MLPs, by the end of the
 * name. */
MB_API bool mb_may_have_exponents(const char *tensor_name);

/* ---------------------------------------------------------------- coded folders */

/* Whether a tensor is a coded blob: U8, one dimension, name ending in ".moebius", in a coded folder. */
MB_API bool mb_tensor_is_blob(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor);

/* "STEM.moebius" and a name inside the blob make "STEM.NAME": malloc'ed; NULL: out of memory. */
MB_API char *mb_blob_full_name(const struct mb_tensor *blob, const struct mb_blob_matrix *matrix);

/*
 * What a reader of matrices asks about each, 'name' being its full name.  MB_BAD_DATA: its columns have
 * exponents, and only the second matrices of MLPs may have some (mb_may_have_exponents).
 */
MB_API enum mb_status mb_blob_check_exponents(const struct mb_checkpoint *ckpt, const struct mb_tensor *blob,
                                              const struct mb_blob_matrix *matrix, const char *name,
                                              struct mb_error *err);

/*
 * XXH3-64 (seed 0) of an exact tensor's bytes, as the coded folder keeps it.  false: it keeps none, or what
 * it keeps is not a checksum.
 */
MB_API bool mb_exact_xxh3(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor, uint64_t *xxh3);

/*
 * The second certificate: how far the outputs of a matrix may be off over the tokens of a calibration text.
 * An error e of a row makes its output differ by e x, with the weight g (an expert's gate); of the square of
 * that the mean over the tokens is e H e^T / sum g^2.  Roots of it, in units of activations.
 */
struct mb_output_error {
    double rms, max;         /* of all rows: the root of the mean square, and the largest */
    uint64_t n_rows_clipped; /* rows in which a weight was kept within its bound at the cost of the output */
};

/*
 * What compress proved of a matrix, from its blob's file: no row exceeds 'max'.  'name' is the full one.
 * false: nothing is kept of it, or what is kept is not that.
 */
MB_API bool mb_output_error_of(const struct mb_checkpoint *ckpt, const struct mb_tensor *blob,
                               const char *name, struct mb_output_error *error);

/* ---------------------------------------------------------------- long work */

/*
 * For all functions of this section:
 * - They block until the work is done, on threads of their own.  Calls with different outputs may run at the
 *   same time on different threads.
 * - Paths, options and what options point to are borrowed for the time of the call.  Callbacks are called on
 *   the calling thread.
 * - 'options' may be NULL: all defaults.  Its 'size' is the sizeof of the caller's struct (MB_USAGE when it
 * is not), so that callers compiled with an older header keep working.
 * - n_threads is 1 to 256; 0: as many as CPUs and cgroup quotas allow.  It never changes a result.
 * - Progress is counted in bytes of the tensors that are read.
 * - *report is set to zero first; after a failure it holds what was counted until then.
 */

/* One rule: tensors whose name the pattern matches get the bound. */
struct mb_tensor_bound {
    const char *pattern; /* PCRE2, searched anywhere in the tensor's name */
    struct mb_bound bound;
};

/*
 * How exact each tensor is.  A later rule is stronger than those before it:
 * 1. Experts get 30 % of their mean absolute weight, other linear matrices 10 %, but the head and the
 *    embedding 5 %.  All else is kept exact.  With a rounder these are 2 rho times as wide (except the
 *    embedding's): the same steps.
 * 2. 'bound' for experts and 'dense_bound' for all other matrices, where they are given, in place of these.
 * 3. The plan file: a bound for each tensor that it names.
 * 4. 'tensor_bounds': of all patterns that match a name the last one wins.  MB_USAGE: one matches none.
 * What is not the text model (layers of multi-token prediction, towers for images and sound) is kept exact
 * unless rules 3 or 4 name it.
 */
/* What a rounder did with rows of a matrix. */
struct mb_rounded {
    uint64_t n_weights, n_clipped, n_rows_clipped;
    uint64_t n_rows_exact; /* with a weight that is stored as it is, though an index was wanted */
    double row_error2_sum, row_error2_max;
};

/*
 * Chooses indices in place of plain rounding; feedback.h makes one.  A matrix that it takes gets the step
 * mb_step_of_rho(eps, rho), and every weight the index that was wanted or the nearest within the bound.
 */
struct mb_rounder {
    void *context;
    double rho;            /* how many steps a bound is: 0.5 to MB_RHO_MAX */
    double damping;        /* this and the next are noted in config.json: */
    uint64_t moments_hash; /* others would choose other indices */

    /* Whether it takes the matrix of this name and shape. Any thread, as begin and round. */
    enum mb_status (*takes)(void *context, const char *tensor, size_t n_cols, bool *is_taken,
                            struct mb_error *err);

    /*
     * Exponents [n_cols] of the columns of one that it takes: what is coded, and what the other calls see, is
     * W_ij 2^e_j (codec.h).  NULL: there are none.  Any thread; some may be brought nearer to 0 afterwards,
     * where columns would not stay exact.
     */
    enum mb_status (*exponents)(void *context, const char *tensor, size_t n_cols, int8_t *exponents,
                                struct mb_error *err);

    /*
     * Prepares one that it takes; *matrix is given to the calls for it.  'coding' is as round's weights are,
     * 'exponents' what was made of the columns; NULL: nothing.
     */
    enum mb_status (*begin)(void *context, const char *tensor, uint64_t n_rows,
                            const struct mb_coding *coding, const int8_t *exponents, void **matrix,
                            struct mb_error *err);

    /*
     * Finite weights [n_rows][n_cols] of the coding's dtype, whole row groups: fills 'wanted' likewise, or
     * sets *is_plain for plain rounding.  *rounded begins as zeros.
     */
    enum mb_status (*round)(void *context, void *matrix, const void *weights, size_t n_rows, int8_t *wanted,
                            bool *is_plain, struct mb_rounded *rounded, struct mb_error *err);

    /*
     * Tells how rows of round were stored, unless they were plain: indices beyond +-reach[row] are not, these
     * weights are stored as they are; -1: the whole row is.  Corrects *rounded, which is what round left.
     */
    void (*settle)(void *context, void *matrix, const void *weights, size_t n_rows, const int8_t *wanted,
                   const int8_t *reach, struct mb_rounded *rounded);

    /*
     * Frees what begin made, in the folder's order, on the thread that called mb_compress.  'rounded': of all
     * its rows, added in their order; NULL: the matrix was not finished.  true: *error, which is kept in the
     * folder, holds for the matrix.
     */
    bool (*end)(void *context, void *matrix, const struct mb_rounded *rounded, struct mb_output_error *error);
};

/* A coded matrix as a dry run predicts it. */
struct mb_compress_matrix {
    const char *tensor; /* its name; valid during the call */
    struct mb_bound bound;
    double eps; /* the bound in weight units, by a sample of the weights */
    uint64_t n_weights;
    uint64_t nbytes; /* records and directory; the blob's header and padding come on top */
};
typedef void (*mb_compress_matrix_fn)(void *ctx, const struct mb_compress_matrix *matrix);

struct mb_compress_options {
    size_t size; /* sizeof(struct mb_compress_options) */
    bool has_bound, has_dense_bound;
    struct mb_bound bound;                       /* of routed and shared experts, if has_bound */
    struct mb_bound dense_bound;                 /* of all other matrices, if has_dense_bound */
    const struct mb_tensor_bound *tensor_bounds; /* [n_tensor_bounds]; NULL if there are none */
    size_t n_tensor_bounds;
    bool dry_run; /* predict the sizes from samples; write nothing */
    bool force;   /* replace a finished folder, or a partial one made with other options */
    int n_threads;
    mb_progress_fn progress; /* or NULL */
    void *progress_ctx;
    /*
     * Path of a plan (docs/plan.md), or NULL: a JSON file {"bounds": [{"tensor": NAME, "bound": "30%"},
     * {"pattern": REGEX, "bound": "10%"}, ...]}.  NAME is the whole name of a tensor, and stronger than
     * patterns (PCRE2, searched anywhere in the name); the bound is spelled as in mb_bound_parse, other
     * members are ignored.  MB_BAD_DATA, with line and entry: a tensor is named twice, two patterns give it
     * different bounds, or an entry is about no tensor of the model.  MB_USAGE: a tensor that is named cannot
     * be coded, and its bound is not "0".
     */
    const char *plan_path;
    bool dense; /* MB_BAD_DATA where the model has no routed experts, unless this is set */
    const struct mb_rounder *rounder; /* or NULL: every weight is rounded to the nearest level */
    mb_compress_matrix_fn each;       /* of a dry run, in the folder's order; or NULL */
    void *each_ctx;
};

/*
 * Weights far larger than all others of their matrix or expert: more than 4,096 times the median.  Reported
 * where they make a relative bound a quarter wider than the others alone would, or where the largest is more
 * than 65,536 times their mean: such a weight is damaged, or the others are lost within the bound.
 */
struct mb_extreme {
    char tensor[256]; /* that has the largest: the name, cut to fit */
    uint64_t row, col;
    double value, ratio;  /* the largest; how many times the others' mean absolute weight it is */
    uint64_t n;           /* such weights in the matrix or expert */
    double eps, eps_rest; /* the bound in force, and what the others alone would give, in weight units */
};
enum { MB_EXTREMES_MAX = 4 };
struct mb_extremes {
    uint64_t n;      /* matrices and experts that have some */
    size_t n_listed; /* of these, the largest ratio first */
    struct mb_extreme list[MB_EXTREMES_MAX];
};

/* Sums over all shards. Sizes are in bytes; all are predicted where dry_run is set. */
struct mb_compress_report {
    uint64_t n_weights;       /* in coded matrices */
    uint64_t n_weights_exact; /* in tensors kept exact */
    uint64_t in_nbytes;       /* of all tensors of the input, as its files store them */
    uint64_t out_nbytes;      /* of the output's safetensors files, headers and padding included */
    uint64_t coded_nbytes;    /* of blobs, without page padding */
    uint64_t padding_nbytes;  /* of the padding that follows blobs */
    uint64_t exact_nbytes;    /* of tensors kept exact */
    uint64_t expert_n_weights, expert_in_nbytes, expert_coded_nbytes; /* blobs of experts */
    uint64_t dense_n_weights, dense_in_nbytes, dense_coded_nbytes;    /* all other blobs */
    uint64_t n_outliers;             /* weights stored as they were, beside the others of their group */
    uint64_t n_raw_groups, n_groups; /* row groups stored as they were, and all */
    double seconds;                  /* of this call */
    size_t n_shards;                 /* files of the output */
    size_t n_shards_resumed;         /* of these, finished by an earlier call */
    struct mb_extremes extremes;     /* where dry_run is set, those that the samples hint at */
    char notes[1024];                /* the input's mb_checkpoint_notes, cut to fit */
    uint64_t n_blobs_reused;         /* taken from the folder that was replaced */
};

/*
 * Write OUT as a coded folder.  Work goes to OUT.partial, shard by shard; the finished folder is renamed.
 * The same call after a kill resumes.  With 'force' over a coded folder its blobs are taken, checked, where
 * bound, step, rounding and originals are the same: an edited plan codes what it changed.  MB_BAD_DATA with
 * tensor and position for NaN or infinity.
 */
MB_API enum mb_status mb_compress(const char *in_path, const char *out_path,
                                  const struct mb_compress_options *options,
                                  struct mb_compress_report *report, struct mb_error *err);

/* What is known about one coded matrix. */
struct mb_verify_tensor {
    const char *name; /* the original one; valid during the call of 'each' */
    enum mb_dtype dtype;
    uint64_t n_rows, n_cols;
    double eps;             /* the bound: largest allowed error, in weight units; of the coarsest column */
    double err_abs_max;     /* largest error found, in weight units; NaN without an original */
    uint64_t err_max_index; /* of the worst weight, by its bound: row * n_cols + column */
    double bits_per_weight; /* in the coded form: records, directory and exponents */
    double entropy_bits;    /* a weight, of an ideal code of the indices, outliers counted as one symbol */
    uint64_t n_outliers;
    uint64_t n_broken; /* weights over the bound */
    float step;        /* between levels; mb_step_of_eps(eps), or finer: then several are within the bound */
    double eps_min;    /* the bound of the finest column: eps, unless columns have exponents */
    double err_ratio_max; /* the largest error over the bound of its column; NaN without an original */
    bool has_output_error, is_measured;
    struct mb_output_error output_error; /* as compress left it, if has_output_error */
    /* Of these very weights, with a meter and the original, if is_measured: */
    double output_rms, output_max; /* as in mb_output_error */
    double output_relative;        /* output_rms over the root of the mean square of the outputs themselves */
};
typedef void (*mb_verify_tensor_fn)(void *ctx, const struct mb_verify_tensor *tensor);

/* Measures outputs over calibration tokens; calibrate.h makes one. */
struct mb_output_meter {
    void *context;

    /* Prepares a matrix by its name; *matrix NULL: nothing is known of its inputs. Any thread, as 'rows'. */
    enum mb_status (*begin)(void *context, const char *tensor, size_t n_cols, void **matrix,
                            struct mb_error *err);

    /* squares[n_rows]: e H e^T / sum g^2 of each row e of rows[n_rows][n_cols]. */
    enum mb_status (*rows)(void *context, const void *matrix, const double *rows, size_t n_rows,
                           double *squares, struct mb_error *err);
    void (*end)(void *context, void *matrix);
};

struct mb_verify_options {
    size_t size; /* sizeof(struct mb_verify_options) */
    int n_threads;
    mb_verify_tensor_fn each; /* called once for each coded matrix, in the folder's order; or NULL */
    void *each_ctx;
    mb_progress_fn progress; /* or NULL */
    void *progress_ctx;
    const struct mb_output_meter *meter; /* or NULL; used with an original */
};

struct mb_verify_report {
    uint64_t n_blobs, n_exact; /* blobs and exact tensors that were checked */
    uint64_t n_files;       /* whose checksums config.json keeps; 0: it has none, an early program wrote it */
    uint64_t n_weights;     /* compared with the original */
    uint64_t n_broken;      /* weights over their bound, and exact tensors that differ */
    double worst_ratio;     /* largest error / eps over all coded weights */
    char worst_tensor[256]; /* where that was: the name, cut to fit; "" where no weight has an error */
    uint64_t n_output_errors;        /* matrices of which the folder keeps one */
    uint64_t n_measured;             /* matrices that the meter knew */
    uint64_t n_output_errors_broken; /* of these, with a row or a mean beyond what the folder says */
};

/*
 * Check every checksum and structure of CODED, config.json and files beside the weights included; with
 * 'original_path' (may be NULL) prove the bound for every weight and equality for every exact tensor.  MB_OK
 * even when a bound is broken: look at n_broken.
 */
MB_API enum mb_status mb_verify(const char *coded_path, const char *original_path,
                                const struct mb_verify_options *options, struct mb_verify_report *report,
                                struct mb_error *err);

struct mb_decompress_options {
    size_t size;         /* sizeof(struct mb_decompress_options) */
    enum mb_dtype dtype; /* of the matrices that were coded; exact tensors keep their type */
    bool force;          /* replace a finished folder, or a partial one made with other options */
    int n_threads;
    mb_progress_fn progress; /* or NULL */
    void *progress_ctx;
};

struct mb_decompress_report {
    uint64_t out_nbytes;        /* of the output's safetensors files */
    uint64_t n_weights;         /* that were decoded */
    double err_enlarged_ratio;  /* largest |rounded - decoded| / eps: what rounding adds to the bound */
    uint64_t n_weights_changed; /* by rounding to the output type */
};

/* Write OUT as an ordinary checkpoint, by way of OUT.partial as mb_compress does. */
MB_API enum mb_status mb_decompress(const char *coded_path, const char *out_path,
                                    const struct mb_decompress_options *options,
                                    struct mb_decompress_report *report, struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
