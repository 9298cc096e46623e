/*
 * views.c - the list of logical tensors, and the kind of view that picks elements by strides.
 */
#include "views.h"
#include "base/checked.h"
#include "base/error.h"
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- slices */

enum { RUN_NBYTES = 16 << 10 }; /* of one column, read at a time */

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

/* Elements 'from' apart become elements 'to' apart. */
static void spread(const uint8_t *in, uint64_t from, uint8_t *out, uint64_t to, uint64_t n,
                   size_t elem_nbytes)
{
    for (uint64_t i = 0; i < n; i++)
        memcpy(out + i * to * elem_nbytes, in + i * from * elem_nbytes, elem_nbytes);
}

/* As many rows as a run of one column holds: each column is read once, in one piece. */
static enum mb_status read_block(const struct mb_checkpoint *ckpt, const struct mb_view *view, uint64_t row,
                                 uint64_t n_rows, uint8_t *out, struct mb_error *err)
{
    uint8_t run[RUN_NBYTES];
    size_t elem_nbytes = mb_elem_nbytes(&view->tensor);
    uint64_t n_cols = view->tensor.shape[1], n_run = (n_rows - 1) * view->row_stride + 1;
    for (uint64_t col = 0; col < n_cols; col++) {
        MB_TRY(mb_stored_read(ckpt, view->stored, slice_elem(view, row, col) * elem_nbytes, run,
                              n_run * elem_nbytes, err));
        uint8_t *to = out + col * elem_nbytes;
        switch (elem_nbytes) { /* a length that the compiler knows */
        case 2:
            spread(run, view->row_stride, to, n_cols, n_rows, 2);
            break;
        case 4:
            spread(run, view->row_stride, to, n_cols, n_rows, 4);
            break;
        default:
            spread(run, view->row_stride, to, n_cols, n_rows, elem_nbytes);
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

struct mb_view_list {
    struct mb_view *views;
    size_t n, cap;
};

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

/* Asked in this order; the first that takes a tensor is the last that sees it. */
static const mb_view_rule rules[] = {
    NULL, /* ends the list */
};

static enum mb_status add_stored(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                                 const struct mb_tensor *stored, struct mb_error *err)
{
    bool is_taken = false;
    for (size_t i = 0; rules[i] != NULL && !is_taken; i++)
        MB_TRY(rules[i](list, ckpt, stored, &is_taken, err));
    if (is_taken)
        return MB_OK;
    struct mb_view view = {.tensor = *stored, .stored = stored};
    view.tensor.name = strdup(stored->name);
    return mb_views_add(list, &view, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct mb_tensor *const *)a)->name, (*(const struct mb_tensor *const *)b)->name);
}

/* What the list holds becomes the checkpoint's. */
static enum mb_status take_list(struct mb_checkpoint *ckpt, struct mb_view_list *list, struct mb_error *err)
{
    const struct mb_tensor **tensors = calloc(list->n + 1, sizeof(const struct mb_tensor *)),
                           **sorted = calloc(list->n + 1, sizeof(const struct mb_tensor *));
    if (tensors == NULL || sorted == NULL) {
        free(tensors);
        free(sorted);
        return mb_fail_memory(err, "the list of tensors");
    }
    for (size_t i = 0; i < list->n; i++)
        tensors[i] = sorted[i] = &list->views[i].tensor;
    qsort(sorted, list->n, sizeof(const struct mb_tensor *), by_name);
    ckpt->stored = ckpt->tensors;
    ckpt->n_stored = ckpt->n_tensors;
    ckpt->tensors = tensors;
    free(ckpt->by_name);
    ckpt->by_name = sorted;
    ckpt->n_tensors = list->n;
    ckpt->views = list->views;
    *list = (struct mb_view_list){0};
    return MB_OK;
}

static enum mb_status check_names(const struct mb_checkpoint *ckpt, struct mb_error *err)
{
    for (size_t i = 1; i < ckpt->n_tensors; i++) {
        const struct mb_tensor *a = ckpt->by_name[i - 1], *b = ckpt->by_name[i];
        if (strcmp(a->name, b->name) == 0)
            return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: is also called %s, which is %s too",
                           mb_tensor_path(ckpt, a), ckpt->views[a->number].stored->name, a->name,
                           ckpt->views[b->number].stored->name);
    }
    return MB_OK;
}

static void free_list(struct mb_view *views, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free((char *)views[i].tensor.name);
    free(views);
}

enum mb_status mb_views_make(struct mb_checkpoint *ckpt, struct mb_error *err)
{
    struct mb_view_list list = {0};
    enum mb_status status = MB_OK;
    for (size_t i = 0; i < ckpt->n_tensors && status == MB_OK; i++)
        status = add_stored(&list, ckpt, ckpt->tensors[i], err);
    if (status == MB_OK)
        status = take_list(ckpt, &list, err);
    free_list(list.views, list.n);
    return status == MB_OK ? check_names(ckpt, err) : status;
}

void mb_views_free(struct mb_checkpoint *ckpt)
{
    if (ckpt->views != NULL)
        free_list(ckpt->views, ckpt->n_tensors);
    free(ckpt->stored);
}

/* ---------------------------------------------------------------- reading */

const struct mb_view *mb_view_of(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor)
{
    if (ckpt->views == NULL || ckpt->views[tensor->number].kind == NULL)
        return NULL;
    return &ckpt->views[tensor->number];
}

uint64_t mb_elem_file_pos(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor, uint64_t i)
{
    const struct mb_view *view = mb_view_of(ckpt, tensor);
    return view == NULL ? tensor->file_pos + i * mb_elem_nbytes(tensor) : view->kind->file_pos(view, i);
}
