/*
 * codec.h - error-bounded coded weight matrices: encode, check, and multiply from the coded form.
 *
 * The form is "patched fixed width" (docs/format.md).  Every stored weight w' satisfies |w - w'| <= eps,
 * checked in double by the encoder for every weight.  Matrices are row-major [n_rows][n_cols];
 * y = W x has n_rows values.  Products are integer sums, so their results are the same bits on every
 * instruction set, for every split over threads, rows or tokens.
 *
 * Threads: all functions are re-entrant; coded matrices are read-only once open.
 */
#ifndef MOEBIUS_CODEC_H
#define MOEBIUS_CODEC_H

#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- element types and bounds */

enum mb_dtype { MB_F32 = 0, MB_F16 = 1, MB_BF16 = 2 }; /* values are those of the file format */

static inline size_t mb_dtype_nbytes(enum mb_dtype dtype)
{
    return dtype == MB_F32 ? 4 : 2;
}

/* Spellings: "30%" (of the mean absolute weight), "abs:0.001", "range:0.01" (of max - min), "0" (exact). */
enum mb_bound_kind { MB_BOUND_EXACT = 0, MB_BOUND_MEAN_ABS = 1, MB_BOUND_ABS = 2, MB_BOUND_RANGE = 3 };

struct mb_bound {
    enum mb_bound_kind kind;
    double value; /* fraction (0.3 for "30%"), weight units, or fraction of the range; 0 when exact */
};

/* MB_USAGE when 'text' is none of the spellings, not finite, or negative. */
MB_API enum mb_status mb_bound_parse(const char *text, struct mb_bound *bound, struct mb_error *err);

/* The shortest spelling that parses back to the same bound. 'text' holds at least 40 characters. */
MB_API void mb_bound_format(const struct mb_bound *bound, char text[40]);

/* What a bound is relative to, gathered over all matrices that share it (the three of an expert). */
struct mb_weight_stats {
    uint64_t n;
    double sum_abs; /* a sum in double, in the order of mb_weight_stats_add's calls and elements */
    double min, max;
};

#define MB_WEIGHT_STATS_INIT \
    {                        \
        0, 0.0, 0.0, 0.0     \
    }

/*
 * Adds n weights of type dtype (unaligned is fine).  MB_BAD_DATA when one is NaN or infinite; *bad_index
 * (may be NULL) is then its index.
 */
MB_API enum mb_status mb_weight_stats_add(struct mb_weight_stats *stats, enum mb_dtype dtype,
                                          const void *weights, size_t n, size_t *bad_index);

/* The largest allowed absolute error, in weight units; 0 for an exact bound or when the mean is 0. */
MB_API double mb_bound_eps(const struct mb_bound *bound, const struct mb_weight_stats *stats);

/* The largest float with step <= 2 eps (1 - 2^-16); 0 when that underflows (rows are then kept raw). */
MB_API float mb_step_of_eps(double eps);

/* ---------------------------------------------------------------- encoding */

enum {
    MB_COLS_MAX = 65535,     /* more columns would overflow the int32 sums of the product */
    MB_GROUP_WEIGHTS = 1024, /* a row group has about this many weights, or is one longer row */
    MB_SLACK_NBYTES = 128,   /* readable bytes that kernels need after a blob and after activations */
};

/* Rows in a row group: 1 when n_cols >= 1024, else ceil(1024 / n_cols). The last group may have fewer. */
static inline size_t mb_group_rows(size_t n_cols)
{
    return n_cols >= MB_GROUP_WEIGHTS ? 1 : (MB_GROUP_WEIGHTS + n_cols - 1) / n_cols;
}

/* How a matrix is coded: what the encoder needs beside the weights. */
struct mb_coding {
    enum mb_dtype dtype; /* of the weights, and of outliers and raw rows in the coded form */
    size_t n_cols;       /* 1 .. MB_COLS_MAX */
    double eps;          /* > 0, or 0: all weights of the matrix are 0 */
    float step;          /* mb_step_of_eps(eps) */
};

/* A coded row group's directory entry (docs/format.md, "kinds"). */
struct mb_group {
    uint8_t kind;
    uint16_t n_escapes;
    uint16_t n_outliers;
    uint32_t nbytes; /* of its record */
};

/* Enough bytes for the records of n_rows rows, whatever the weights: mb_encode_rows never needs more. */
MB_API size_t mb_encode_bound(enum mb_dtype dtype, size_t n_rows, size_t n_cols);

/*
 * Encode n_rows whole rows, the first of which begins a row group.  Writes the records of
 * ceil(n_rows / group rows) groups to 'out' (out_cap >= mb_encode_bound) and their entries to 'groups'.
 * MB_BAD_DATA: a weight is NaN or infinite; *bad_index is its index in 'weights'.  Same bytes on every
 * instruction set.  One call is one thread's work: callers split a matrix at group boundaries.
 */
MB_API enum mb_status mb_encode_rows(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                     uint8_t *out, size_t out_cap, size_t *out_nbytes,
                                     struct mb_group *groups, size_t *bad_index);

/* ---------------------------------------------------------------- blobs */

/* A matrix as a blob's header names it. 'name' is the part after the blob's own stem, e.g. "up_proj.weight".
 */
struct mb_blob_matrix {
    const char *name; /* not terminated */
    size_t name_nbytes;
    enum mb_dtype dtype;
    uint64_t n_rows;
    size_t n_cols;
    double eps;
    float step;
    uint64_t data_nbytes;      /* all records */
    uint64_t directory_nbytes; /* kinds, escape counts, outlier counts */
};

/* Bytes of the header of a blob with these names: a multiple of 8. 0 on overflow of the format's limits. */
MB_API size_t mb_blob_header_nbytes(const struct mb_blob_matrix *matrices, size_t n_matrices);

/*
 * Write the header that precedes the payload (for each matrix in turn: records, then directory).
 * 'payload_xxh3' is XXH3-64 (seed 0) of the whole payload.  'out' holds mb_blob_header_nbytes.
 */
MB_API void mb_blob_write_header(const struct mb_blob_matrix *matrices, size_t n_matrices,
                                 uint64_t payload_xxh3, uint8_t *out);

/* What the first bytes of a blob say: how much of it is what. */
struct mb_blob_frame {
    size_t n_matrices;
    size_t header_nbytes; /* the frame itself, an entry for each matrix, names */
    uint64_t nbytes;      /* of the blob, without the padding after it */
};

enum { MB_BLOB_FRAME_NBYTES = 40 };

/* Reads MB_BLOB_FRAME_NBYTES of a tensor of 'nbytes', or nothing where it has fewer. */
MB_API enum mb_status mb_blob_read_frame(const uint8_t *bytes, uint64_t nbytes, struct mb_blob_frame *frame,
                                         struct mb_error *err);

/*
 * The header bytes[0 .. frame->header_nbytes) without the payload: its checksum, names, shapes and sizes are
 * checked.  Fills infos[frame->n_matrices]; names point into 'bytes'.
 */
MB_API enum mb_status mb_blob_read_header(const uint8_t *bytes, const struct mb_blob_frame *frame,
                                          struct mb_blob_matrix *infos, struct mb_error *err);

/* Bytes of the directory of n groups; mb_directory_write writes exactly as many. */
MB_API uint64_t mb_directory_nbytes(const struct mb_group *groups, size_t n_groups);
MB_API void mb_directory_write(const struct mb_group *groups, size_t n_groups, uint8_t *out);

/* Rows of every tile of a matrix but the last: products that begin at a tile need not look for their row. */
MB_API size_t mb_tile_rows(size_t n_cols);

/* Where a tile (whole row groups, about 32 Ki weights, 16 rows or more) begins. */
struct mb_tile {
    uint64_t data_pos;      /* in the matrix's records */
    uint32_t first_outlier; /* index into outlier_counts of the tile's first flagged group */
};

/*
 * A coded matrix: a view of bytes that outlive it, read-only, for any number of threads.  Read dtype, shape,
 * eps and step; the other members are for the kernels and may change between versions.
 */
struct mb_coded_matrix {
    enum mb_dtype dtype;
    uint64_t n_rows;
    size_t n_cols;
    double eps;
    float step;
    size_t group_rows; /* rows in each group but the last */
    uint64_t n_groups;
    size_t tile_groups; /* groups in each tile but the last */
    uint64_t n_tiles;
    const uint8_t *kinds;          /* [n_groups] */
    const uint8_t *escape_counts;  /* [n_groups] uint16, unaligned */
    const uint8_t *outlier_counts; /* [flagged groups] uint16, unaligned */
    const uint8_t *data;           /* records of all groups */
    uint64_t data_nbytes;
    const struct mb_tile *tiles; /* [n_tiles] */
};

/*
 * The view of a matrix as mb_encode_rows and mb_directory_write have left it: info says its shape, bound and
 * bytes of records.  Nothing is checked: what comes from a file is opened as a blob.  The records and the
 * directory outlive the view, and MB_SLACK_NBYTES after each can be read.  So does 'memory', for the tiles:
 * mb_coded_view_nbytes bytes, 8-byte aligned.
 */
MB_API size_t mb_coded_view_nbytes(uint64_t n_rows, size_t n_cols);
MB_API struct mb_coded_matrix mb_coded_view(const struct mb_blob_matrix *info, const uint8_t *data,
                                            const uint8_t *directory, void *memory);

/* An open blob. It is valid as long as the bytes that it was opened from, which stay the caller's. */
struct mb_blob {
    size_t n_matrices;
    struct mb_blob_matrix *info;    /* [n_matrices] names point into the blob */
    struct mb_coded_matrix *matrix; /* [n_matrices] */
    uint64_t nbytes;                /* of the blob, without the padding after it */
    uint64_t tables_nbytes;         /* memory beside the blob's own bytes */
    void *owned;                    /* by mb_blob_close; NULL: the caller's (mb_blob_open_in) */
};

/*
 * Checks a blob completely (header, checksums, sizes, kinds, escape counts, outlier positions, finite values,
 * zero padding bits) and makes its views.  Never reads outside bytes[0 .. nbytes), whatever they are. Kernels
 * need MB_SLACK_NBYTES readable bytes after it.  The verdict is the same on every instruction set.
 * err->msg says what is wrong and at which byte of the blob.  After a failure *blob is empty.
 */
MB_API enum mb_status mb_blob_open(const uint8_t *bytes, uint64_t nbytes, struct mb_blob *blob,
                                   struct mb_error *err);

/*
 * The same without an allocation.  'memory': mb_blob_tables_nbytes of the blob's matrices (as
 * mb_blob_read_header gives them), 8-byte aligned, the caller's, valid as long as the blob.  MB_NO_SPACE: it
 * is too small.  mb_blob_close frees nothing then, and need not be called.
 */
MB_API uint64_t mb_blob_tables_nbytes(const struct mb_blob_matrix *infos, size_t n_matrices);
MB_API enum mb_status mb_blob_open_in(const uint8_t *bytes, uint64_t nbytes, void *memory,
                                      uint64_t memory_nbytes, struct mb_blob *blob, struct mb_error *err);
MB_API void mb_blob_close(struct mb_blob *blob);

/* ---------------------------------------------------------------- what is coded how */

/* Whether an encoded group keeps its weights as they were, because coding would not be smaller. */
MB_API bool mb_group_is_raw(const struct mb_group *group);

/* Counts over row groups of coded matrices. Zero it, then add rows and other counts in any order. */
enum { MB_N_SYMBOLS = 256 };
struct mb_coded_statistics {
    uint64_t n_weights;
    uint64_t n_groups, n_raw_groups;
    uint64_t n_escapes, n_outliers;
    uint64_t n_symbols[MB_N_SYMBOLS]; /* [q + 127]: weights of index q; the last: off the grid */
};

/*
 * Adds rows [row, row + n_rows) of a matrix: whole row groups.  'weights': the same rows as decode_rows gives
 * them.  An outlier that happens to lie on the grid counts as an index; the weights of raw groups count as
 * what they would have been coded as.
 */
MB_API void mb_coded_statistics_add(struct mb_coded_statistics *statistics, const struct mb_coded_matrix *w,
                                    uint64_t row, uint64_t n_rows, const float *weights);
MB_API void mb_coded_statistics_merge(struct mb_coded_statistics *to, const struct mb_coded_statistics *from);

/* Bits a weight that an ideal code of the symbols, each by itself, would take (order-0 entropy). */
MB_API double mb_coded_entropy_bits(const struct mb_coded_statistics *statistics);

/* ---------------------------------------------------------------- activations */

/*
 * A vector x as the integer product sees it: scale = max|x| / 32639, X = rint(x / scale) = 256 hi + lo.
 * All zero: scale 0.  A non-finite element: scale NaN, and every product with it is NaN.
 */
struct mb_activation {
    const int8_t *hi, *lo; /* [n_cols] followed by zeros to the next multiple of 128, 64-byte aligned */
    int64_t sum;           /* of all X */
    float scale;
};

/* Bytes of one plane (hi or lo) of n_cols values: rounded up to a multiple of 128. */
static inline size_t mb_activation_plane_nbytes(size_t n_cols)
{
    return (n_cols + 127) / 128 * 128;
}

/* ---------------------------------------------------------------- kernels */

/* Codes decoded with every kernel of a table are the indices q; offsets are an inner matter. */
struct mb_kernels {
    const char *isa; /* "scalar", "avx2", "avx512" */

    /* Fill planes 'hi' and 'lo' (mb_activation_plane_nbytes each, zero padded) from x[n] and describe them.
     */
    void (*activation)(const float *x, size_t n, int8_t *hi, int8_t *lo, struct mb_activation *out);

    /* y[0 .. n_rows) = rows [row, row + n_rows) of W times x. Any row range; whole groups are fastest. */
    void (*matvec)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                   const struct mb_activation *x, float *y);

    /*
     * The same for n_tokens vectors: y[t * y_stride + r]. Each row block is decoded once.
     * 'scratch': matmul_scratch_nbytes(w->n_cols) of this table, 64-byte aligned, of one thread at a time.
     */
    void (*matmul)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                   const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride, void *scratch);

    /*
     * y[0 .. n_cols) = x^T W over rows [row, row + n_rows): x has n_rows values (n_rows <= 65535).
     * 'scratch': transposed_scratch_nbytes(w->n_cols) of this table, 64-byte aligned, as above.
     */
    void (*matvec_transposed)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                              const struct mb_activation *x, float *y, void *scratch);

    /* Bytes of scratch memory for a matrix of n_cols columns. 0: none, NULL will do. */
    size_t (*matmul_scratch_nbytes)(size_t n_cols);
    size_t (*transposed_scratch_nbytes)(size_t n_cols);

    /* out[0 .. n_rows * n_cols) = the decoded weights w' of rows [row, row + n_rows). */
    void (*decode_rows)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows, float *out);

    /* Encoder of row groups; see mb_encode_rows. */
    enum mb_status (*encode_rows)(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                  uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_group *groups,
                                  size_t *bad_index);
};

/*
 * Prefetches the start of row's tile.  Call it before a product that does not continue where the last one
 * ended: hardware prefetch does not know these addresses yet.
 */
MB_API void mb_prefetch_rows(const struct mb_coded_matrix *w, uint64_t row);

/*
 * The best table for this CPU less what MOEBIUS_CPU takes away ("-avx512", "-avx2", comma separated).
 * Each fast table has proved itself against scalar on small hard rows before it is handed out.
 * mb_cpu_check reports an unknown feature name (MB_USAGE); mb_kernels() then ignores the variable.
 */
MB_API const struct mb_kernels *mb_kernels(void);
MB_API enum mb_status mb_cpu_check(struct mb_error *err);

/* A table by its isa; NULL when the CPU (less MOEBIUS_CPU) lacks it. "scalar" always exists. */
MB_API const struct mb_kernels *mb_kernels_by_isa(const char *isa);

#ifdef __cplusplus
}
#endif

#endif
