/*
 * target_select.c - what a selection means for a model: its matrices.
 */
#include "base/error.h"
#include "base/memory.h"
#include "profile.h"
#include "target.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct selecting {
    const struct mb_target *target;
    const struct mb_model_matrix *matrices;
    size_t n;
    const struct mb_profile *profile;
    size_t n_layers;
    bool *has_layer;   /* [n_layers] selected */
    size_t *n_experts; /* [n_layers] routed ones */
    size_t *moe;       /* [n_moe] layers that have some */
    size_t n_moe;
    bool **has_expert; /* [n_layers] NULL, or [n_experts] selected */
    bool *is_selected; /* [n] */
};

static const char *const kind_names[MB_N_MATRIX_KINDS] = {
    "attention matrices", "dense MLPs", "routers",         "shared experts",
    "routed experts",     "embedding",  "head of its own",
};

/* ---------------------------------------------------------------- layers */

/* Third 0, 1 or 2 of n, by the middle of i. */
static size_t third_of(size_t i, size_t n)
{
    return 3 * (2 * i + 1) / (2 * n);
}

static bool is_in_word(struct mb_piece_of item, size_t i, size_t n)
{
    return mb_piece_is(item, "all") || (mb_piece_is(item, "first") && i == 0) ||
           (mb_piece_is(item, "last") && i + 1 == n) ||
           (mb_piece_is(item, "shallow") && third_of(i, n) == 0) ||
           (mb_piece_is(item, "middle") && third_of(i, n) == 1) ||
           (mb_piece_is(item, "deep") && third_of(i, n) == 2);
}

static bool is_layer_word(const struct selecting *s, struct mb_piece_of item)
{
    static const char *const words[] = {"all", "first", "last", "shallow", "middle", "deep"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (mb_piece_is(item, words[i]))
            return true;
    return !s->target->is_moe_count && (mb_piece_is(item, "moe") || mb_piece_is(item, "dense"));
}

/* Whether an item means the i-th of the layers that are counted; its number is i + base. */
static bool means_layer(const struct selecting *s, struct mb_piece_of item, size_t i, size_t n, size_t base)
{
    size_t from, to;
    if (mb_piece_range(item, &from, &to))
        return i + base >= from && i + base <= to;
    if (s->target->is_moe_count)
        return is_in_word(item, i, n);
    return is_in_word(item, i, n) || (mb_piece_is(item, "moe") && s->n_experts[i] > 0) ||
           (mb_piece_is(item, "dense") && s->n_experts[i] == 0);
}

static enum mb_status select_layer_item(struct selecting *s, struct mb_piece_of item, struct mb_error *err)
{
    const struct mb_target *target = s->target;
    const struct mb_word *word = &target->layers;
    size_t n = target->is_moe_count ? s->n_moe : s->n_layers, base = target->is_moe_count ? 1 : 0, from, to;
    bool is_range = mb_piece_range(item, &from, &to), is_any = false;
    if (n == 0)
        return mb_fail_word(target, word, item, err, "the model has no layer with routed experts");
    if (!is_range && !is_layer_word(s, item))
        return mb_fail_word(
            target, word, item, err,
            "not layers; write numbers (3 or 1-10), all, first, last, shallow, middle, deep%s",
            target->is_moe_count ? "" : ", moe or dense");
    if (is_range && (from < base || to > n - 1 + base))
        return mb_fail_word(target, word, item, err, "%s are %zu to %zu",
                            target->is_moe_count ? "layers with routed experts, counted from 1,"
                                                 : "the model's layers",
                            base, n - 1 + base);
    for (size_t i = 0; i < n; i++) {
        if (!means_layer(s, item, i, n, base))
            continue;
        s->has_layer[target->is_moe_count ? s->moe[i] : i] = true;
        is_any = true;
    }
    return is_any ? MB_OK
                  : mb_fail_word(target, word, item, err, "the model has no such layer, of its %zu", n);
}

static enum mb_status select_layers(struct selecting *s, struct mb_error *err)
{
    struct mb_piece_of rest = s->target->layers.value, item;
    if (s->target->layers.number == 0)
        for (size_t i = 0; i < s->n_layers; i++)
            s->has_layer[i] = true;
    while (mb_next_item(&rest, &item))
        MB_TRY(select_layer_item(s, item, err));
    return MB_OK;
}

/* ---------------------------------------------------------------- experts */

static enum mb_status need_profile(const struct selecting *s, struct mb_piece_of item, struct mb_error *err)
{
    return s->profile != NULL
               ? MB_OK
               : mb_fail_word(s->target, &s->target->experts, item, err,
                              "needs a usage profile, and there is none; 'moebius eval' makes one with "
                              "--profile-out, and --profile reads it");
}

/* Selects the k experts with the largest counts, or the smallest; lower numbers first among equals. */
static void select_extreme(const uint64_t *counts, size_t n, size_t k, bool is_most, bool *selected)
{
    for (; k > 0; k--) {
        size_t best = n;
        for (size_t e = 0; e < n; e++) {
            if (selected[e])
                continue;
            if (best == n || (is_most ? counts[e] > counts[best] : counts[e] < counts[best]))
                best = e;
        }
        selected[best] = true;
    }
}

/* top3, cold8 and unused add to what other items selected, so they choose among all experts. */
static enum mb_status select_by_usage(struct selecting *s, struct mb_piece_of item, size_t layer,
                                      struct mb_error *err)
{
    const uint64_t *counts = mb_profile_counts(s->profile, layer);
    size_t n = s->n_experts[layer], k = 0;
    bool is_top = mb_piece_number(item, "top", &k), is_cold = !is_top && mb_piece_number(item, "cold", &k);
    if ((is_top || is_cold) && (k == 0 || k > n))
        return mb_fail_word(s->target, &s->target->experts, item, err, "layer %zu has %zu experts", layer, n);
    bool *chosen = mb_alloc(n, sizeof *chosen);
    if (chosen == NULL)
        return mb_fail_memory(err, "a selection");
    if (is_top || is_cold)
        select_extreme(counts, n, k, is_top, chosen);
    for (size_t e = 0; e < n; e++) {
        bool is_unused = !is_top && !is_cold && counts[e] == 0;
        s->has_expert[layer][e] = s->has_expert[layer][e] || chosen[e] || is_unused;
    }
    free(chosen);
    return MB_OK;
}

static enum mb_status select_by_number(struct selecting *s, struct mb_piece_of item, size_t layer,
                                       size_t from, size_t to, struct mb_error *err)
{
    if (to >= s->n_experts[layer])
        return mb_fail_word(s->target, &s->target->experts, item, err, "experts of layer %zu are 0 to %zu",
                            layer, s->n_experts[layer] - 1);
    for (size_t e = from; e <= to; e++)
        s->has_expert[layer][e] = true;
    return MB_OK;
}

static enum mb_status select_expert_item(struct selecting *s, struct mb_piece_of item, size_t layer,
                                         struct mb_error *err)
{
    size_t from, to, k;
    if (mb_piece_range(item, &from, &to))
        return select_by_number(s, item, layer, from, to, err);
    if (mb_piece_is(item, "all"))
        return select_by_number(s, item, layer, 0, s->n_experts[layer] - 1, err);
    if (!mb_piece_is(item, "unused") && !mb_piece_number(item, "top", &k) &&
        !mb_piece_number(item, "cold", &k))
        return mb_fail_word(s->target, &s->target->experts, item, err,
                            "not experts; write numbers (3 or 0-7), all, top1 (the most used), cold8 (the 8 "
                            "least used) or unused");
    MB_TRY(need_profile(s, item, err));
    return select_by_usage(s, item, layer, err);
}

static enum mb_status select_experts(struct selecting *s, struct mb_error *err)
{
    bool is_any = false;
    for (size_t l = 0; l < s->n_layers; l++) {
        struct mb_piece_of rest = s->target->experts.value, item;
        if (rest.p == NULL || !s->has_layer[l] || s->n_experts[l] == 0)
            continue;
        is_any = true;
        s->has_expert[l] = mb_alloc(s->n_experts[l], sizeof **s->has_expert);
        if (s->has_expert[l] == NULL)
            return mb_fail_memory(err, "a selection");
        while (mb_next_item(&rest, &item))
            MB_TRY(select_expert_item(s, item, l, err));
    }
    const struct mb_word *word = &s->target->experts;
    return is_any || word->number == 0
               ? MB_OK
               : mb_fail_word(s->target, word, word->whole, err, "%s no routed experts",
                              s->target->layers.number > 0 ? "the selected layers have" : "the model has");
}

/* ---------------------------------------------------------------- projections and names */

static bool has_projection(const struct selecting *s, const struct mb_model_matrix *matrix)
{
    struct mb_piece_of rest = s->target->projection.value, item;
    bool is_in = rest.p == NULL;
    while (mb_next_item(&rest, &item))
        is_in = is_in || mb_piece_is(item, "all") || (item.n > 0 && mb_piece_is(item, matrix->part));
    return is_in;
}

static enum mb_status check_projections(const struct selecting *s, struct mb_error *err)
{
    static const char *const names[] = {"all", "gate", "up",  "down", "q",    "k",
                                        "v",   "o",    "q_a", "q_b",  "kv_a", "kv_b"};
    struct mb_piece_of rest = s->target->projection.value, item;
    while (mb_next_item(&rest, &item)) {
        bool is_known = false;
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            is_known = is_known || mb_piece_is(item, names[i]);
        if (!is_known)
            return mb_fail_word(
                s->target, &s->target->projection, item, err,
                "no such projection; there are gate, up and down, of attention q, k, v, o, q_a, "
                "q_b, kv_a and kv_b, and all");
    }
    return MB_OK;
}

/* '*' is any text. Goes back to the last star where what follows it did not fit. */
static bool matches(struct mb_piece_of pattern, const char *name)
{
    size_t p = 0, star = SIZE_MAX;
    const char *after_star = name;
    for (const char *c = name; *c != 0 || p < pattern.n;) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            after_star = c;
        } else if (p < pattern.n && *c != 0 && pattern.p[p] == *c) {
            p++;
            c++;
        } else if (star != SIZE_MAX && *after_star != 0) {
            p = star + 1;
            c = ++after_star;
        } else {
            return false;
        }
    }
    return true;
}

/* ---------------------------------------------------------------- marking */

static bool is_in_layers(const struct selecting *s, const struct mb_model_matrix *matrix)
{
    return matrix->layer < 0 ? s->target->layers.number == 0 : s->has_layer[matrix->layer];
}

static bool is_of_kind(const struct selecting *s, const struct mb_model_matrix *matrix,
                       enum mb_matrix_kind kind)
{
    if (matrix->kind != kind || !is_in_layers(s, matrix))
        return false;
    return kind != MB_MATRIX_EXPERT ||
           (s->has_expert[matrix->layer] != NULL && s->has_expert[matrix->layer][matrix->expert]);
}

static enum mb_status fail_none(const struct selecting *s, enum mb_matrix_kind kind, bool is_there,
                                struct mb_error *err)
{
    const struct mb_word *word = &s->target->kinds[kind];
    const char *where = s->target->layers.number > 0 ? "the selected layers have" : "the model has";
    if (is_there)
        return mb_fail_word(s->target, &s->target->projection, s->target->projection.value, err,
                            "none of '%.*s' has this projection",
                            (int)(word->whole.n < 60 ? word->whole.n : 60), word->whole.p);
    if (kind == MB_MATRIX_EXPERT) /* of those that exist */
        return mb_fail_word(s->target, word, word->value, err,
                            "selects nothing: by the profile every expert of these layers was used");
    if (kind == MB_MATRIX_HEAD)
        return mb_fail_word(s->target, word, word->whole, err,
                            "the model's head is its embedding: select embedding");
    return mb_fail_word(s->target, word, word->whole, err, "%s no %s", where, kind_names[kind]);
}

static enum mb_status mark_kind(struct selecting *s, enum mb_matrix_kind kind, struct mb_error *err)
{
    bool is_there = false, is_any = false;
    for (size_t i = 0; i < s->n; i++) {
        if (!is_of_kind(s, &s->matrices[i], kind))
            continue;
        is_there = true;
        if (has_projection(s, &s->matrices[i]))
            s->is_selected[i] = is_any = true;
    }
    return is_any ? MB_OK : fail_none(s, kind, is_there, err);
}

static enum mb_status mark_names(struct selecting *s, struct mb_error *err)
{
    struct mb_piece_of rest = s->target->name.value, item;
    while (mb_next_item(&rest, &item)) {
        bool is_any = false;
        for (size_t i = 0; i < s->n; i++)
            if (matches(item, s->matrices[i].name) && is_in_layers(s, &s->matrices[i]) &&
                has_projection(s, &s->matrices[i]))
                s->is_selected[i] = is_any = true;
        if (!is_any)
            return mb_fail_word(
                s->target, &s->target->name, item, err,
                "no such matrix among those that layers= and proj= leave; write the name of its "
                "tensor, '*' for any text");
    }
    return MB_OK;
}

static enum mb_status mark(struct selecting *s, struct mb_error *err)
{
    MB_TRY(check_projections(s, err));
    for (size_t kind = 0; kind < MB_N_MATRIX_KINDS; kind++)
        if (s->target->kinds[kind].number > 0)
            MB_TRY(mark_kind(s, (enum mb_matrix_kind)kind, err));
    return mark_names(s, err);
}

/* ---------------------------------------------------------------- the whole */

static enum mb_status begin(struct selecting *s, const struct mb_model *model, struct mb_error *err)
{
    s->matrices = mb_model_matrices(model, &s->n);
    s->n_layers = mb_model_info(model)->n_layers;
    s->has_layer = mb_alloc(s->n_layers, sizeof *s->has_layer);
    s->n_experts = mb_alloc(s->n_layers, sizeof *s->n_experts);
    s->moe = mb_alloc(s->n_layers, sizeof *s->moe);
    s->has_expert = mb_alloc(s->n_layers, sizeof(bool *));
    s->is_selected = mb_alloc(s->n, sizeof *s->is_selected);
    if (s->has_layer == NULL || s->n_experts == NULL || s->moe == NULL || s->has_expert == NULL ||
        s->is_selected == NULL)
        return mb_fail_memory(err, "a selection");
    for (size_t i = 0; i < s->n; i++)
        if (s->matrices[i].expert >= 0)
            s->n_experts[s->matrices[i].layer] = (size_t)s->matrices[i].expert + 1;
    for (size_t i = 0; i < s->n_layers; i++)
        if (s->n_experts[i] > 0)
            s->moe[s->n_moe++] = i;
    return MB_OK;
}

static void end(struct selecting *s)
{
    for (size_t i = 0; i < s->n_layers && s->has_expert != NULL; i++)
        free(s->has_expert[i]);
    free(s->has_layer);
    free(s->n_experts);
    free(s->moe);
    free(s->has_expert);
    free(s->is_selected);
}

static enum mb_status collect(const struct selecting *s, struct mb_selection *selection, struct mb_error *err)
{
    struct mb_piece_of projection = s->target->projection.value;
    selection->at = mb_alloc(s->n, sizeof *selection->at);
    if (selection->at == NULL)
        return mb_fail_memory(err, "a selection");
    for (size_t i = 0; i < s->n; i++)
        if (s->is_selected[i])
            selection->at[selection->n++] = i;
    snprintf(selection->projection, sizeof selection->projection, "%.*s",
             (int)(projection.n < sizeof selection->projection ? projection.n : sizeof selection->projection),
             projection.p == NULL ? "" : projection.p);
    if (projection.p == NULL)
        snprintf(selection->projection, sizeof selection->projection, "all");
    return MB_OK;
}

static enum mb_status run(struct selecting *s, const struct mb_model *model, struct mb_selection *selection,
                          struct mb_error *err)
{
    MB_TRY(begin(s, model, err));
    if (s->profile != NULL)
        MB_TRY(mb_profile_fits(s->profile, model, err));
    MB_TRY(select_layers(s, err));
    MB_TRY(select_experts(s, err));
    MB_TRY(mark(s, err));
    return collect(s, selection, err);
}

enum mb_status mb_select(const struct mb_model *model, const char *text, const struct mb_profile *profile,
                         struct mb_selection *selection, struct mb_error *err)
{
    struct mb_target target;
    *selection = (struct mb_selection){.at = NULL};
    MB_TRY(mb_target_parse(text, &target, err));
    struct selecting s = {.target = &target, .profile = profile};
    enum mb_status status = run(&s, model, selection, err);
    end(&s);
    return status;
}

void mb_selection_free(struct mb_selection *selection)
{
    free(selection->at);
    *selection = (struct mb_selection){.at = NULL};
}
