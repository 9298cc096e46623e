/*
 * blob_units.h - what the blobs of a layout will hold: bounds from weights, names, shares of the report.
 *
 * For the writer, which codes whole blobs, and the estimate, which codes samples of them.
 */
#ifndef MB_CHECKPOINT_BLOB_UNITS_H
#define MB_CHECKPOINT_BLOB_UNITS_H

#include "layout.h"

/* Weights are read, coded and written in pieces of at most this size. */
enum { MB_CHUNK_NBYTES = 512 << 10 };

/* The most that a chunk of weights of any type needs when it is coded. */
size_t mb_coded_chunk_bound(void);

/* Adds the weights of one tensor, all or a sample, to what its bound is relative to. */
typedef enum mb_status (*mb_add_stats_fn)(void *ctx, const struct mb_tensor *tensor,
                                          struct mb_weight_stats *stats, struct mb_error *err);

/* How the weights of units are read. */
struct mb_unit_reading {
    const struct mb_checkpoint *ckpt;
    mb_add_stats_fn add;
    void *ctx;
    uint8_t *buffer; /* MB_CHUNK_NBYTES */
    struct mb_extremes *extremes;
};

/*
 * eps of each item of a unit (0 for exact ones).  Matrices of an expert share their statistics; 'add' is not
 * called where bounds do not depend on weights.  Weights that spoil a bound are added to 'extremes'.
 */
enum mb_status mb_unit_eps(const struct mb_layout *layout, const struct mb_unit *unit,
                           const struct mb_unit_reading *reading, double *eps, struct mb_error *err);

/* Names row and column of a weight that is NaN or infinite. */
enum mb_status mb_fail_weight(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                              uint64_t index, struct mb_error *err);

/* Rows that fill a buffer of 'nbytes', whole row groups, at least one of them. */
uint64_t mb_chunk_rows(const struct mb_tensor *tensor, size_t nbytes);

/* A coded matrix as the blob's header will name it; sizes are 0. 'rounder' may be NULL. */
enum mb_status mb_item_info(const struct mb_layout_item *item, double eps, const struct mb_rounder *rounder,
                            struct mb_blob_matrix *info, struct mb_error *err);

/*
 * Exponents of an item's columns, malloc'ed: what the rounder (which may be NULL) wants for a matrix of this
 * step; NULL: none.  They have to be limited by the weights (mb_limit_exponents) before they are used;
 * mb_settle_exponents frees those of which nothing is left.
 */
enum mb_status mb_item_exponents(const struct mb_layout_item *item, const struct mb_rounder *rounder,
                                 float step, int8_t **exponents, struct mb_error *err);
void mb_settle_exponents(int8_t **exponents, struct mb_blob_matrix *info);

/* As the encoder is to code it. */
struct mb_coding mb_item_coding(const struct mb_blob_matrix *info);

/* Adds a finished blob to a report. */
void mb_report_blob(struct mb_compress_report *report, enum mb_bound_class class, uint64_t n_weights,
                    uint64_t in_nbytes, uint64_t blob_nbytes);

#endif
