/*
 * views.h - logical tensors: what a checkpoint hands out, computed from what its files store.
 *
 * mb_checkpoint_tensor, _find, _read and _map, and everything above them (index, store, compress, estimate,
 * verify), see logical tensors: matrices as the families name them,
 * "model.layers.3.mlp.experts.5.up_proj.weight". There are three sorts, in the order in which their stored
 * tensors lie in the files:
 *
 * - a stored tensor as it is, perhaps under a plainer name;
 * - a piece of one whose bytes lie in a row in the file (a half of [E, 2I, H]): a tensor like any other, with
 *   a file_pos of its own.  It can be mapped;
 * - a *view*, computed when it is read: 'kind' is not NULL.  It cannot be mapped, and the store keeps what it
 *   reads of it in memory.
 *
 * Coded folders have no views: they contain logical tensors by their logical names.
 *
 * How to add a kind of view: a table struct mb_view_kind with a read function that computes any bytes of the
 * tensor at a cost linear in their number, and a rule (mb_view_rule) that finds the stored tensors it is for
 * and adds what they mean.  List the rule in logical.c (rules[]).  All that a rule has not taken is handed
 * out as it is stored, by the name that mb_logical_name (text_model.h) gives it; rules use that function too,
 * and leave alone what is no MB_PART_TEXT.  While rules run, mb_checkpoint_find finds stored tensors;
 * mb_stored_read reads them at any time.
 */
#ifndef MB_CHECKPOINT_VIEWS_H
#define MB_CHECKPOINT_VIEWS_H

#include "checkpoint.h"

struct mb_view;

struct mb_view_kind {
    /*
     * Bytes [pos, pos + nbytes) of the tensor, which are inside of it; neither end need be that of an element
     * or of a row.  Any thread.
     */
    enum mb_status (*read)(const struct mb_checkpoint *ckpt, const struct mb_view *view, uint64_t pos,
                           void *out, uint64_t nbytes, struct mb_error *err);
    /* Where the value that element i comes from begins in the file. */
    uint64_t (*file_pos)(const struct mb_view *view, uint64_t i);
};

/* A logical tensor. ckpt->views[tensor->number] is that of a tensor that was handed out. */
struct mb_view {
    struct mb_tensor tensor; /* its name is malloc'ed; shard and file_pos are those of its first value */
    const struct mb_view_kind *kind; /* NULL: its bytes are at file_pos */
    const struct mb_tensor *stored;
    const struct mb_tensor *scales; /* another stored tensor that a kind needs, or NULL */
    bool is_piece;                  /* of a fused tensor */
    /* mb_slice_view: element [r][c] is number first + r * row_stride + c * col_stride of 'stored'. */
    uint64_t first, row_stride, col_stride;
    /* fp8.h: [r][c] is stored element [r][c] times scale [r / block_rows][c / block_cols]. */
    uint64_t block_rows, block_cols;
};

/* Columns that are not neighbours in the file: transposed, or every second one. */
extern const struct mb_view_kind mb_slice_view;

/* ---------------------------------------------------------------- rules */

struct mb_fused;

/* The logical tensors, as far as they are known. */
struct mb_view_list {
    struct mb_view *views;
    size_t n, cap;
    struct mb_fused
        *fused; /* [n_fused] tensors that experts were cut out of: decompress puts them together */
    size_t n_fused;
};

/*
 * Adds what 'stored' means and sets *is_taken, or leaves it to other rules.  A rule that takes a tensor and
 * adds nothing hides it (scales, which are read with their weights).
 */
typedef enum mb_status (*mb_view_rule)(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                                       const struct mb_tensor *stored, bool *is_taken, struct mb_error *err);

/* A view of any kind.  *view is copied; its name is the list's from now on, NULL: there was no memory. */
enum mb_status mb_views_add(struct mb_view_list *list, const struct mb_view *view, struct mb_error *err);

/*
 * The matrix [n_rows, n_cols] of elements first + r * row_stride + c * col_stride of a stored tensor, all of
 * which it has.  The name as above.
 */
enum mb_status mb_views_add_slice(struct mb_view_list *list, const struct mb_tensor *stored, char *name,
                                  uint64_t first, uint64_t n_rows, uint64_t n_cols, uint64_t row_stride,
                                  uint64_t col_stride, struct mb_error *err);

/* ---------------------------------------------------------------- the checkpoint's own use */

/*
 * logical.c: replaces ckpt->tensors, which are the stored ones, by logical ones; the former are ckpt->stored
 * from then on.  MB_BAD_DATA: two of them have the same name.
 */
enum mb_status mb_views_make(struct mb_checkpoint *ckpt, struct mb_error *err);
void mb_views_free(struct mb_checkpoint *ckpt);

/* NULL: a tensor as it is stored, or a piece of one, at tensor->file_pos. */
const struct mb_view *mb_view_of(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor);

/* Bytes of a stored tensor, or of one that lies in the file like one. */
enum mb_status mb_stored_read(const struct mb_checkpoint *ckpt, const struct mb_tensor *stored, uint64_t pos,
                              void *out, uint64_t nbytes, struct mb_error *err);

/* Where the value of element i of a tensor begins in its file: messages name it. */
uint64_t mb_elem_file_pos(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor, uint64_t i);

#endif
