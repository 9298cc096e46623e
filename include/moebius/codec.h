/*
 * codec.h - error-bounded coded weight matrices: encode, check, and multiply from the coded form.
 *
 * Every stored weight w' satisfies |w - w'| <= eps, checked in double by the encoder for every weight.
 * Matrices are row-major [n_rows][n_cols]; y = W x has n_rows values.  Products are integer sums, so their
 * results are the same bits on every instruction set, for every split over threads, rows or tokens.
 *
 * To multiply from a coded folder: read a tensor (checkpoint.h), mb_blob_open, then mb_kernels()->activation
 * and ->matvec; examples/multiply.c is a page of it.  The sections "encoding" and "writing blobs" are for
 * programs that write blobs themselves; mb_compress (checkpoint.h) writes whole folders.
 *
 * Threads: the library keeps no state here but the choice of kernels, which any thread may trigger.  Every
 * function may run in any number of threads at once, as long as no two write the same memory.  What has been
 * opened is read-only: all threads may share it.
 * Memory: the caller owns every buffer.  Only mb_blob_open allocates, and mb_blob_close frees that.  Pointers
 * in a struct that a function fills point into what the caller gave it.
 * Units: eps and step are in units of the weights; sizes named nbytes or cap are bytes, all others elements.
 * Structs that the library fills may get members at the end in a later version with another soname.  Only the
 * library makes a struct mb_kernels.
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

/* Bytes of an element. */
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

/*
 * Reads a spelling, in any locale.  MB_USAGE: 'text' is none, not finite, negative, or more than 1,000,000 %;
 * *bound is then unspecified, and err (may be NULL) quotes the text.
 */
MB_API enum mb_status mb_bound_parse(const char *text, struct mb_bound *bound, struct mb_error *err);

/* Writes the shortest spelling that parses back to the same bound, terminated, in any locale. */
MB_API void mb_bound_format(const struct mb_bound *bound, char text[40]);

/* What a bound is relative to, gathered over all matrices that share it (the three of an expert). */
struct mb_weight_stats {
    uint64_t n;      /* weights */
    double sum_abs;  /* of their absolute values, in the order of mb_weight_stats_add's calls and elements */
    double min, max; /* 0 while n is 0 */
};

#define MB_WEIGHT_STATS_INIT \
    {                        \
        0, 0.0, 0.0, 0.0     \
    }

/*
 * Adds n weights of type dtype (any alignment) to stats, which begins as MB_WEIGHT_STATS_INIT.  MB_BAD_DATA:
 * one is NaN or infinite; *bad_index (may be NULL) is then its index in 'weights', and *stats is unchanged.
 */
MB_API enum mb_status mb_weight_stats_add(struct mb_weight_stats *stats, enum mb_dtype dtype,
                                          const void *weights, size_t n, size_t *bad_index);

/* The largest allowed absolute error, in weight units; 0 for an exact bound or when the mean is 0. */
MB_API double mb_bound_eps(const struct mb_bound *bound, const struct mb_weight_stats *stats);

/* The largest float with step <= 2 eps (1 - 2^-16); 0 when that underflows (rows are then kept raw). */
MB_API float mb_step_of_eps(double eps);

/*
 * A finer step, for encoders that choose among several levels within the bound: rho, 0.5 to MB_RHO_MAX, says
 * how many steps the bound is.  The smallest float with rho step >= eps, and at most mb_step_of_eps(eps).
 */
#define MB_RHO_MAX 4.0
MB_API float mb_step_of_rho(double eps, double rho);

/* ---------------------------------------------------------------- column exponents */

/*
 * A matrix may have an exponent e_j for each column.  What is coded is then V_ij = W_ij 2^e_j: bound and
 * step, records, raw rows and outliers are those of V.  A decoded weight is w' = v' 2^-e_j, so the bound of a
 * weight of column j is eps 2^-e_j: finer where e_j is larger.  Products with the matrix are products with
 * V'; who multiplies gives them x_j 2^-e_j in place of x_j (mb_unscale_columns) and gets W' x.  All of it is
 * exact. A coded folder has exponents in `down` of MLPs alone, whose input the engine makes itself.
 */
enum { MB_COL_EXPONENT_MAX = 15 }; /* of the magnitude */

/*
 * weights[n_rows][n_cols] of dtype (any alignment): V in place of W.  false: a finite weight's is not exact
 * in dtype; 'weights' are unspecified then.  NaN and infinity stay.  exponents: [n_cols], legal.
 */
MB_API bool mb_scale_columns(enum mb_dtype dtype, void *weights, size_t n_rows, size_t n_cols,
                             const int8_t *exponents);

/*
 * Moves exponents [n_cols] towards 0 as far as all of these weights need it to be exact in V.  Called for all
 * rows of a matrix, it leaves exponents that mb_scale_columns accepts.  (F16 loses bits below 2^-14: negative
 * exponents mostly end at 0 there, so choose from 0 up.)
 */
MB_API void mb_limit_exponents(enum mb_dtype dtype, const void *weights, size_t n_rows, size_t n_cols,
                               int8_t *exponents);

/* Whether V may have this step: 0, or 2^-100 to 2^100, so that decoding is exact. */
MB_API bool mb_step_takes_exponents(float step);

/* out[j] = x[j] 2^-exponents[j] for n columns; out may be x. */
MB_API void mb_unscale_columns(const int8_t *exponents, const float *x, size_t n, float *out);

/* ---------------------------------------------------------------- encoding */

enum {
    MB_COLS_MAX = 65535,     /* more columns would overflow the int32 sums of the product */
    MB_GROUP_WEIGHTS = 1024, /* a row group has at least as many weights; the last may have fewer */
    MB_SLACK_NBYTES = 128,   /* readable bytes that kernels need after a blob; their values do not matter */
};

/*
 * Rows in a row group, the unit of coding: 1 when n_cols >= 1024, else ceil(1024 / n_cols).  The last group
 * of a matrix may have fewer.  n_cols: 1 .. MB_COLS_MAX.
 */
static inline size_t mb_group_rows(size_t n_cols)
{
    return n_cols >= MB_GROUP_WEIGHTS ? 1 : (MB_GROUP_WEIGHTS + n_cols - 1) / n_cols;
}

/* What the bytes of a coded matrix mean (docs/format.md). Values are those of the file format. */
enum mb_form_id {
    MB_FORM_PATCHED = 1, /* patched fixed width: the form of files, which all kernels multiply */
    MB_FORM_CARRY = 256, /* in memory alone: made by kernels that multiply it faster */
};

/* How a matrix is coded: what the encoder needs beside the weights. */
struct mb_coding {
    enum mb_dtype dtype;  /* of the weights, and of outliers and raw rows in the coded form */
    enum mb_form_id form; /* MB_FORM_PATCHED */
    size_t n_cols;        /* 1 .. MB_COLS_MAX */
    double eps;           /* > 0, or 0: all weights of the matrix are 0 */
    float step;           /* mb_step_of_eps(eps), or a finer one: mb_step_of_rho */
    /*
     * The index wanted for each weight, [n_rows][n_cols] of the rows that are encoded; NULL: the nearest to
     * the weight.  Each weight gets mb_index_within of its own.
     */
    const int8_t *wanted;
};

/* The wanted index, or what mb_index_within returns: no index keeps the bound, the weight is stored as it is.
 */
enum { MB_INDEX_MAX = 127, MB_INDEX_NONE = -128 };

/*
 * The index nearest to 'wanted' whose decoded weight is within coding->eps of the finite weight w, in the
 * arithmetic of decoders: among those between it and the index nearest to w.  MB_INDEX_NONE: that one does
 * not keep the bound either, or MB_INDEX_NONE was wanted.
 */
MB_API int mb_index_within(const struct mb_coding *coding, float w, int wanted);

/* An encoded row group, as its directory entry will say it. Read n_outliers and nbytes. */
struct mb_group {
    uint8_t kind; /* the form's own, as is the next */
    uint16_t n_escapes;
    uint16_t n_outliers; /* weights kept as they were, beside others that are coded */
    uint32_t nbytes;     /* of its record */
};

/* Bytes enough for the records of any n_rows rows in any form. n_rows * n_cols * 4 must fit in a size_t. */
MB_API size_t mb_encode_bound(enum mb_dtype dtype, size_t n_rows, size_t n_cols);

/*
 * Encodes n_rows whole rows: 'weights' is [n_rows][coding->n_cols] of coding->dtype, of any alignment, and
 * the first row begins a row group.  Writes the records, one after another, to out[0 .. *out_nbytes), and an
 * entry for each of the ceil(n_rows / mb_group_rows) groups to 'groups'.  out_cap >= mb_encode_bound, all of
 * which may be written.  The bytes are the same on every instruction set and for every split of a matrix at
 * row groups: records of pieces, joined, are those of the whole.  Runs in the calling thread; allocates
 * nothing.
 *
 * MB_BAD_DATA: a weight is NaN or infinite; *bad_index (may be NULL) is then its index in 'weights'.
 * MB_NO_SPACE: out_cap is too small.  MB_UNSUPPORTED: this version does not know coding->form.  After a
 * failure *out_nbytes is unchanged, 'out' and 'groups' are unspecified.
 */
MB_API enum mb_status mb_encode_rows(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                     uint8_t *out, size_t out_cap, size_t *out_nbytes,
                                     struct mb_group *groups, size_t *bad_index);

/* Whether a group is kept as it was, because coding would not be smaller. form: that of the coding. */
MB_API bool mb_group_is_raw(enum mb_form_id form, const struct mb_group *group);

/* ---------------------------------------------------------------- writing blobs */

/*
 * A matrix as a blob's header describes it.  A blob is: header, then for each matrix in turn its records, its
 * directory and its exponents, if it has some (docs/format.md, section 3).
 */
struct mb_blob_matrix {
    const char *name;    /* not terminated: after the blob's own stem, e.g. "up_proj.weight" */
    size_t name_nbytes;  /* 1 .. 65535 */
    enum mb_dtype dtype; /* of the original */
    enum mb_form_id form;
    uint64_t n_rows;      /* at least 1 */
    size_t n_cols;        /* 1 .. MB_COLS_MAX */
    double eps;           /* the bound that holds for every weight (of V, where columns have exponents) */
    float step;           /* mb_step_of_eps(eps); or less, but eps <= MB_RHO_MAX step */
    uint64_t data_nbytes; /* of all records */
    uint64_t directory_nbytes; /* mb_directory_nbytes */
    uint64_t exponents_nbytes; /* n_cols, one int8 a column, not all 0; or 0: columns have no exponents */
};

/* Bytes of the directory of a matrix's n_groups groups, in order; mb_directory_write writes exactly as many.
 */
MB_API uint64_t mb_directory_nbytes(enum mb_form_id form, const struct mb_group *groups, size_t n_groups);
MB_API void mb_directory_write(enum mb_form_id form, const struct mb_group *groups, size_t n_groups,
                               uint8_t *out);

/*
 * Bytes of the header of a blob of these matrices, of which names alone matter: a multiple of 8.  0: more
 * matrices, longer names or a longer header than the format allows.
 */
MB_API size_t mb_blob_header_nbytes(const struct mb_blob_matrix *matrices, size_t n_matrices);

/*
 * Writes the header, mb_blob_header_nbytes (not 0) to 'out', any alignment.  'payload_xxh3' is XXH3-64 (seed
 * 0) of all that follows it in the blob.
 */
MB_API void mb_blob_write_header(const struct mb_blob_matrix *matrices, size_t n_matrices,
                                 uint64_t payload_xxh3, uint8_t *out);

/* ---------------------------------------------------------------- coded matrices and blobs */

struct mb_tile; /* the library's own */

/*
 * A coded matrix: a view of bytes that outlive it, read-only, for any number of threads.  Read the members up
 * to n_groups; the others are for the kernels and may change between versions.
 */
struct mb_coded_matrix {
    enum mb_dtype dtype; /* of the original, and of what is stored as it was */
    enum mb_form_id form;
    uint64_t n_rows;
    size_t n_cols;
    double eps;        /* |w - w'| <= eps for every weight; with exponents eps 2^-e of its column */
    float step;        /* w' = step q where a weight is coded; with exponents that is v' */
    size_t group_rows; /* rows in each group but the last */
    uint64_t n_groups;
    const int8_t *col_exponents; /* [n_cols]; NULL: columns have none */
    /* The library's own. */
    size_t tile_groups; /* groups in each tile but the last */
    uint64_t n_tiles;
    const uint8_t *kinds;          /* [n_groups] */
    const uint8_t *escape_counts;  /* [n_groups] uint16, unaligned */
    const uint8_t *outlier_counts; /* [flagged groups] uint16, unaligned */
    const uint8_t *data;           /* records of all groups */
    uint64_t data_nbytes;
    const struct mb_tile *tiles; /* [n_tiles] */
};

/* The bound of a column's weights: eps, or eps 2^-e. */
MB_API double mb_column_eps(const struct mb_coded_matrix *w, size_t col);

/* Bytes that a product with a matrix reads, but for counts of outliers, which are few. */
static inline uint64_t mb_coded_nbytes(const struct mb_coded_matrix *w)
{
    return w->data_nbytes + 3 * w->n_groups;
}

/* An open blob. It is valid as long as the bytes that it was opened from, which stay the caller's. */
struct mb_blob {
    size_t n_matrices;
    struct mb_blob_matrix *info;    /* [n_matrices] names point into the blob's bytes */
    struct mb_coded_matrix *matrix; /* [n_matrices] views of the blob's bytes */
    uint64_t nbytes;                /* of the blob, without the padding after it */
    uint64_t tables_nbytes;         /* memory beside the blob's own bytes */
    void *owned;                    /* freed by mb_blob_close; NULL: the caller's (mb_blob_open_in) */
};

/*
 * Checks a blob completely (header, checksums, sizes, kinds, escape counts, outlier positions, finite values,
 * zero padding bits) and makes its views.  Never reads outside bytes[0 .. nbytes), whatever they are and of
 * any alignment; kernels need MB_SLACK_NBYTES readable bytes after them.  The verdict is the same on every
 * instruction set.
 *
 * MB_BAD_DATA: the bytes are damaged; err->msg (err may be NULL) says what is wrong and at which byte of the
 * blob.  MB_UNSUPPORTED: a format version or form that this library does not know; the message names it.
 * MB_NO_MEMORY.  After a failure *blob is empty: closing it is allowed and does nothing.
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

/*
 * The same of a blob whose bytes come one after another, so that little is left to do when the last ones are
 * there. mb_blob_check_begin: 'bytes' and 'memory' as of mb_blob_open_in; nothing of them is read yet, and
 * what came before is forgotten.  mb_blob_check_add: bytes[0 .. n_there) are there, no fewer than in the call
 * before, and do not change any more.  mb_blob_check_end: all are; status, message and *blob are those of
 * mb_blob_open_in.  One thread at a time.
 */
struct mb_blob_check;
MB_API struct mb_blob_check *mb_blob_check_new(void);        /* NULL: no memory */
MB_API void mb_blob_check_free(struct mb_blob_check *check); /* NULL is fine */
MB_API void mb_blob_check_begin(struct mb_blob_check *check, const uint8_t *bytes, uint64_t nbytes,
                                void *memory, uint64_t memory_nbytes);
MB_API void mb_blob_check_add(struct mb_blob_check *check, uint64_t n_there);
MB_API enum mb_status mb_blob_check_end(struct mb_blob_check *check, struct mb_blob *blob,
                                        struct mb_error *err);

/* Frees what mb_blob_open allocated and empties *blob. Its matrices are gone. */
MB_API void mb_blob_close(struct mb_blob *blob);

/* What the first bytes of a blob say: how much of it is what. For readers that want headers alone. */
struct mb_blob_frame {
    size_t n_matrices;
    size_t header_nbytes; /* the frame itself, an entry for each matrix, names */
    uint64_t nbytes;      /* of the blob, without the padding after it */
};

enum { MB_BLOB_FRAME_NBYTES = 40 };

/*
 * Reads the first MB_BLOB_FRAME_NBYTES of a tensor of 'nbytes', or nothing where it has fewer.  MB_BAD_DATA
 * or MB_UNSUPPORTED as mb_blob_open; *frame is then unspecified.  Checksums are not checked.
 */
MB_API enum mb_status mb_blob_read_frame(const uint8_t *bytes, uint64_t nbytes, struct mb_blob_frame *frame,
                                         struct mb_error *err);

/*
 * The header bytes[0 .. frame->header_nbytes) without the payload: its checksum, names, forms, shapes and
 * sizes are checked.  Fills infos[frame->n_matrices]; names point into 'bytes'.  Fails as mb_blob_open; infos
 * are then unspecified.
 */
MB_API enum mb_status mb_blob_read_header(const uint8_t *bytes, const struct mb_blob_frame *frame,
                                          struct mb_blob_matrix *infos, struct mb_error *err);

/*
 * The view of a matrix as mb_encode_rows and mb_directory_write have left it, without a blob: info says its
 * form, shape, bound, data_nbytes and exponents_nbytes; exponents follow the directory, whose size info says
 * then.  Nothing is checked: what comes from a file is opened as a blob.  The
 * records and the directory outlive the view, and MB_SLACK_NBYTES after each can be read.  So does 'memory':
 * mb_coded_view_nbytes bytes, 8-byte aligned.
 */
MB_API size_t mb_coded_view_nbytes(const struct mb_blob_matrix *info);
MB_API struct mb_coded_matrix mb_coded_view(const struct mb_blob_matrix *info, const uint8_t *data,
                                            const uint8_t *directory, void *memory);

/* ---------------------------------------------------------------- what is coded how */

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
 * them; NULL: n_symbols stay as they are, and no record is read.  An outlier that happens to lie on the grid
 * counts as an index; the weights of raw groups count as what they would have been coded as.
 */
MB_API void mb_coded_statistics_add(struct mb_coded_statistics *statistics, const struct mb_coded_matrix *w,
                                    uint64_t row, uint64_t n_rows, const float *weights);
MB_API void mb_coded_statistics_merge(struct mb_coded_statistics *to, const struct mb_coded_statistics *from);

/*
 * Bits a weight that an ideal code of the symbols, each by itself, would take (order-0 entropy).  Symbols of
 * all n_weights must have been counted.
 */
MB_API double mb_coded_entropy_bits(const struct mb_coded_statistics *statistics);

/* ---------------------------------------------------------------- activations */

/*
 * A vector x as integer products see it: one scale, and integers X = rint(x / scale).  Where |X| <= 32639 it
 * is two signed bytes, X = 256 hi + lo.  Blocks of 128 columns with a larger X are "wide": there
 * X = 256 hi + lo + 32768 E, and E, up to 2^30, is kept for these blocks alone, as one to four signed bytes.
 *
 * The scale.  The vector is dealt out to 32 parts, element i to part i mod 32 (fewer than 256 elements: to
 * the largest power of two of parts that have eight each).  Let 'typical' be the median of the largest
 * magnitudes of the parts: half of the parts or more reach it.  Up to 15 outliers (7 below 256 elements, 3
 * below 128, 1 below 64, none below 32) do not change it, however large they are.  Then
 *
 *     scale = min(max |x|, range) / 32639, and at least max |x| 2^-45 and FLT_MIN
 *
 * where range = 4 typical if at most 3 more blocks have elements above 4 typical than have elements above 16
 * typical (a vector of one block: if as many have), else 16 typical: many elements above 4 are no outliers
 * but heavy tails, and wide blocks cost time.
 *
 * So |x - scale X| <= scale / 2 + 2^-24 |x| for each element (the second term is the rounding of x / scale to
 * float).  The first is
 *   - at most max / 65000: as if the largest element had set the scale, and exactly so where it is within the
 *     range, as in nearly all vectors;
 *   - at most typical / 4000, and typical / 16000 where few blocks have outliers, while max <= 2^30 times the
 *     range.  Beyond, the bound grows with max: 2^-46 of it.
 * Typical is about 2.5 times the rms of normally distributed values: there each element is within rms / 18000
 * without outliers (of some 2,000 values the largest is 3.5 rms), and within rms / 6500 of the others' rms
 * beside any outliers.
 *
 * A fast activation takes less time to multiply, and is coarser: 16383 in place of 32639, and a block that
 * has no larger X is a signed byte an element with one factor, X = factor rint(x / (scale factor)).  The
 * factor is the least that lets the block's largest X fit, at most 129.  So each element is within 1/254 of
 * its block's largest, plus scale / 2, of x; blocks with outliers are wide, and as exact as others.  Products
 * are those of this X in every kernel, for one token and many.
 *
 * What this adds to the error of a product is at most the sum of |w'| times that over the row, and one
 * rounding to float.
 *
 * All zero (or max |x| < 32639 FLT_MIN): scale 0.  A non-finite element: scale NaN, and every product with it
 * is NaN.
 */
struct mb_activation {
    const int8_t *hi,
        *lo;     /* the caller's planes: [n_cols], then zeros to a multiple of 128, 64-byte aligned */
    int64_t sum; /* of all 256 hi + lo */
    float scale;
    uint16_t n_wide, n_wide_planes; /* blocks with E, and bytes of each E: both 0 for most vectors */
    const uint16_t *wide_at;        /* [n_wide] their numbers (columns from 128 times that on), increasing */
    const int8_t *wide;             /* [n_wide][n_wide_planes][128] E = plane 0 + 256 plane 1 + ... */
    int64_t wide_sum;               /* of all E */
    /* The library's own: what tables with a resident form look up by column, with a 0 at -1; else NULL. */
    const int32_t *columns, *wide_columns; /* [n_cols] 256 hi + lo, and E; the second where n_wide > 0 */
    int64_t odd_sum, wide_odd_sum;         /* of their odd columns */
    /* Fast activations, else NULL: a block's 256 hi + lo are its factor times 'bytes', which are 0 in wide
     * ones. */
    const int8_t *bytes;    /* [n_cols] and zeros, as the planes */
    const uint8_t *factors; /* [blocks] 1 to 129 */
};

enum { MB_ACTIVATION_BLOCK = 128, MB_WIDE_UNIT = 32768, MB_WIDE_PLANES_MAX = 4 };

/* Bytes of one plane (hi or lo) of n_cols values: rounded up to a multiple of 128. */
static inline size_t mb_activation_plane_nbytes(size_t n_cols)
{
    return (n_cols + MB_ACTIVATION_BLOCK - 1) / MB_ACTIVATION_BLOCK * MB_ACTIVATION_BLOCK;
}

/*
 * Bytes that the wide blocks of any n_cols values can need, and after them the library's own columns.  Those
 * of an ordinary vector, or of a table that does not need them, are not touched.
 */
static inline size_t mb_activation_blocks_nbytes(size_t n_cols)
{
    size_t n_blocks = (n_cols + MB_ACTIVATION_BLOCK - 1) / MB_ACTIVATION_BLOCK;
    return (n_blocks * sizeof(uint16_t) + 63) / 64 * 64 + n_blocks * MB_WIDE_PLANES_MAX * MB_ACTIVATION_BLOCK;
}

static inline size_t mb_activation_wide_nbytes(size_t n_cols)
{
    return mb_activation_blocks_nbytes(n_cols) + 2 * (64 + 4 * mb_activation_plane_nbytes(n_cols));
}

/* Bytes of a fast activation's one plane, and a factor a block after it. */
static inline size_t mb_activation_fast_nbytes(size_t n_cols)
{
    size_t plane_nbytes = mb_activation_plane_nbytes(n_cols);
    return plane_nbytes + (plane_nbytes / MB_ACTIVATION_BLOCK + 63) / 64 * 64;
}

/* ---------------------------------------------------------------- kernels */

/*
 * The functions of one instruction set.  They allocate nothing, run in the calling thread, and may run in any
 * number of threads at once with the same matrix and activations; y and scratch are one call's own.  A matrix
 * is of MB_FORM_PATCHED, its blob has MB_SLACK_NBYTES readable bytes after it, and rows are below n_rows.
 * Products take no notice of column exponents (see there); decode_rows does.
 * Arrays of float have the alignment of float.  Nothing fails but encode_rows.
 */
/*
 * A form that one instruction set multiplies faster than that of files.  It is made in memory when a model is
 * loaded; decoded weights and products are the same bits.  Products take activations that the same table
 * made.
 */
struct mb_resident_form {
    /* Bytes that are enough for w in this form. */
    uint64_t (*nbytes_max)(const struct mb_coded_matrix *w);

    /*
     * Writes w, which is of MB_FORM_PATCHED, to 'memory', 8-byte aligned.  Returns how many bytes it takes,
     * MB_SLACK_NBYTES included; they may be moved.  n_more_bits, 0 or 1: bits that each weight may take
     * beyond the fewest, for fewer operations.
     */
    uint64_t (*make)(const struct mb_coded_matrix *w, unsigned n_more_bits, void *memory);

    /* The view of what 'make' wrote for w, at its present place. It takes the place of w. */
    struct mb_coded_matrix (*view)(const struct mb_coded_matrix *w, const void *memory, uint64_t nbytes);
};

#define MB_SPEED_BITS 4.29 /* see compact_nbytes_per_s */

struct mb_kernels {
    const char
        *isa; /* "scalar"; x86-64: "avx2", "avxvnni", "avx512", "zen4"; ARM64: "neon", "dotprod", "i8mm" */

    /*
     * Fills planes 'hi' and 'lo' (mb_activation_plane_nbytes each) and, for a vector with outliers, 'wide'
     * (mb_activation_wide_nbytes), all 64-byte aligned, from x[n], n <= MB_COLS_MAX, and describes them in
     * *out, which points to them.
     */
    void (*activation)(const float *x, size_t n, int8_t *hi, int8_t *lo, void *wide,
                       struct mb_activation *out);

    /* The same as a fast activation: 'bytes' is its one plane, mb_activation_fast_nbytes, 64-byte aligned. */
    void (*activation_fast)(const float *x, size_t n, int8_t *bytes, int8_t *hi, int8_t *lo, void *wide,
                            struct mb_activation *out);

    /*
     * y[0 .. n_rows) = rows [row, row + n_rows) of W times x, which has n_cols values.  Any row range; whole
     * groups are fastest.
     */
    void (*matvec)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                   const struct mb_activation *x, float *y);

    /*
     * The same for n_tokens vectors x[0 .. n_tokens): y[t * y_stride + r], y_stride >= n_rows in floats.
     * Faster than n_tokens calls of matvec: rows are decoded once, or once for a few tokens.
     * 'scratch': matmul_scratch_nbytes(w->n_cols) of this table, 64-byte aligned, of one thread at a time.
     */
    void (*matmul)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                   const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride, void *scratch);

    /*
     * y[0 .. n_cols) = x^T W over rows [row, row + n_rows): x has n_rows values, at most 65535.
     * 'scratch': transposed_scratch_nbytes(w->n_cols) of this table, 64-byte aligned, as above.
     */
    void (*matvec_transposed)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                              const struct mb_activation *x, float *y, void *scratch);

    /* Bytes of scratch memory for any matrix of n_cols columns. 0: none, NULL will do. Contents do not
     * matter. */
    size_t (*matmul_scratch_nbytes)(size_t n_cols);
    size_t (*transposed_scratch_nbytes)(size_t n_cols);

    /* out[0 .. n_rows * n_cols) = the decoded weights w' of rows [row, row + n_rows). */
    void (*decode_rows)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows, float *out);

    /* The encoder of MB_FORM_PATCHED alone, to compare instruction sets. Others call mb_encode_rows. */
    enum mb_status (*encode_rows)(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                  uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_group *groups,
                                  size_t *bad_index);

    const struct mb_resident_form *resident; /* that this table multiplies as well; NULL: none is faster */

    /*
     * Bytes per second that each thread reads, from which that form is faster than the form of files: with
     * the fewest bits, and with one more, which is faster than both.  As measured (docs/performance.md) with
     * weights of MB_SPEED_BITS in files.  Narrower ones need proportionally less: operations limit weights
     * per second, whatever their width.
     */
    double compact_nbytes_per_s, fast_nbytes_per_s;

    /*
     * How many of n codes have all bits set, in a bit stream of 'width' bits each (1 to 8).  Reads the bytes
     * that hold these codes and no others: it is what checks a group, before anything of it is trusted.
     */
    size_t (*count_full_codes)(const uint8_t *stream, size_t n, unsigned width);
};

/*
 * For callers that split the rows of a product: rows of every tile of a matrix but the last.  A product that
 * begins at a multiple of it finds its first row at once; any other looks for it among up to that many.
 * mb_prefetch_rows prefetches the start of row's tile.  Call it before a product that does not continue where
 * the last one ended: hardware prefetch does not know these addresses yet.  Neither changes a result.
 */
MB_API size_t mb_tile_rows(size_t n_cols);
MB_API void mb_prefetch_rows(const struct mb_coded_matrix *w, uint64_t row);

/*
 * The best table for this CPU less what the environment variable MOEBIUS_CPU takes away ("-avx512",
 * "-avxvnni", "-avx2", ..., comma separated).  Never NULL, valid without end, the same at every call: it is
 * chosen at the first one, which takes about a millisecond, since each fast table has to agree with scalar on
 * small hard rows before it is handed out.  mb_cpu_check reports an unknown feature name (MB_USAGE);
 * mb_kernels() then ignores the variable.
 */
MB_API const struct mb_kernels *mb_kernels(void);
MB_API enum mb_status mb_cpu_check(struct mb_error *err);

/* A table by its isa; NULL when the CPU (less MOEBIUS_CPU) lacks it. "scalar" always exists. */
MB_API const struct mb_kernels *mb_kernels_by_isa(const char *isa);

#ifdef __cplusplus
}
#endif

#endif
