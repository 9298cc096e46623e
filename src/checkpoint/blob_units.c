/*
 * blob_units.c - what a blob-to-be holds: its bounds from its weights, its names, its share of the report.
 */
#include "base/checked.h"
#include "base/error.h"
#include "blob_writer.h"
#include <inttypes.h>
#include <string.h>

static bool needs_stats(const struct mb_plan_item *item)
{
    return item->bound.kind == MB_BOUND_MEAN_ABS || item->bound.kind == MB_BOUND_RANGE;
}

/* The statistics of all matrices of an expert together, in their order. */
static enum mb_status expert_stats(const struct mb_plan *plan, const struct mb_plan_unit *unit,
                                   mb_add_stats_fn add, void *ctx, struct mb_weight_stats *stats,
                                   struct mb_error *err)
{
    enum mb_status status = MB_OK;
    bool is_needed = false;
    for (size_t i = unit->first; i < unit->first + unit->n; i++)
        is_needed = is_needed || (plan->items[i].role == MB_ROLE_EXPERT && needs_stats(&plan->items[i]));
    for (size_t i = unit->first; i < unit->first + unit->n && is_needed && status == MB_OK; i++)
        if (plan->items[i].role == MB_ROLE_EXPERT && plan->items[i].tensor->type <= MB_TENSOR_BF16)
            status = add(ctx, plan->items[i].tensor, stats, err);
    return status;
}

enum mb_status mb_unit_eps(const struct mb_plan *plan, const struct mb_plan_unit *unit, mb_add_stats_fn add,
                           void *ctx, double *eps, struct mb_error *err)
{
    struct mb_weight_stats shared = MB_WEIGHT_STATS_INIT;
    enum mb_status status = expert_stats(plan, unit, add, ctx, &shared, err);
    for (size_t i = 0; i < unit->n && status == MB_OK; i++) {
        const struct mb_plan_item *item = &plan->items[unit->first + i];
        struct mb_weight_stats own = MB_WEIGHT_STATS_INIT;
        if (item->role != MB_ROLE_EXPERT && needs_stats(item))
            status = add(ctx, item->tensor, &own, err);
        struct mb_weight_stats *stats = item->role == MB_ROLE_EXPERT ? &shared : &own;
        if (!needs_stats(item))
            stats->n = stats->n == 0 ? 1 : stats->n; /* an absolute bound does not ask how many there are */
        eps[i] = mb_bound_eps(&item->bound, stats);
    }
    return status;
}

enum mb_status mb_fail_weight(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                              uint64_t index, struct mb_error *err)
{
    uint64_t n_cols = tensor->n_dims == 0 ? 1 : tensor->shape[tensor->n_dims - 1];
    return mb_fail(err, MB_BAD_DATA,
                   "%s: tensor %s: byte %" PRIu64 ": weight [%" PRIu64 ", %" PRIu64 "] is NaN or infinite",
                   mb_tensor_path(ckpt, tensor), tensor->name,
                   tensor->file_pos + index * (tensor->nbytes / tensor->n_elems), index / n_cols,
                   index % n_cols);
}

uint64_t mb_chunk_rows(const struct mb_tensor *tensor, size_t nbytes)
{
    uint64_t n_cols = tensor->shape[1], group_rows = mb_group_rows((size_t)n_cols);
    uint64_t group_nbytes = group_rows * n_cols * mb_dtype_nbytes((enum mb_dtype)tensor->type);
    return group_nbytes >= nbytes ? group_rows : nbytes / group_nbytes * group_rows;
}

struct mb_blob_matrix mb_item_info(const struct mb_plan_item *item, double eps)
{
    return (struct mb_blob_matrix){
        .name = item->suffix,
        .name_nbytes = strlen(item->suffix),
        .dtype = (enum mb_dtype)item->tensor->type,
        .n_rows = item->tensor->shape[0],
        .n_cols = (size_t)item->tensor->shape[1],
        .eps = eps,
        .step = mb_step_of_eps(eps),
    };
}

void mb_report_blob(struct mb_compress_report *report, enum mb_role role, uint64_t n_weights,
                    uint64_t in_nbytes, uint64_t blob_nbytes)
{
    bool is_expert = role == MB_ROLE_EXPERT;
    report->n_weights += n_weights;
    report->coded_nbytes += blob_nbytes;
    report->padding_nbytes += mb_round_up(blob_nbytes, MB_ST_PAGE_NBYTES) - blob_nbytes;
    *(is_expert ? &report->expert_n_weights : &report->dense_n_weights) += n_weights;
    *(is_expert ? &report->expert_in_nbytes : &report->dense_in_nbytes) += in_nbytes;
    *(is_expert ? &report->expert_coded_nbytes : &report->dense_coded_nbytes) += blob_nbytes;
}
