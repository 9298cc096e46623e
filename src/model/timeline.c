/*
 * timeline.c - what the engine tells who watches its time (moebius/timeline.h).
 */
#include "base/clock.h"
#include "model.h"

static const char *const product_names[MB_N_WEIGHTS] = {
    [MB_W_Q] = "q",
    [MB_W_Q_A] = "q_a",
    [MB_W_Q_B] = "q_b",
    [MB_W_KV_A] = "kv_a",
    [MB_W_KV_B] = "kv_b",
    [MB_W_K] = "k",
    [MB_W_V] = "v",
    [MB_W_O] = "o",
    [MB_W_GATE] = "gate+up",
    [MB_W_UP] = "up",
    [MB_W_DOWN] = "down",
    [MB_W_ROUTER] = "router",
    [MB_W_SHARED_GATE] = "shared gate+up",
    [MB_W_SHARED_UP] = "shared up",
    [MB_W_SHARED_DOWN] = "shared down",
    [MB_W_SHARED_SCORE] = "shared score",
    [MB_W_EXPERT_GATE] = "gate+up",
    [MB_W_EXPERT_UP] = "up",
    [MB_W_EXPERT_DOWN] = "down",
    [MB_W_EMBEDDING] = "head",
    [MB_W_HEAD] = "head",
};

void mb_show_product(const struct mb_timeline *timeline, const struct mb_product *product, int thread,
                     uint64_t begun_ns)
{
    const struct mb_matrix_place *place = &product->w->place;
    enum mb_weight_id id = (enum mb_weight_id)place->id;
    struct mb_timeline_event event = {
        .kind = MB_TIMELINE_PRODUCT,
        .track = (uint32_t)thread,
        .layer = id < MB_N_EXPERT_END ? (uint32_t)place->layer : MB_TIMELINE_NONE,
        .expert = mb_is_expert_matrix(id) ? (uint32_t)place->expert : MB_TIMELINE_NONE,
        .begun_ns = begun_ns,
        .ended_ns = mb_now_ns(),
        .n = product->n_tokens,
        .what = product_names[id],
    };
    timeline->fn(timeline->ctx, &event);
}

void mb_lap(struct mb_model *model, enum mb_timeline_kind kind, const struct mb_layer *layer, uint64_t *sum)
{
    const struct mb_timeline *timeline = &model->stage.timeline;
    uint64_t now_ns = mb_now_ns();
    if (timeline->fn != NULL) {
        struct mb_timeline_event event = {
            .kind = kind,
            .layer = layer != NULL ? (uint32_t)layer->index : MB_TIMELINE_NONE,
            .expert = MB_TIMELINE_NONE,
            .begun_ns = model->mark_ns,
            .ended_ns = now_ns,
        };
        timeline->fn(timeline->ctx, &event);
    }
    *sum += now_ns - model->mark_ns;
    model->mark_ns = now_ns;
}

void mb_show_pass(const struct mb_model *model, uint64_t begun_ns)
{
    const struct mb_timeline *timeline = &model->stage.timeline;
    if (timeline->fn == NULL)
        return;
    struct mb_timeline_event event = {.kind = MB_TIMELINE_PASS,
                                      .layer = MB_TIMELINE_NONE,
                                      .expert = MB_TIMELINE_NONE,
                                      .begun_ns = begun_ns,
                                      .ended_ns = model->mark_ns,
                                      .n = model->work.n_tokens};
    timeline->fn(timeline->ctx, &event);
}
