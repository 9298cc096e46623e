/*
 * views.c - the kind of view that picks elements by strides, and the list that rules add to.
 */
#include "views.h"
#include "base/checked.h"
#include "base/error.h"
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- slices */

/*
 * Columns are read RUN_NBYTES at a time, as many as TILE_COLS of them before their elements go to their rows:
 * one column alone would write to each row in turn, and few rows fit into the cache.  Runs are as far apart
 * as two lines of the cache that do not take each other's place.
 */
enum { RUN_NBYTES = 2 << 10, TILE_COLS = 32, RUN_PLACE_NBYTES = RUN_NBYTES + 64 };

static uint64_t slice_elem(const struct mb_view *view, uint64_t row, uint64_t col)
{
    return view->first + row * view->row_stride + col * view->col_stride;
}

/* Bytes [from, to) of a row, element by element: the beginning or the end of what is asked for. */
static enum mb_status read_in_row(const struct mb_checkpoint *ckpt, const struct mb_view *view, uint64_t row,
                                  uint64_t from, uint64_t to, uint8_t *out, struct mb_error *err)
{
    uint64_t elem_nbytes = mb_elem_nbytes(&view->tensor);
    while (from < to) {
        uint64_t col = from / elem_nbytes, in_elem = from % elem_nbytes;
        uint64_t n = elem_nbytes - in_elem < to - from ? elem_nbytes - in_elem : to - from;
        MB_TRY(mb_stored_read(ckpt, view->stored, slice_elem(view, row, col) * elem_nbytes + in_elem, out, n,
                              err));
        out += n;
        from += n;
    }
    return MB_OK;
}

/* Row r of a tile is elements number r * row_stride of n_cols runs; in the output it is n_out_cols wide. */
static inline void place_rows(const uint8_t *tile, uint64_t row_stride, uint64_t n_rows, uint64_t n_cols,
                              uint8_t *out, uint64_t n_out_cols, size_t elem_nbytes)
{
    for (uint64_t row = 0; row < n_rows; row++)
        for (uint64_t col = 0; col < n_cols; col++)
            memcpy(out + (row * n_out_cols + col) * elem_nbytes,
                   tile + col * RUN_PLACE_NBYTES + row * row_stride * elem_nbytes, elem_nbytes);
}

/* As many rows as a run of one column holds: each column is read once, in one piece. */
static enum mb_status read_block(const struct mb_checkpoint *ckpt, const struct mb_view *view, uint64_t row,
                                 uint64_t n_rows, uint8_t *out, struct mb_error *err)
{
    uint8_t tile[TILE_COLS * RUN_PLACE_NBYTES];
    size_t elem_nbytes = mb_elem_nbytes(&view->tensor);
    uint64_t n_all = view->tensor.shape[1], n_run = (n_rows - 1) * view->row_stride + 1;
    for (uint64_t col = 0; col < n_all; col += TILE_COLS) {
        uint64_t n_cols = n_all - col < TILE_COLS ? n_all - col : TILE_COLS;
        for (uint64_t i = 0; i < n_cols; i++)
            MB_TRY(mb_stored_read(ckpt, view->stored, slice_elem(view, row, col + i) * elem_nbytes,
                                  tile + i * RUN_PLACE_NBYTES, n_run * elem_nbytes, err));
        uint8_t *to = out + col * elem_nbytes;
        switch (elem_nbytes) { /* a length that the compiler knows */
        case 2:
            place_rows(tile, view->row_stride, n_rows, n_cols, to, n_all, 2);
            break;
        case 4:
            place_rows(tile, view->row_stride, n_rows, n_cols, to, n_all, 4);
            break;
        default:
            place_rows(tile, view->row_stride, n_rows, n_cols, to, n_all, elem_nbytes);
        }
    }
    return MB_OK;
}

static enum mb_status read_rows(const struct mb_checkpoint *ckpt, const struct mb_view *view, uint64_t row,
                                uint64_t n_rows, uint8_t *out, struct mb_error *err)
{
    uint64_t row_nbytes = view->tensor.shape[1] * mb_elem_nbytes(&view->tensor);
    uint64_t n_run = RUN_NBYTES / mb_elem_nbytes(&view->tensor);
    uint64_t block = view->col_stride == 1 ? 1 : (n_run - 1) / view->row_stride + 1;
    while (n_rows > 0) {
        uint64_t n = block < n_rows ? block : n_rows;
        if (view->col_stride == 1)
            MB_TRY(mb_stored_read(ckpt, view->stored,
                                  slice_elem(view, row, 0) * mb_elem_nbytes(&view->tensor), out, row_nbytes,
                                  err));
        else
            MB_TRY(read_block(ckpt, view, row, n, out, err));
        row += n;
        n_rows -= n;
        out += n * row_nbytes;
    }
    return MB_OK;
}

static enum mb_status read_slice(const struct mb_checkpoint *ckpt, const struct mb_view *view, uint64_t pos,
                                 void *bytes, uint64_t nbytes, struct mb_error *err)
{
    uint64_t row_nbytes = view->tensor.shape[1] * mb_elem_nbytes(&view->tensor);
    uint8_t *out = bytes;
    while (nbytes > 0) {
        uint64_t row = pos / row_nbytes, in_row = pos % row_nbytes, n = nbytes / row_nbytes * row_nbytes;
        if (in_row == 0 && n > 0) {
            MB_TRY(read_rows(ckpt, view, row, n / row_nbytes, out, err));
        } else {
            n = row_nbytes - in_row < nbytes ? row_nbytes - in_row : nbytes;
            MB_TRY(read_in_row(ckpt, view, row, in_row, in_row + n, out, err));
        }
        out += n;
        pos += n;
        nbytes -= n;
    }
    return MB_OK;
}

static uint64_t slice_file_pos(const struct mb_view *view, uint64_t i)
{
    uint64_t n_cols = view->tensor.shape[1];
    return view->stored->file_pos + slice_elem(view, i / n_cols, i % n_cols) * mb_elem_nbytes(&view->tensor);
}

const struct mb_view_kind mb_slice_view = {.read = read_slice, .file_pos = slice_file_pos};

/* ---------------------------------------------------------------- the list */

enum mb_status mb_views_add(struct mb_view_list *list, const struct mb_view *view, struct mb_error *err)
{
    if (view->tensor.name != NULL && list->n == list->cap) {
        size_t cap = list->cap == 0 ? 256 : 2 * list->cap;
        struct mb_view *grown = realloc(list->views, cap * sizeof *grown);
        if (grown == NULL) {
            free((char *)view->tensor.name);
            return mb_fail_memory(err, "the list of tensors");
        }
        list->views = grown;
        list->cap = cap;
    }
    if (view->tensor.name == NULL)
        return mb_fail_memory(err, "the name of a tensor");
    list->views[list->n] = *view;
    list->views[list->n].tensor.number = list->n;
    list->n++;
    return MB_OK;
}

enum mb_status mb_views_add_slice(struct mb_view_list *list, const struct mb_tensor *stored, char *name,
                                  uint64_t first, uint64_t n_rows, uint64_t n_cols, uint64_t row_stride,
                                  uint64_t col_stride, struct mb_error *err)
{
    assert(n_rows > 0 && n_cols > 0);
    assert(first + (n_rows - 1) * row_stride + (n_cols - 1) * col_stride < stored->n_elems);
    bool is_in_a_row = (col_stride == 1 || n_cols == 1) && (row_stride == n_cols || n_rows == 1);
    struct mb_view view = {
        .tensor = *stored,
        .kind = is_in_a_row ? NULL : &mb_slice_view,
        .stored = stored,
        .is_piece = true,
        .first = first,
        .row_stride = row_stride,
        .col_stride = col_stride,
    };
    view.tensor.name = name;
    view.tensor.n_dims = 2;
    view.tensor.shape[0] = n_rows;
    view.tensor.shape[1] = n_cols;
    view.tensor.n_elems = n_rows * n_cols;
    view.tensor.nbytes = view.tensor.n_elems * mb_elem_nbytes(stored);
    view.tensor.file_pos += first * mb_elem_nbytes(stored);
    return mb_views_add(list, &view, err);
}
