/*
 * mlp_experts.c - an MLP of a router, the experts that it chooses for each token, and maybe a shared expert
 * that all tokens go through.
 */
#include "base/error.h"
#include "mlp.h"
#include "model.h"
#include <string.h>

/*
 * Rows of tokens are [n_pass_tokens].  A *slot* is a token with one of its experts; slots are ordered by
 * expert: [n_pass_tokens * n_used].
 */
struct experts_part {
    float *shared_hidden; /* [..][d_shared] */
    struct mb_activations shared_hidden_a;
    float *shared_score;                          /* [..] */
    float *scores;                                /* [..][n_experts] the router's logits, then scores */
    float *choice;                                /* [..][n_experts] scores that experts are chosen by */
    int32_t *chosen;                              /* [..][n_used] */
    float *chosen_weight;                         /* [..][n_used] */
    float *margin;                                /* [..] */
    uint32_t *slot;                               /* [..][n_used] */
    struct mb_activation *slot_in, *slot_in_fast; /* [slots] the token's */
    float *slot_weight; /* [slots] the router's; filled while somebody watches inputs */
    float *slot_hidden; /* [slots][d_expert] */
    struct mb_activations slot_hidden_a;
    float *slot_y;          /* [slots][d_model] output; before that, the input if experts are not coded */
    uint32_t *expert_first; /* [n_experts + 1] first slot of each expert */
    uint32_t *active;       /* [n_experts] those that some token goes to */
    /* Experts that are multiplied together: */
    struct mb_expert_view *views; /* [MB_STORE_WAVE] */
    struct mb_linear *wave;       /* [MB_STORE_WAVE][MB_N_EXPERT_MATRICES] */
};

/* ---------------------------------------------------------------- weights and memory */

static void list(const struct mb_mlp_config *mlp, size_t d_model, struct mb_weight_list *weights)
{
    mb_list_matrix(weights, MB_W_ROUTER, mlp->router.n_experts, d_model, false);
    if (mlp->router.has_bias)
        mb_list_vector(weights, MB_W_ROUTER_BIAS, mlp->router.n_experts);
    mb_list_matrix(weights, MB_W_EXPERT_GATE, mlp->d_expert, d_model, false);
    mb_list_matrix(weights, MB_W_EXPERT_UP, mlp->d_expert, d_model, false);
    mb_list_matrix(weights, MB_W_EXPERT_DOWN, d_model, mlp->d_expert, false);
    if (mlp->d_shared == 0)
        return;
    mb_list_matrix(weights, MB_W_SHARED_GATE, mlp->d_shared, d_model, false);
    mb_list_matrix(weights, MB_W_SHARED_UP, mlp->d_shared, d_model, false);
    mb_list_matrix(weights, MB_W_SHARED_DOWN, d_model, mlp->d_shared, false);
    if (mlp->has_shared_score)
        mb_list_matrix(weights, MB_W_SHARED_SCORE, 1, d_model, false);
}

static void place(const struct mb_mlp_config *mlp, size_t d_model, size_t n_pass_tokens, struct mb_placing *p,
                  void *to)
{
    const uint64_t n = n_pass_tokens, f = sizeof(float), n_slots = n * mlp->router.n_used;
    const size_t n_experts = mlp->router.n_experts;
    struct experts_part part;
    part.shared_hidden = mb_take(p, n * mlp->d_shared, f);
    part.shared_hidden_a = mb_take_activations(p, n, mlp->d_shared);
    part.shared_score = mb_take(p, n, f);
    part.scores = mb_take(p, n * n_experts, f);
    part.choice = mb_take(p, n * n_experts, f);
    part.chosen = mb_take(p, n_slots, sizeof *part.chosen);
    part.chosen_weight = mb_take(p, n_slots, f);
    part.margin = mb_take(p, n, f);
    part.slot = mb_take(p, n_slots, sizeof *part.slot);
    part.slot_in = mb_take(p, n_slots, sizeof *part.slot_in);
    part.slot_in_fast = mb_take(p, n_slots, sizeof *part.slot_in_fast);
    part.slot_weight = mb_take(p, n_slots, f);
    part.slot_hidden = mb_take(p, n_slots * mlp->d_expert, f);
    part.slot_hidden_a = mb_take_activations(p, n_slots, mlp->d_expert);
    part.slot_y = mb_take(p, n_slots * d_model, f);
    part.expert_first = mb_take(p, n_experts + 1, sizeof *part.expert_first);
    part.active = mb_take(p, n_experts, sizeof *part.active);
    part.views = mb_take(p, MB_STORE_WAVE, sizeof *part.views);
    part.wave = mb_take(p, MB_STORE_WAVE * MB_N_EXPERT_MATRICES, sizeof *part.wave);
    if (to != NULL)
        *(struct experts_part *)to = part;
}

/* ---------------------------------------------------------------- the router's choice */

static void choose_experts(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)thread;
    const struct experts_part *part = mb_mlp_part(model, layer);
    const struct mb_router_config *r = &layer->mlp->router;
    part->margin[t] =
        mb_router_choose(r, model->ops, mb_layer_vector(layer, MB_W_ROUTER_BIAS), layer->dropped,
                         part->scores + t * r->n_experts, part->choice + t * r->n_experts,
                         part->chosen + t * r->n_used, part->chosen_weight + t * r->n_used);
}

static void report_routes(const struct mb_model *model, const struct mb_layer *layer)
{
    const struct mb_workspace *work = &model->work;
    const struct experts_part *part = mb_mlp_part(model, layer);
    size_t n_used = layer->mlp->router.n_used;
    for (size_t t = 0; t < work->n_tokens && model->route != NULL; t++)
        model->route(model->route_ctx, layer->index, work->pos[t], part->chosen + t * n_used,
                     part->chosen_weight + t * n_used, n_used, part->margin[t]);
    for (size_t t = 0; t < work->n_tokens; t++) {
        const struct mb_session_options *options = &work->segments[work->segment_of[t]].session->options;
        if (options->route != NULL)
            options->route(options->route_ctx, layer->index, work->pos[t], part->chosen + t * n_used,
                           part->chosen_weight + t * n_used, n_used, part->margin[t]);
    }
}

/* Gives every token and expert a slot, ordered by expert, then token. */
static void assign_slots(const struct mb_model *model, const struct mb_layer *layer)
{
    const struct experts_part *part = mb_mlp_part(model, layer);
    const struct mb_workspace *work = &model->work;
    const size_t n_experts = layer->mlp->router.n_experts, n_used = layer->mlp->router.n_used;
    const size_t n = work->n_tokens * n_used, d_model = model->config.d_model;
    uint32_t *first = part->expert_first; /* counts, then where the next one goes */
    memset(first, 0, (n_experts + 1) * sizeof *first);
    for (size_t i = 0; i < n; i++)
        first[part->chosen[i] + 1]++;
    for (size_t e = 0; e < n_experts; e++)
        first[e + 1] += first[e];
    for (size_t i = 0; i < n; i++) {
        uint32_t slot = first[part->chosen[i]]++;
        part->slot[i] = slot;
        part->slot_in[slot] = work->normed_a.at[i / n_used];
        part->slot_in_fast[slot] = work->normed_a.fast[i / n_used];
        if (model->stage.watch != NULL)
            part->slot_weight[slot] = part->chosen_weight[i];
        if (model->has_plain_experts)
            memcpy(part->slot_y + slot * d_model, work->normed + i / n_used * d_model,
                   d_model * sizeof *part->slot_y);
    }
    for (size_t e = n_experts; e > 0; e--)
        first[e] = first[e - 1];
    first[0] = 0;
}

const float *mb_expert_weights(const struct mb_model *model, const struct mb_layer *layer, size_t expert)
{
    const struct experts_part *part = mb_mlp_part(model, layer);
    return part->slot_weight + part->expert_first[expert];
}

static void add_shared_gate_up(struct mb_model *model, const struct mb_layer *layer)
{
    const struct experts_part *part = mb_mlp_part(model, layer);
    struct mb_stage *stage = &model->stage;
    size_t n = model->work.n_tokens;
    if (layer->mlp->d_shared > 0)
        mb_add_gate_up(stage, &layer->matrix[MB_W_SHARED_GATE], &layer->matrix[MB_W_SHARED_UP],
                       &layer->matrix[MB_W_SHARED_DOWN], mb_normed(model), n, part->shared_hidden,
                       &part->shared_hidden_a, layer->forms[MB_READ_SHARED_DOWN], 0);
    if (layer->mlp->has_shared_score)
        mb_add_product(stage, &layer->matrix[MB_W_SHARED_SCORE], mb_normed(model), n, part->shared_score);
}

/*
 * The shared expert does not wait for the router, so that it keeps the threads busy meanwhile; where experts
 * are read from disk, it is multiplied while they are (run_experts).
 */
static void route(struct mb_model *model, const struct mb_layer *layer)
{
    const struct experts_part *part = mb_mlp_part(model, layer);
    struct mb_stage *stage = &model->stage;
    mb_stage_begin(stage);
    mb_add_product(stage, &layer->matrix[MB_W_ROUTER], mb_normed(model), model->work.n_tokens, part->scores);
    mb_lookahead_add(model, layer);
    if (!model->is_streaming)
        add_shared_gate_up(model, layer);
    mb_stage_run(stage);
    mb_for_tokens(model, layer, choose_experts);
    mb_impose_routing(model, layer, false, part->chosen);
    report_routes(model, layer);
    assign_slots(model, layer);
}

/* ---------------------------------------------------------------- products */

/* A matrix of the w-th expert of the wave. */
static const struct mb_linear *wave_matrix(const struct experts_part *part, size_t w, enum mb_weight_id id)
{
    return &part->wave[w * MB_N_EXPERT_MATRICES + id - MB_N_LAYER_MATRICES];
}

static void add_gate_up(struct mb_model *model, const struct mb_layer *layer, size_t w, size_t e)
{
    const struct experts_part *part = mb_mlp_part(model, layer);
    const size_t d_model = model->config.d_model, first = part->expert_first[e];
    struct mb_vectors in = {part->slot_y + first * d_model, d_model, part->slot_in + first,
                            part->slot_in_fast + first};
    mb_add_gate_up(&model->stage, wave_matrix(part, w, MB_W_EXPERT_GATE),
                   wave_matrix(part, w, MB_W_EXPERT_UP), wave_matrix(part, w, MB_W_EXPERT_DOWN), in,
                   part->expert_first[e + 1] - first, part->slot_hidden + first * layer->mlp->d_expert,
                   &part->slot_hidden_a, layer->forms[MB_READ_EXPERT_DOWN], first);
}

static void add_down(struct mb_model *model, const struct mb_layer *layer, size_t w, size_t e)
{
    const struct experts_part *part = mb_mlp_part(model, layer);
    const size_t d_expert = layer->mlp->d_expert, first = part->expert_first[e];
    struct mb_vectors in = {part->slot_hidden + first * d_expert, d_expert, part->slot_hidden_a.at + first,
                            part->slot_hidden_a.fast + first};
    mb_add_product(&model->stage, wave_matrix(part, w, MB_W_EXPERT_DOWN), in,
                   part->expert_first[e + 1] - first, part->slot_y + first * model->config.d_model);
}

static void add_shared_down(struct mb_model *model, const struct mb_layer *layer)
{
    const struct experts_part *part = mb_mlp_part(model, layer);
    const size_t d_shared = layer->mlp->d_shared;
    if (d_shared > 0)
        mb_add_product(&model->stage, &layer->matrix[MB_W_SHARED_DOWN],
                       mb_vectors_of(part->shared_hidden, d_shared, &part->shared_hidden_a),
                       model->work.n_tokens, model->work.y);
}

/* y = the shared expert's output (or 0), by its score if there is one, + the chosen experts', in the order of
 * the router's choice. */
static void combine(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)thread;
    const struct experts_part *part = mb_mlp_part(model, layer);
    const size_t d_model = model->config.d_model, n_used = layer->mlp->router.n_used;
    float *y = model->work.y + t * d_model;
    if (layer->mlp->d_shared == 0)
        memset(y, 0, d_model * sizeof *y);
    if (layer->mlp->has_shared_score) {
        model->ops->sigmoid(part->shared_score + t, 1, part->shared_score + t);
        model->ops->scale(part->shared_score[t], d_model, y);
    }
    for (size_t k = 0; k < n_used; k++)
        model->ops->axpy(part->chosen_weight[t * n_used + k],
                         part->slot_y + part->slot[t * n_used + k] * d_model, d_model, y);
}

/* ---------------------------------------------------------------- waves */

static size_t list_active(const struct mb_model *model, const struct mb_layer *layer)
{
    const struct experts_part *part = mb_mlp_part(model, layer);
    size_t n = 0;
    for (size_t e = 0; e < layer->mlp->router.n_experts; e++)
        if (part->expert_first[e + 1] > part->expert_first[e])
            part->active[n++] = (uint32_t)e;
    return n;
}

/* Experts [first, first + n) of the active ones, which have been acquired; the shared one goes with the
 * first. */
static void run_wave(struct mb_model *model, const struct mb_layer *layer, size_t first, size_t n,
                     bool with_shared_gate_up)
{
    const struct experts_part *part = mb_mlp_part(model, layer);
    for (size_t w = 0; w < n; w++)
        for (size_t m = 0; m < MB_N_EXPERT_MATRICES; m++)
            part->wave[w * MB_N_EXPERT_MATRICES + m] =
                (struct mb_linear){part->views[w].matrices[m],
                                   NULL,
                                   {(int)(MB_N_LAYER_MATRICES + m), layer->index, part->active[first + w]}};
    mb_stage_begin(&model->stage);
    for (size_t w = 0; w < n; w++)
        add_gate_up(model, layer, w, part->active[first + w]);
    if (with_shared_gate_up)
        add_shared_gate_up(model, layer);
    mb_stage_run(&model->stage);
    mb_stage_begin(&model->stage);
    for (size_t w = 0; w < n; w++)
        add_down(model, layer, w, part->active[first + w]);
    if (first == 0)
        add_shared_down(model, layer);
    mb_stage_run(&model->stage);
}

/* A pass with tokens of a prompt goes through nearly all experts. */
static enum mb_store_use use_of(const struct mb_workspace *work)
{
    for (size_t s = 0; s < work->n_segments; s++)
        if (!work->segments[s].is_generated)
            return MB_STORE_ONCE;
    return MB_STORE_KEEP;
}

/*
 * What is missing, then guesses of the next layer, are read from now on.  The shared expert does not wait for
 * them: it goes with the first ones that are there, or alone.  Returns whether it has gone.
 */
static bool begin_reads(struct mb_model *model, const struct mb_layer *layer, size_t n_active,
                        enum mb_store_use use)
{
    const struct experts_part *part = mb_mlp_part(model, layer);
    size_t n_present = mb_store_begin(model->store, layer->index, part->active, n_active, use);
    mb_lookahead_tell(model, layer);
    if (n_present > 0)
        return false;
    mb_stage_begin(&model->stage);
    add_shared_gate_up(model, layer);
    mb_stage_run(&model->stage);
    return true;
}

/* Those that are in memory are multiplied while others are read.  Each writes slots of its own: in what order
 * they come, and how many are multiplied together, does not change a bit. */
static enum mb_status run_experts(struct mb_model *model, const struct mb_layer *layer, struct mb_error *err)
{
    const struct experts_part *part = mb_mlp_part(model, layer);
    const enum mb_store_use use = use_of(&model->work);
    size_t n_active = list_active(model, layer);
    bool has_shared = !model->is_streaming || begin_reads(model, layer, n_active, use);
    for (size_t first = 0, n; first < n_active; first += n) {
        uint32_t *rest = part->active + first;
        if (model->is_cancelled != NULL && model->is_cancelled(model->cancel_ctx))
            return mb_fail(err, MB_CANCELLED, "interrupted");
        MB_TRY(mb_store_acquire_some(model->store, layer->index, rest, n_active - first, model->n_wave, use,
                                     part->views, &n, err));
        run_wave(model, layer, first, n, first == 0 && !has_shared);
        mb_store_release(model->store, layer->index, rest, n);
    }
    mb_for_tokens(model, layer, combine);
    return MB_OK;
}

static enum mb_status run(struct mb_model *model, const struct mb_layer *layer, struct mb_error *err)
{
    route(model, layer);
    mb_lap(model, MB_TIMELINE_ROUTER, layer, &model->timing.router_ns);
    MB_TRY(run_experts(model, layer, err));
    mb_lap(model, MB_TIMELINE_EXPERTS, layer, &model->timing.experts_ns);
    return MB_OK;
}

const struct mb_mlp_kind mb_mlp_experts = {.name = "experts",
                                           .has_experts = true,
                                           .list = list,
                                           .part_nbytes = sizeof(struct experts_part),
                                           .place = place,
                                           .run = run};
