/*
 * logical.c - makes the list of logical tensors when a plain folder is opened: every stored tensor goes
 * through the rules.
 */
#include "base/error.h"
#include "fp8.h"
#include "fused.h"
#include "packed.h"
#include "text_model.h"
#include <stdlib.h>
#include <string.h>

/* Asked in this order; the first that takes a tensor is the last that sees it. */
static const mb_view_rule rules[] = {
    mb_rule_packed,
    mb_rule_fp8,
    mb_rule_fused,
};

static enum mb_status add_stored(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                                 const struct mb_tensor *stored, struct mb_error *err)
{
    bool is_taken = false;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0] && !is_taken; i++)
        MB_TRY(rules[i](list, ckpt, stored, &is_taken, err));
    if (is_taken)
        return MB_OK;
    struct mb_view view = {.tensor = *stored, .stored = stored};
    view.tensor.name = mb_logical_name(ckpt, stored->name);
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
    ckpt->fused = list->fused;
    ckpt->n_fused = list->n_fused;
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
    mb_free_fused(list.fused, list.n_fused);
    return status == MB_OK ? check_names(ckpt, err) : status;
}

void mb_views_free(struct mb_checkpoint *ckpt)
{
    if (ckpt->views != NULL)
        free_list(ckpt->views, ckpt->n_tensors);
    mb_free_fused(ckpt->fused, ckpt->n_fused);
    free(ckpt->stored);
}
