/*
 * router.c - see router.h.
 *
 * What all routers share: logits become scores, scores (with a bias, in some families) become choice scores,
 * the n_used best are chosen, perhaps from the best groups alone, and their scores without bias become
 * weights.  A dropped expert has a logit and a choice score of -infinity, and is taken before the choice
 * begins.
 */
#include "router.h"
#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- kinds of scores */

static void softmax(const struct mb_float_ops *ops, float *x, size_t n)
{
    float sum = ops->exp_sum(x, n, 1, ops->max(x, n));
    ops->scale(1.0F / sum, n, x);
}

static void sigmoid_scores(const struct mb_float_ops *ops, float *x, size_t n)
{
    ops->sigmoid(x, n, x);
}

static void leave(const struct mb_float_ops *ops, float *x, size_t n)
{
    (void)ops, (void)x, (void)n;
}

/* What is done to the logits of all experts, and to the scores of the chosen ones. */
static const struct score_kind {
    void (*all)(const struct mb_float_ops *ops, float *x, size_t n);
    void (*chosen)(const struct mb_float_ops *ops, float *x, size_t n);
} score_kinds[] = {
    [MB_SCORE_SIGMOID] = {sigmoid_scores, leave},
    [MB_SCORE_SOFTMAX] = {softmax, leave},
    [MB_SCORE_SOFTMAX_CHOSEN] = {leave, softmax},
    [MB_SCORE_SPARSEMIXER] = {leave, leave},
};

/* ---------------------------------------------------------------- the choice */

/* Index of the largest value that is not taken; the lowest among equals. A NaN is never larger. */
static size_t largest_left(const float *values, const bool *taken, size_t n)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++)
        if (!taken[i] && (best == n || values[i] > values[best]))
            best = i;
    return best;
}

static float group_score(enum mb_group_score kind, const float *choice, size_t n)
{
    float first = -INFINITY, second = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        float x = choice[i];
        second = x > first ? first : x > second ? x : second;
        first = x > first ? x : first;
    }
    return kind == MB_GROUP_BEST ? first : first + second;
}

/* Experts of groups that are not among the best cannot be chosen. */
static void limit_groups(const struct mb_router_config *r, float *choice)
{
    float score[MB_EXPERTS_MAX];
    bool taken[MB_EXPERTS_MAX] = {false};
    size_t n = r->n_experts / r->n_groups;
    for (size_t g = 0; g < r->n_groups; g++)
        score[g] = group_score(r->group_score, choice + g * n, n);
    for (size_t k = 0; k < r->n_groups_used; k++)
        taken[largest_left(score, taken, r->n_groups)] = true;
    for (size_t g = 0; g < r->n_groups; g++)
        for (size_t i = 0; i < n && !taken[g]; i++)
            choice[g * n + i] = -INFINITY;
}

static float choose(const struct mb_router_config *r, const bool *dropped, const float *choice,
                    int32_t *chosen)
{
    bool taken[MB_EXPERTS_MAX] = {false};
    if (dropped != NULL)
        memcpy(taken, dropped, r->n_experts * sizeof *taken);
    for (size_t k = 0; k < r->n_used; k++) {
        size_t e = largest_left(choice, taken, r->n_experts);
        taken[e] = true;
        chosen[k] = (int32_t)e;
    }
    size_t next = largest_left(choice, taken, r->n_experts);
    return next == r->n_experts ? INFINITY : choice[chosen[r->n_used - 1]] - choice[next];
}

static void weigh(const struct mb_router_config *r, float *weight)
{
    float sum = 0;
    for (size_t k = 0; k < r->n_used; k++)
        sum += weight[k];
    for (size_t k = 0; k < r->n_used; k++) {
        if (r->norm_weights)
            weight[k] /= sum + r->norm_min;
        weight[k] *= r->scale;
    }
}

/*
 * The weight of the k-th chosen expert among those whose logits are not far below its own; 'kept' is scratch.
 * As transformers does, logits that were chosen before count in the measure of distance alone.
 */
static float sparsemixer_weight(const struct mb_router_config *r, const struct mb_float_ops *ops,
                                const bool *dropped, const float *logits, const int32_t *chosen, size_t k,
                                float *kept)
{
    float best = logits[chosen[k]];
    size_t n = 0;
    for (size_t e = 0; e < r->n_experts; e++) {
        if (dropped != NULL && dropped[e])
            continue;
        float size = fabsf(logits[e]) > best ? fabsf(logits[e]) : best;
        bool is_far = (best - logits[e]) / size > 2 * r->jitter, is_before = false;
        for (size_t i = 0; i < k; i++)
            is_before = is_before || (size_t)chosen[i] == e;
        if (!is_far && !is_before)
            kept[n++] = logits[e];
    }
    return 1.0F / ops->exp_sum(kept, n, 1, best);
}

static void rule_out(const bool *dropped, size_t n_experts, float *values)
{
    for (size_t e = 0; dropped != NULL && e < n_experts; e++)
        if (dropped[e])
            values[e] = -INFINITY;
}

float mb_router_choose(const struct mb_router_config *r, const struct mb_float_ops *ops, const float *bias,
                       const bool *dropped, float *scores, float *choice, int32_t *chosen, float *weight)
{
    const struct score_kind *kind = &score_kinds[r->score];
    rule_out(dropped, r->n_experts, scores);
    kind->all(ops, scores, r->n_experts);
    for (size_t e = 0; e < r->n_experts; e++)
        choice[e] = r->has_bias ? scores[e] + bias[e] : scores[e];
    rule_out(dropped, r->n_experts, choice);
    if (r->n_groups > 1)
        limit_groups(r, choice);
    float margin = choose(r, dropped, choice, chosen);
    for (size_t k = 0; k < r->n_used; k++)
        weight[k] = scores[chosen[k]];
    for (size_t k = 0; r->score == MB_SCORE_SPARSEMIXER && k < r->n_used; k++)
        weight[k] = sparsemixer_weight(r, ops, dropped, scores, chosen, k, choice);
    kind->chosen(ops, weight, r->n_used);
    weigh(r, weight);
    return margin;
}
