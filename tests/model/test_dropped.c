/*
 * test_dropped.c - experts that the router passes over, and come back without a trace.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <moebius/engine.h>
#include <stdio.h>
#include <string.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"
enum { N_TOKENS = 24, N_VOCAB_MAX = 128 };

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static struct mb_model *open_model(const char *name)
{
    struct mb_error err;
    struct mb_model *model;
    char path[512];
    struct mb_model_options options = {.size = sizeof options, .n_threads = 2};
    snprintf(path, sizeof path, "%s%s", CHECKPOINTS, name);
    must(mb_model_open(path, &options, &model, &err), &err);
    return model;
}

/* What a prompt gives, and how often each expert of a layer was chosen. */
struct result {
    float logits[N_TOKENS * N_VOCAB_MAX];
    size_t layer, n_chosen[64], n_routes;
    size_t n_used;
};

static void count(void *ctx, size_t layer, size_t pos, const int32_t *experts, const float *weights,
                  size_t n_experts, float margin)
{
    struct result *r = ctx;
    (void)pos, (void)weights, (void)margin;
    if (layer != r->layer)
        return;
    r->n_routes++;
    r->n_used = n_experts;
    for (size_t i = 0; i < n_experts; i++)
        r->n_chosen[experts[i]]++;
}

static struct result run(struct mb_model *model, size_t layer)
{
    struct result r = {.layer = layer};
    struct mb_error err;
    struct mb_session *session;
    struct mb_session_options options = {.size = sizeof options, .route = count, .route_ctx = &r};
    int32_t tokens[N_TOKENS];
    for (size_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (int32_t)((i * 31 + 7) % mb_model_info(model)->n_vocab);
    must(mb_session_open(model, &options, &session, &err), &err);
    struct mb_batch_item item = {
        .session = session, .tokens = tokens, .n_tokens = N_TOKENS, .logits = r.logits, .all_logits = true};
    must(mb_decode(model, &item, 1, &err), &err);
    mb_session_close(session);
    return r;
}

static void check_model(const char *name, size_t layer)
{
    struct mb_model *model = open_model(name);
    struct mb_error err;
    struct result before = run(model, layer);
    size_t n_experts = mb_model_info(model)->n_experts;
    assert_int_equal(before.n_routes, N_TOKENS);
    for (size_t e = 0; e < n_experts; e++) {
        must(mb_model_drop_expert(model, layer, e, true, &err), &err);
        struct result without = run(model, layer);
        assert_int_equal(without.n_chosen[e], 0);
        assert_int_equal(without.n_routes, N_TOKENS);
        assert_int_equal(without.n_used, before.n_used);
        bool is_equal = memcmp(without.logits, before.logits, sizeof before.logits) == 0;
        if (before.n_chosen[e] > 0 && is_equal)
            fail_msg("%s: expert %zu is dropped, and nothing changes", name, e);
        must(mb_model_drop_expert(model, layer, e, false, &err), &err);
        struct result after = run(model, layer);
        assert_memory_equal(after.logits, before.logits, sizeof before.logits);
    }
    mb_model_close(model);
}

static void a_dropped_expert_is_never_chosen_and_comes_back_without_a_trace(void **state)
{
    (void)state;
    check_model("groups", 1);
    check_model("qwen3-moe", 0);
    check_model("phimoe", 1);
    check_model("mixtral", 0);
    check_model("granitemoe", 0);
}

static void as_many_experts_are_left_as_a_token_goes_to(void **state)
{
    (void)state;
    struct mb_model *model = open_model("qwen3-moe");
    struct mb_error err;
    struct result before = run(model, 0);
    size_t n = mb_model_info(model)->n_experts, n_used = mb_model_info(model)->n_experts_used;
    for (size_t e = 0; e < n - n_used; e++)
        must(mb_model_drop_expert(model, 0, e, true, &err), &err);
    must(mb_model_drop_expert(model, 0, 0, true, &err), &err); /* it is dropped already */
    assert_int_equal(mb_model_drop_expert(model, 0, n - 1, true, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "layer 0"));
    struct result r = run(model, 0);
    for (size_t e = 0; e < n; e++)
        assert_int_equal(r.n_chosen[e], e < n - n_used ? 0 : N_TOKENS);
    for (size_t e = 0; e < n; e++)
        must(mb_model_drop_expert(model, 0, e, false, &err), &err);
    struct result after = run(model, 0);
    assert_memory_equal(after.logits, before.logits, sizeof before.logits);
    mb_model_close(model);
}

/* 4 groups of 3, 2 of them chosen, 4 experts chosen of these. */
static void groups_keep_enough_experts_whichever_are_chosen(void **state)
{
    (void)state;
    struct mb_model *model = open_model("groups");
    struct mb_error err;
    must(mb_model_drop_expert(model, 1, 0, true, &err), &err);
    assert_int_equal(mb_model_drop_expert(model, 1, 1, true, &err), MB_OK);
    assert_int_equal(mb_model_drop_expert(model, 1, 2, true, &err), MB_USAGE); /* the best two may have 3 */
    must(mb_model_drop_expert(model, 1, 1, false, &err), &err);
    must(mb_model_drop_expert(model, 1, 3, true, &err), &err);
    assert_int_equal(mb_model_drop_expert(model, 1, 4, true, &err), MB_USAGE);
    mb_model_close(model);
}

static void what_is_no_expert_cannot_be_dropped(void **state)
{
    (void)state;
    struct mb_model *model = open_model("groups");
    struct mb_error err;
    assert_int_equal(mb_model_drop_expert(model, 3, 0, true, &err), MB_USAGE);
    assert_int_equal(mb_model_drop_expert(model, 0, 0, true, &err), MB_USAGE); /* a dense layer */
    assert_int_equal(mb_model_drop_expert(model, 1, 12, true, &err), MB_USAGE);
    assert_int_equal(mb_model_drop_expert(model, 1, 12, false, &err), MB_USAGE);
    must(mb_model_drop_expert(model, 1, 11, false, &err), &err); /* it is not dropped: nothing to do */
    mb_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dropped_expert_is_never_chosen_and_comes_back_without_a_trace),
        cmocka_unit_test(as_many_experts_are_left_as_a_token_goes_to),
        cmocka_unit_test(groups_keep_enough_experts_whichever_are_chosen),
        cmocka_unit_test(what_is_no_expert_cannot_be_dropped),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
