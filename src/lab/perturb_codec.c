/*
 * perturb_codec.c - matrices coded in memory, as compress codes them: what is multiplied is the coded form.
 */
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "perturb_work.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

/*
 * Of plain matrices the values as they are, so that the coded form is what compress makes of them.  What is
 * coded already is decoded to floats first.
 */
static struct mb_coding coding_of(const struct mb_perturb_item *item)
{
    const struct mb_matrix *w = &item->original;
    return (struct mb_coding){.dtype = w->is_coded ? MB_F32 : w->dtype,
                              .form = MB_FORM_PATCHED,
                              .n_cols = w->n_cols,
                              .eps = item->eps,
                              .step = mb_step_of_eps(item->eps)};
}

static void encode(struct mb_perturb_work *work, size_t number, int thread)
{
    struct mb_perturb_piece *piece = &work->pieces[number];
    struct mb_perturb_item *item = piece->item;
    const struct mb_matrix *w = &item->original;
    struct mb_perturb_scratch *scratch = &work->perturber->scratch[thread];
    const char *name = work->perturber->matrices[item->number].name;
    struct mb_coding coding = coding_of(item);
    const void *weights = scratch->weights;
    if (w->is_coded)
        mb_matrix_rows(w, piece->row, piece->n_rows, scratch->weights);
    else
        weights = (const uint8_t *)w->dense + piece->row * w->n_cols * mb_dtype_nbytes(w->dtype);
    struct mb_group *groups = item->groups + piece->row / mb_group_rows(w->n_cols);
    piece->status = mb_encode_rows(&coding, weights, (size_t)piece->n_rows, scratch->coded,
                                   scratch->coded_nbytes, &piece->coded_nbytes, groups, NULL);
    if (piece->status != MB_OK) {
        piece->status = mb_fail(&piece->err, piece->status, "%s: cannot be coded: %s", name,
                                piece->status == MB_BAD_DATA ? "a weight is NaN or infinite" : "no room");
        return;
    }
    piece->coded = malloc(piece->coded_nbytes + 1);
    if (piece->coded == NULL)
        piece->status = mb_fail_memory(&piece->err, "a coded matrix");
    else
        memcpy(piece->coded, scratch->coded, piece->coded_nbytes);
}

/* The pieces of an item follow one another. */
static size_t first_piece(const struct mb_perturb_work *work, const struct mb_perturb_item *item)
{
    size_t low = 0, high = work->n_pieces;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (work->pieces[middle].item < item)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct mb_blob_matrix info_of(const struct mb_perturb_item *item, uint64_t data_nbytes)
{
    struct mb_coding coding = coding_of(item);
    return (struct mb_blob_matrix){.name = "w",
                                   .name_nbytes = 1,
                                   .dtype = coding.dtype,
                                   .form = coding.form,
                                   .n_rows = item->original.n_rows,
                                   .n_cols = coding.n_cols,
                                   .eps = coding.eps,
                                   .step = coding.step,
                                   .data_nbytes = data_nbytes};
}

/* A block is: the view's tables, records, directory, each with what kernels may read after it. */
static void join(struct mb_perturb_work *work, size_t number, int thread)
{
    struct mb_perturb_item *item = &work->items[number];
    size_t first = first_piece(work, item), end = first;
    uint64_t data_nbytes = 0, group_rows = mb_group_rows(item->original.n_cols);
    size_t n_groups = (size_t)((item->original.n_rows + group_rows - 1) / group_rows);
    (void)thread;
    for (; end < work->n_pieces && work->pieces[end].item == item; end++)
        data_nbytes += work->pieces[end].coded_nbytes;
    struct mb_blob_matrix info = info_of(item, data_nbytes);
    info.directory_nbytes = mb_directory_nbytes(info.form, item->groups, n_groups);
    item->coded_nbytes = mb_blob_header_nbytes(&info, 1) + data_nbytes + info.directory_nbytes;
    uint64_t data_at = mb_round_up(mb_coded_view_nbytes(&info), ALIGNMENT);
    uint64_t directory_at = data_at + mb_round_up(data_nbytes + MB_SLACK_NBYTES, ALIGNMENT);
    item->block_nbytes = directory_at + info.directory_nbytes + MB_SLACK_NBYTES;
    uint8_t *block = item->block = mb_alloc(item->block_nbytes, 1);
    if (block == NULL) {
        item->status = mb_fail_memory(&item->err, "a coded matrix");
        return;
    }
    for (uint64_t at = data_at; first < end; first++) {
        memcpy(block + at, work->pieces[first].coded, work->pieces[first].coded_nbytes);
        at += work->pieces[first].coded_nbytes;
        free(work->pieces[first].coded);
        work->pieces[first].coded = NULL;
    }
    mb_directory_write(info.form, item->groups, n_groups, block + directory_at);
    item->laid =
        (struct mb_matrix){.is_coded = true,
                           .n_rows = info.n_rows,
                           .n_cols = info.n_cols,
                           .coded = mb_coded_view(&info, block + data_at, block + directory_at, block)};
}

static enum mb_status make_groups(struct mb_perturb_work *work, struct mb_error *err)
{
    for (size_t i = 0; i < work->n_items; i++) {
        struct mb_perturb_item *item = &work->items[i];
        if (item->original.n_cols > MB_COLS_MAX)
            return mb_fail(err, MB_UNSUPPORTED, "%s: has %zu columns, and at most %d can be coded",
                           work->perturber->matrices[item->number].name, item->original.n_cols, MB_COLS_MAX);
        uint64_t group_rows = mb_group_rows(item->original.n_cols);
        item->groups =
            calloc((size_t)((item->original.n_rows + group_rows - 1) / group_rows), sizeof *item->groups);
        if (item->groups == NULL)
            return mb_fail_memory(err, "a coded matrix");
    }
    return MB_OK;
}

static enum mb_status code(struct mb_perturb_work *work, struct mb_error *err)
{
    MB_TRY(make_groups(work, err));
    MB_TRY(mb_perturb_pieces(work, encode, err));
    return mb_perturb_items(work, join, err);
}

enum mb_status mb_perturb_code(struct mb_perturb_work *work, struct mb_error *err)
{
    enum mb_status status = code(work, err);
    for (size_t i = 0; i < work->n_pieces; i++) {
        free(work->pieces[i].coded);
        work->pieces[i].coded = NULL;
    }
    for (size_t i = 0; i < work->n_items; i++) {
        free(work->items[i].groups);
        work->items[i].groups = NULL;
    }
    return status;
}
