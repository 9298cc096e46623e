/*
 * weights.h - the weights of a folder, by their original names: an index of all of them, and a store of their
 * bytes.
 *
 * A *weight* is a matrix or a vector, stored as it was or inside a coded blob: who uses it need not know. The
 * index knows names, shapes and places and holds no weights.  The store hands out matrices that are ready to
 * multiply: those that are always needed for as long as it is open, experts for as long as they are acquired.
 * Where all fit in memory they are loaded once, and acquiring costs nothing.  Where they do not, the experts
 * of a coded folder stay on disk, and memory holds as many of them as there is room for (docs/streaming.md).
 * Which of the two it is changes no result.
 *
 * Lifetimes: an index uses its checkpoint and a store its index until they are closed, so close the store
 * first, then the index, then the checkpoint.
 *
 * Threads: an index is read-only.  mb_store_acquire, _release and _prefetch may be called by any number of
 * threads at a time; a store's other functions by one thread while no other is in any function of that store.
 */
#ifndef MOEBIUS_WEIGHTS_H
#define MOEBIUS_WEIGHTS_H

#include <moebius/checkpoint.h>
#include <moebius/codec.h>
#include <moebius/status.h>
#include <moebius/timeline.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- index */

/* Where a weight is and what it looks like. Belongs to the index. */
struct mb_weight_info {
    const char *name;               /* "model.layers.1.mlp.experts.0.up_proj.weight" */
    const struct mb_tensor *tensor; /* the stored one: the weight itself, or the blob that it is in */
    bool is_coded;                  /* in a blob */
    size_t blob_matrix;             /* is_coded: its number in the blob */
    bool is_matrix; /* of two dimensions and F32, F16 or BF16: it has a shape and can be multiplied */
    uint64_t n_rows, n_cols;  /* is_matrix */
    enum mb_tensor_type type; /* of the original values */
    uint64_t n_elems;
    uint64_t product_nbytes; /* that a product with it reads, as it is stored */
    double eps;              /* is_coded: the bound that holds for every value, as the blob's header has it */
    bool has_exponents; /* is_coded: the bound is that of what is coded, each column has its own (codec.h) */
};

/* Of a coded matrix, as it is stored, with its directory. */
static inline double mb_bits_per_weight(const struct mb_weight_info *weight)
{
    return 8 * (double)weight->product_nbytes / (double)weight->n_elems;
}

struct mb_index;

/* Reads names and shapes: headers of blobs, no weights.  MB_BAD_DATA names file, tensor and position. */
MB_API enum mb_status mb_index_open(const struct mb_checkpoint *ckpt, struct mb_index **index,
                                    struct mb_error *err);
MB_API void mb_index_close(struct mb_index *index); /* NULL is fine */

/* By its original name (blobs have none here); NULL: there is no such weight. */
MB_API const struct mb_weight_info *mb_index_find(const struct mb_index *index, const char *name);

/*
 * The same for a matrix whose shape is known.  MB_BAD_DATA: there is none of that name, or it is no matrix of
 * n_rows x n_cols; MB_UNSUPPORTED: its values are 8-bit floats.
 */
MB_API enum mb_status mb_index_find_matrix(const struct mb_index *index, const char *name, uint64_t n_rows,
                                           uint64_t n_cols, const struct mb_weight_info **weight,
                                           struct mb_error *err);

/* ---------------------------------------------------------------- store */

/* A matrix in memory, coded or plain. */
struct mb_matrix {
    bool is_coded;
    uint64_t n_rows;
    size_t n_cols;
    struct mb_coded_matrix coded; /* is_coded */
    enum mb_dtype dtype;          /* plain: of the values */
    const void *dense;            /* plain: [n_rows][n_cols], maybe unaligned */
    double bits_per_weight;       /* coded: in the form of files; 0: that of coded */
};

/*
 * How coded matrices are kept in memory. Results are the same.  A faster form exists for some instruction
 * sets (struct mb_resident_form); elsewhere all values mean STORED.
 */
enum mb_memory_form {
    MB_MEMORY_FORM_AUTO = 0,   /* what this machine multiplies fastest, of what its memory has room for */
    MB_MEMORY_FORM_STORED = 1, /* as they are in the file: fewest bytes */
    MB_MEMORY_FORM_COMPACT =
        2,                   /* the faster form, about 5 % larger, and 17 % where rows have < 1024 columns */
    MB_MEMORY_FORM_FAST = 3, /* the same with a bit more a weight, about 17 % larger */
};

/* Why coded matrices are in their form. */
enum mb_memory_reason {
    MB_MEMORY_REASON_ONLY = 0,   /* the instruction set has no other */
    MB_MEMORY_REASON_WANTED = 1, /* by the options */
    MB_MEMORY_REASON_SMALL = 2,  /* the model is so small that memory does not limit it */
    MB_MEMORY_REASON_ROOM = 3,   /* memory has no room for a larger form */
    MB_MEMORY_REASON_SPEED = 4,  /* by the measured speed of memory */
};

struct mb_link_options; /* offload.h */

/* Zeroed means defaults. */
struct mb_store_options {
    size_t size;   /* sizeof(struct mb_store_options) */
    int n_threads; /* that read and check; 0: as many as CPUs and cgroup quotas allow */
    enum mb_memory_form memory_form;
    /*
     * What the process may use: for weights and their tables, less other_nbytes that it needs for all else.
     * 0: there is no limit.  A coded folder that does not fit is streamed: what is always needed is in
     * memory, experts come from disk.
     */
    uint64_t memory_nbytes, other_nbytes;
    const char *expert_policy; /* of what leaves memory (offload.h); NULL: the default. Changes no result */
    /* Experts come no earlier than over this link, where they are streamed; NULL: as the disk gives them. Has
     * to stay until mb_store_ready has returned. Changes no result. */
    const struct mb_link_options *expert_link;
    size_t n_experts_min;        /* that can be acquired together, at least, where they are streamed; 0: 1 */
    struct mb_timeline timeline; /* sees reads, checks and waits where experts are streamed */
    /*
     * Uses of each expert per token, 0 to 1, in the order of layers with experts, as many for each as the one
     * with most has; NULL: not known.  Where experts are streamed, the policy begins with them, and those
     * with most uses are in memory from the beginning. Has to stay until mb_store_ready has returned. Changes
     * no result.
     */
    const double *expert_usage;
    size_t n_expert_usage;
};

/* What the stored weights of an index take in memory. UINT64_MAX: too much to count. */
struct mb_index_totals {
    uint64_t kept_nbytes;       /* what every token needs, with tables */
    uint64_t experts_nbytes;    /* routed experts, with tables */
    uint64_t expert_nbytes_max; /* of the largest tensor of an expert: in coded folders mostly all of it */
};
MB_API struct mb_index_totals mb_index_total(const struct mb_index *index);

/* How streamed experts are read when the store is ready; mb_store_traffic says if that changes. */
enum mb_store_reads {
    MB_READS_NONE = 0, /* nothing is streamed */
    MB_READS_IO_URING = 1,
    MB_READS_THREADS = 2, /* by pread: io_uring is missing or forbidden */
};

struct mb_store_memory {
    uint64_t blob_nbytes;     /* anonymous: coded blobs, padded */
    uint64_t table_nbytes;    /* anonymous: tables of blobs, and of the index */
    uint64_t exact_nbytes;    /* anonymous: exact tensors of coded folders, computed ones of plain ones */
    uint64_t mapped_nbytes;   /* file: tensors of plain checkpoints */
    enum mb_memory_form form; /* of coded matrices, never AUTO where there are any */
    enum mb_memory_reason form_reason;
    double thread_nbytes_per_s; /* that each thread read when all did; 0: not measured */
    enum mb_store_reads reads;
    const char *reads_reason; /* MB_READS_THREADS: why, in a few words; else "" */
    uint64_t expert_nbytes;   /* streamed: experts of the model, as they are stored */
    uint64_t held_nbytes; /* streamed: of those, what memory has room for: the mean of each size of slots */
    uint64_t pool_nbytes; /* streamed: memory for experts, with tables: part of blob_ and table_nbytes */
    size_t n_experts, n_experts_held; /* streamed: of the model; that memory has room for */
};

/* What streaming has cost so far. All zero where nothing is streamed. */
struct mb_store_traffic {
    uint64_t n_acquired, n_misses;   /* experts; those of them that had to be read */
    uint64_t n_read, read_nbytes;    /* experts read, with those that were not needed in the end */
    uint64_t n_hinted, n_hints_used; /* read for mb_store_prefetch alone; those of them that were acquired */
    uint64_t waited_ns;              /* somebody waited in mb_store_acquire with nothing to multiply */
    uint64_t busy_ns;                /* some read was under way */
    uint64_t checked_ns;             /* of all threads together: checks of what was read */
    bool has_left_io_uring; /* the kernel took no reads any more: threads have read by pread since then */
};

struct mb_store;

/*
 * Reads blobs and exact tensors of a coded folder into memory (with O_DIRECT where that works) and checks
 * each once.  Tensors of plain checkpoints are mapped; those that are computed (mb_tensor_is_mapped) are read
 * into memory when a matrix or vector is made of them.  options: NULL means defaults.  MB_BAD_DATA names
 * file, tensor and position.
 */
MB_API enum mb_status mb_store_open(const struct mb_index *index, const struct mb_store_options *options,
                                    struct mb_store **store, struct mb_error *err);
MB_API void mb_store_close(struct mb_store *store); /* NULL is fine */
MB_API struct mb_store_memory mb_store_memory(const struct mb_store *store);
MB_API struct mb_store_traffic mb_store_traffic(const struct mb_store *store); /* any thread */

/* Bytes that a product with a matrix reads in this store, which may keep it in another form. 0: no such
 * weight. */
MB_API uint64_t mb_store_product_nbytes(const struct mb_store *store, const char *name);

/*
 * A matrix that is always needed.  *matrix stays where it is until the store is closed; mb_store_overlay
 * changes what it says.  Fails as mb_index_find_matrix does.
 */
MB_API enum mb_status mb_store_matrix(struct mb_store *store, const char *name, uint64_t n_rows,
                                      uint64_t n_cols, const struct mb_matrix **matrix, struct mb_error *err);

/* Exact values converted to float (norms, biases). MB_BAD_DATA unless there are n of them, of any shape. */
MB_API enum mb_status mb_store_vector(struct mb_store *store, const char *name, uint64_t n, float *out,
                                      struct mb_error *err);

/*
 * Names of the weights that nobody has taken or bound so far, in their order: the first n_max of them are
 * stored in 'names' and belong to the index.  Returns how many there are.
 */
MB_API size_t mb_store_unused(const struct mb_store *store, const char **names, size_t n_max);

/* ---------------------------------------------------------------- experts */

/* Most experts that can be acquired at once; where they are streamed memory may have room for fewer. */
enum { MB_STORE_WAVE = 64 };

enum { MB_EXPERT_PARTS_MAX = 16 };

struct mb_expert_part {
    const char *name;
    uint64_t n_rows, n_cols;
};

/*
 * Says which matrices an expert is made of, before it is acquired for the first time.  Names need
 * not outlive the call.  Fails as mb_index_find_matrix does; MB_USAGE: it is bound already, or has no parts
 * or more than MB_EXPERT_PARTS_MAX.
 */
MB_API enum mb_status mb_store_bind_expert(struct mb_store *store, size_t layer, size_t expert,
                                           const struct mb_expert_part *parts, size_t n_parts,
                                           struct mb_error *err);

/*
 * All experts are bound: a store that streams takes the memory that is left for them.  Before it nothing can
 * be acquired, and nothing is bound after it.  MB_NO_MEMORY: the limit is too low; the message says the
 * lowest one that works.
 */
MB_API enum mb_status mb_store_ready(struct mb_store *store, struct mb_error *err);

/* An expert in memory. */
struct mb_expert_view {
    const struct mb_matrix *const *matrices; /* in the order of its parts */
};

/*
 * Hands out experts[0 .. n) of a layer as out[0 .. n), n <= MB_STORE_WAVE; they may be multiplied until they
 * are released, which each has to be as often as it was acquired.  Waits until all are in memory.  After a
 * failure none is acquired; MB_USAGE: one was never bound, or n is too large.  Where experts are streamed:
 * MB_NO_MEMORY: memory has no room for so many at once; MB_IO, MB_BAD_DATA: one cannot be read, or the file
 * has changed; the message names file, tensor and position.  None of these functions allocates.
 */
MB_API enum mb_status mb_store_acquire(struct mb_store *store, size_t layer, const uint32_t *experts,
                                       size_t n, struct mb_expert_view *out, struct mb_error *err);
MB_API void mb_store_release(struct mb_store *store, size_t layer, const uint32_t *experts, size_t n);

/* Whether experts are wanted again soon. */
enum mb_store_use {
    MB_STORE_KEEP = 0, /* generation: they stay in memory as long as they are worth it */
    MB_STORE_ONCE = 1, /* a prompt, which goes through nearly all: they do not push out those that stay */
};

/*
 * The same for as many of experts[0 .. n) as are in memory, at least one and at most n_max <= MB_STORE_WAVE:
 * experts is reordered so that these come first.  Reading of the others begins.  So what is there can be
 * multiplied while the rest is read; call again with the rest.  Waits only where none is in memory.  n is at
 * least 1, and no expert is there twice.
 */
MB_API enum mb_status mb_store_acquire_some(struct mb_store *store, size_t layer, uint32_t *experts, size_t n,
                                            size_t n_max, enum mb_store_use use, struct mb_expert_view *out,
                                            size_t *n_acquired, struct mb_error *err);

/*
 * Begins to read those of experts[0 .. n) that are not in memory, and does not wait: for who has something to
 * do before it calls mb_store_acquire_some with the same experts.  Returns how many are in memory now.  Any
 * n; no expert is there twice.
 */
MB_API size_t mb_store_begin(struct mb_store *store, size_t layer, uint32_t *experts, size_t n,
                             enum mb_store_use use);

/* Where a hint comes from. Each kind is judged by itself: one that is mostly wrong is not taken for a while.
 */
enum mb_store_hint {
    MB_HINT_NEAR = 0, /* from the layer before */
    MB_HINT_FAR = 1,  /* from where tokens enter the model */
};
enum { MB_N_STORE_HINTS = 2 };

/*
 * A hint that these will be acquired soon, by the next call for their layer: does not wait, and changes no
 * result.  They are read in their order, after all that somebody waits for, and those whose reading has not
 * begun when another layer is acquired, or other hints are given, are forgotten. Any n.
 */
MB_API void mb_store_prefetch(struct mb_store *store, size_t layer, const uint32_t *experts, size_t n,
                              enum mb_store_hint hint);

/* ---------------------------------------------------------------- changed weights */

/*
 * Lays a changed matrix over the one of that name, in place of what lay there before; NULL takes it off, and
 * the original is back, bit for bit.  Its shape is the original's; coded or plain, of any dtype.  The bytes
 * that it refers to stay the caller's and have to last until it is taken off or the store is closed; *changed
 * is copied.  MB_USAGE: another shape, exponents of columns where the matrix may have none
 * (mb_may_have_exponents), or an expert is acquired; MB_BAD_DATA: no such matrix.
 */
MB_API enum mb_status mb_store_overlay(struct mb_store *store, const char *name,
                                       const struct mb_matrix *changed, struct mb_error *err);

/*
 * The model's own matrix of that name, whatever lies over it: a view that lasts until the store is closed.
 * MB_BAD_DATA: no such matrix.  MB_UNSUPPORTED: it belongs to an expert that is streamed.
 */
MB_API enum mb_status mb_store_original(const struct mb_store *store, const char *name,
                                        struct mb_matrix *matrix, struct mb_error *err);

/* out[0 .. n_rows * n_cols) = rows [row, row + n_rows) of a matrix as float, decoded where it is coded. */
MB_API void mb_matrix_rows(const struct mb_matrix *matrix, uint64_t row, uint64_t n_rows, float *out);

#ifdef __cplusplus
}
#endif

#endif
