/*
 * blob_units.c - what a blob to be holds: its bounds from its weights, its names, its share of the report.
 */
#include "blob_units.h"
#include "base/checked.h"
#include "base/error.h"
#include "extremes.h"
#include "views.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool needs_stats(const struct mb_layout_item *item)
{
    return item->bound.kind == MB_BOUND_MEAN_ABS || item->bound.kind == MB_BOUND_RANGE;
}

/* The statistics of all matrices of an expert together, in their order. */
static enum mb_status expert_stats(const struct mb_layout_item *items, size_t n,
                                   const struct mb_unit_reading *reading, struct mb_weight_stats *stats,
                                   struct mb_error *err)
{
    const struct mb_bound *bound = NULL;
    for (size_t i = 0; i < n; i++)
        if (bound == NULL && items[i].class == MB_CLASS_EXPERT && needs_stats(&items[i]))
            bound = &items[i].bound;
    for (size_t i = 0; i < n && bound != NULL; i++)
        if (items[i].class == MB_CLASS_EXPERT && mb_tensor_is_float(items[i].tensor))
            MB_TRY(reading->add(reading->ctx, items[i].tensor, stats, err));
    if (bound == NULL || !mb_may_have_extremes(stats))
        return MB_OK;
    return mb_find_extremes(reading->ckpt, items, n, bound, reading->buffer, reading->extremes, err);
}

/* Those of another matrix. */
static enum mb_status matrix_stats(const struct mb_layout_item *item, const struct mb_unit_reading *reading,
                                   struct mb_weight_stats *stats, struct mb_error *err)
{
    if (!needs_stats(item))
        return MB_OK;
    MB_TRY(reading->add(reading->ctx, item->tensor, stats, err));
    if (!mb_may_have_extremes(stats))
        return MB_OK;
    return mb_find_extremes(reading->ckpt, item, 1, &item->bound, reading->buffer, reading->extremes, err);
}

enum mb_status mb_unit_eps(const struct mb_layout *layout, const struct mb_unit *unit,
                           const struct mb_unit_reading *reading, double *eps, struct mb_error *err)
{
    const struct mb_layout_item *items = layout->items + unit->first;
    struct mb_weight_stats shared = MB_WEIGHT_STATS_INIT;
    MB_TRY(expert_stats(items, unit->n, reading, &shared, err));
    for (size_t i = 0; i < unit->n; i++) {
        struct mb_weight_stats own = MB_WEIGHT_STATS_INIT;
        if (items[i].class != MB_CLASS_EXPERT)
            MB_TRY(matrix_stats(&items[i], reading, &own, err));
        struct mb_weight_stats stats = items[i].class == MB_CLASS_EXPERT ? shared : own;
        if (stats.n == 0 && !needs_stats(&items[i]))
            stats.n = 1; /* an absolute bound does not depend on how many there are */
        eps[i] = mb_bound_eps(&items[i].bound, &stats);
    }
    return MB_OK;
}

enum mb_status mb_fail_weight(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                              uint64_t index, struct mb_error *err)
{
    uint64_t n_cols = tensor->n_dims == 0 ? 1 : tensor->shape[tensor->n_dims - 1];
    return mb_fail(err, MB_BAD_DATA,
                   "%s: tensor %s: byte %" PRIu64 ": weight [%" PRIu64 ", %" PRIu64 "] is NaN or infinite",
                   mb_tensor_path(ckpt, tensor), tensor->name, mb_elem_file_pos(ckpt, tensor, index),
                   index / n_cols, index % n_cols);
}

size_t mb_coded_chunk_bound(void)
{
    /* The smallest element makes the most weights. */
    return mb_encode_bound(MB_F16, 1, MB_CHUNK_NBYTES / mb_dtype_nbytes(MB_F16));
}

uint64_t mb_chunk_rows(const struct mb_tensor *tensor, size_t nbytes)
{
    uint64_t n_cols = tensor->shape[1], group_rows = mb_group_rows((size_t)n_cols);
    uint64_t group_nbytes = group_rows * n_cols * mb_dtype_nbytes(mb_tensor_dtype(tensor));
    return group_nbytes >= nbytes ? group_rows : nbytes / group_nbytes * group_rows;
}

enum mb_status mb_item_info(const struct mb_layout_item *item, double eps, const struct mb_rounder *rounder,
                            struct mb_blob_matrix *info, struct mb_error *err)
{
    bool is_taken = false;
    if (rounder != NULL)
        MB_TRY(rounder->takes(rounder->context, item->tensor->name, (size_t)item->tensor->shape[1], &is_taken,
                              err));
    *info = (struct mb_blob_matrix){
        .name = item->suffix,
        .name_nbytes = strlen(item->suffix),
        .dtype = mb_tensor_dtype(item->tensor),
        .form = MB_FORM_PATCHED,
        .n_rows = item->tensor->shape[0],
        .n_cols = (size_t)item->tensor->shape[1],
        .eps = eps,
        .step = is_taken ? mb_step_of_rho(eps, rounder->rho) : mb_step_of_eps(eps),
    };
    return MB_OK;
}

enum mb_status mb_item_exponents(const struct mb_layout_item *item, const struct mb_rounder *rounder,
                                 float step, int8_t **exponents, struct mb_error *err)
{
    bool is_taken = false;
    const char *name = item->tensor->name;
    size_t n_cols = (size_t)item->tensor->shape[1];
    *exponents = NULL;
    if (rounder == NULL || rounder->exponents == NULL || step == 0 || !mb_step_takes_exponents(step))
        return MB_OK;
    MB_TRY(rounder->takes(rounder->context, name, n_cols, &is_taken, err));
    if (!is_taken)
        return MB_OK;
    int8_t *made = malloc(n_cols);
    if (made == NULL)
        return mb_fail_memory(err, "exponents of columns");
    enum mb_status status = rounder->exponents(rounder->context, name, n_cols, made, err);
    if (status == MB_OK)
        *exponents = made;
    else
        free(made);
    return status;
}

void mb_settle_exponents(int8_t **exponents, struct mb_blob_matrix *info)
{
    bool any = false;
    for (size_t j = 0; *exponents != NULL && j < info->n_cols; j++)
        any = any || (*exponents)[j] != 0;
    info->exponents_nbytes = any ? info->n_cols : 0;
    if (any)
        return;
    free(*exponents);
    *exponents = NULL;
}

struct mb_coding mb_item_coding(const struct mb_blob_matrix *info)
{
    return (struct mb_coding){.dtype = info->dtype,
                              .form = info->form,
                              .n_cols = info->n_cols,
                              .eps = info->eps,
                              .step = info->step};
}

void mb_report_blob(struct mb_compress_report *report, enum mb_bound_class class, uint64_t n_weights,
                    uint64_t in_nbytes, uint64_t blob_nbytes)
{
    report->n_weights += n_weights;
    report->coded_nbytes += blob_nbytes;
    report->padding_nbytes += mb_round_up(blob_nbytes, MB_ST_PAGE_NBYTES) - blob_nbytes;
    if (class == MB_CLASS_EXPERT) {
        report->expert_n_weights += n_weights;
        report->expert_in_nbytes += in_nbytes;
        report->expert_coded_nbytes += blob_nbytes;
    } else {
        report->dense_n_weights += n_weights;
        report->dense_in_nbytes += in_nbytes;
        report->dense_coded_nbytes += blob_nbytes;
    }
}
