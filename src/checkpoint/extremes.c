/*
 * extremes.c - finds weights that are far larger than all others of their matrix or expert.
 *
 * One of them is enough to spoil a bound that is relative to the mean or the range: the others are then
 * smaller than it and become zero.  They are told from the others by the median, which they do not move.
 * Finding it takes a second look at the weights, which the sums of the first one allow to skip: a weight that
 * spoils a mean is at least some hundred times as large.
 */
#include "extremes.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/value.h"
#include "blob_units.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/*
 * Trained weights reach some hundred times the mean ("super weights").  A flipped bit of the exponent is a
 * factor of 2, 4, 16, 256, 2^16, ...: what is 4,096 times the median belongs to no distribution of weights.
 */
enum { SUSPECT_RATIO = 256, EXTREME_BITS = 12, N_EXPONENTS = 256 };
static const double DAMAGED_RATIO = 65536; /* of the mean: reported whatever it does to the bound */
static const double EPS_RATIO = 1.25;      /* how much wider a bound may be for them, unreported */

bool mb_may_have_extremes(const struct mb_weight_stats *stats)
{
    double largest = fmax(fabs(stats->min), fabs(stats->max));
    return stats->n > 0 && largest * (double)stats->n > SUSPECT_RATIO * stats->sum_abs;
}

/* The weights of one power of two. */
struct by_exponent {
    struct mb_weight_stats of[N_EXPONENTS];
    float largest;
    const struct mb_tensor *tensor; /* that has the largest, at index */
    uint64_t index;
};

static void add_weight(struct by_exponent *weights, const struct mb_tensor *tensor, uint64_t index, float w)
{
    struct mb_weight_stats *stats = &weights->of[mb_bits_of_float(w) >> 23 & 0xff];
    double value = (double)w;
    stats->min = stats->n == 0 || value < stats->min ? value : stats->min;
    stats->max = stats->n == 0 || value > stats->max ? value : stats->max;
    stats->sum_abs += fabs(value);
    stats->n++;
    if (weights->tensor == NULL || fabsf(w) > fabsf(weights->largest)) {
        weights->largest = w;
        weights->tensor = tensor;
        weights->index = index;
    }
}

static enum mb_status add_tensor(struct by_exponent *weights, const struct mb_checkpoint *ckpt,
                                 const struct mb_tensor *tensor, uint8_t *buffer, struct mb_error *err)
{
    enum mb_dtype dtype = mb_tensor_dtype(tensor);
    size_t elem_nbytes = mb_dtype_nbytes(dtype);
    for (uint64_t pos = 0; pos < tensor->nbytes; pos += MB_CHUNK_NBYTES) {
        uint64_t nbytes = tensor->nbytes - pos < MB_CHUNK_NBYTES ? tensor->nbytes - pos : MB_CHUNK_NBYTES;
        MB_TRY(mb_checkpoint_read(ckpt, tensor, pos, buffer, nbytes, err));
        for (size_t i = 0; i < nbytes / elem_nbytes; i++)
            add_weight(weights, tensor, pos / elem_nbytes + i, mb_load_value(dtype, buffer, i));
    }
    return MB_OK;
}

/* The exponent of the median of all weights that are not zero; N_EXPONENTS: all are zero. */
static size_t median_exponent(const struct by_exponent *weights)
{
    uint64_t n = 0, n_below = 0;
    for (size_t e = 1; e < N_EXPONENTS; e++)
        n += weights->of[e].n;
    for (size_t e = 1; e < N_EXPONENTS; e++) {
        n_below += weights->of[e].n;
        if (n > 0 && 2 * n_below >= n)
            return e;
    }
    return N_EXPONENTS;
}

static void merge(struct mb_weight_stats *to, const struct mb_weight_stats *from)
{
    if (from->n == 0)
        return;
    to->min = to->n == 0 ? from->min : fmin(to->min, from->min);
    to->max = to->n == 0 ? from->max : fmax(to->max, from->max);
    to->sum_abs += from->sum_abs;
    to->n += from->n;
}

/* *found is filled if the weights beyond the median's 4,096-fold do harm. */
static bool judge(const struct by_exponent *weights, const struct mb_bound *bound, struct mb_extreme *found)
{
    size_t median = median_exponent(weights);
    struct mb_weight_stats rest = MB_WEIGHT_STATS_INIT, all = MB_WEIGHT_STATS_INIT;
    for (size_t e = 0; e < N_EXPONENTS; e++) {
        merge(&all, &weights->of[e]);
        if (e <= median + EXTREME_BITS)
            merge(&rest, &weights->of[e]);
    }
    if (rest.n == all.n || rest.sum_abs == 0)
        return false;
    uint64_t n_cols = weights->tensor->shape[1];
    *found = (struct mb_extreme){
        .row = weights->index / n_cols,
        .col = weights->index % n_cols,
        .value = (double)weights->largest,
        .ratio = fabs((double)weights->largest) / (rest.sum_abs / (double)rest.n),
        .n = all.n - rest.n,
        .eps = mb_bound_eps(bound, &all),
        .eps_rest = mb_bound_eps(bound, &rest),
    };
    snprintf(found->tensor, sizeof found->tensor, "%s", weights->tensor->name);
    return found->ratio >= DAMAGED_RATIO || found->eps > EPS_RATIO * found->eps_rest;
}

/* By ratio, the largest first; of equal ones by name. */
static bool comes_before(const struct mb_extreme *a, const struct mb_extreme *b)
{
    return a->ratio > b->ratio || (a->ratio == b->ratio && strcmp(a->tensor, b->tensor) < 0);
}

static void insert(struct mb_extremes *extremes, const struct mb_extreme *extreme)
{
    size_t n = extremes->n_listed, at = n;
    while (at > 0 && comes_before(extreme, &extremes->list[at - 1]))
        at--;
    if (at == MB_EXTREMES_MAX)
        return;
    size_t n_moved = (n < MB_EXTREMES_MAX ? n : MB_EXTREMES_MAX - 1) - at;
    memmove(&extremes->list[at + 1], &extremes->list[at], n_moved * sizeof *extreme);
    extremes->list[at] = *extreme;
    extremes->n_listed += n < MB_EXTREMES_MAX;
}

enum mb_status mb_find_extremes(const struct mb_checkpoint *ckpt, const struct mb_layout_item *items,
                                size_t n, const struct mb_bound *bound, uint8_t *buffer,
                                struct mb_extremes *extremes, struct mb_error *err)
{
    struct by_exponent weights = {.tensor = NULL};
    struct mb_extreme found;
    for (size_t i = 0; i < n; i++)
        if (mb_tensor_is_float(items[i].tensor) && items[i].tensor->n_dims == 2)
            MB_TRY(add_tensor(&weights, ckpt, items[i].tensor, buffer, err));
    if (weights.tensor != NULL && judge(&weights, bound, &found)) {
        insert(extremes, &found);
        extremes->n++;
    }
    return MB_OK;
}

void mb_extremes_add(struct mb_extremes *to, const struct mb_extremes *from)
{
    for (size_t i = 0; i < from->n_listed; i++)
        insert(to, &from->list[i]);
    to->n += from->n;
}

/* ---------------------------------------------------------------- JSON */

json_t *mb_extremes_to_json(const struct mb_extremes *extremes)
{
    json_t *list = json_array();
    bool ok = list != NULL;
    for (size_t i = 0; i < extremes->n_listed && ok; i++) {
        const struct mb_extreme *e = &extremes->list[i];
        ok = json_array_append_new(list,
                                   json_pack("{s:s, s:I, s:I, s:f, s:f, s:I, s:f, s:f}", "tensor", e->tensor,
                                             "row", (json_int_t)e->row, "column", (json_int_t)e->col, "value",
                                             e->value, "ratio", e->ratio, "n", (json_int_t)e->n, "eps",
                                             e->eps, "eps_rest", e->eps_rest)) == 0;
    }
    json_t *json = ok ? json_pack("{s:I, s:O}", "n", (json_int_t)extremes->n, "list", list) : NULL;
    json_decref(list);
    return json;
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

void mb_extremes_add_json(struct mb_extremes *to, const json_t *from)
{
    size_t i;
    const json_t *entry;
    json_array_foreach(json_object_get(from, "list"), i, entry)
    {
        const char *tensor = json_string_value(json_object_get(entry, "tensor"));
        struct mb_extreme e = {
            .row = (uint64_t)json_integer_value(json_object_get(entry, "row")),
            .col = (uint64_t)json_integer_value(json_object_get(entry, "column")),
            .value = number(entry, "value"),
            .ratio = number(entry, "ratio"),
            .n = (uint64_t)json_integer_value(json_object_get(entry, "n")),
            .eps = number(entry, "eps"),
            .eps_rest = number(entry, "eps_rest"),
        };
        snprintf(e.tensor, sizeof e.tensor, "%s", tensor == NULL ? "" : tensor);
        insert(to, &e);
    }
    to->n += (uint64_t)json_integer_value(json_object_get(from, "n"));
}
