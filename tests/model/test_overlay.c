/*
 * test_overlay.c - changed weights lie over a model and come off without a trace; how many experts of a layer
 * are multiplied together does not show.
 */
#include "base/error.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "model/model.h"
#include <moebius/checkpoint.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <string.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"
enum { N_VOCAB_MAX = 128, N_TOKENS = 24 };

struct logits {
    float at[N_TOKENS + 1][N_VOCAB_MAX];
};

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static struct mb_model *open_model(const char *folder)
{
    struct mb_error err;
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = 2};
    must(mb_model_open(folder, &options, &model, &err), &err);
    return model;
}

/* Logits of a prompt and of a token generated after it, in a fresh session. */
static struct logits run(struct mb_model *model)
{
    static float rows[N_TOKENS * N_VOCAB_MAX];
    struct logits logits = {0};
    struct mb_error err;
    struct mb_session *session;
    int32_t tokens[N_TOKENS];
    size_t n_vocab = mb_model_info(model)->n_vocab;
    assert_true(n_vocab <= N_VOCAB_MAX);
    for (size_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (int32_t)((i * 31 + 7) % n_vocab);
    must(mb_session_open(model, NULL, &session, &err), &err);
    struct mb_batch_item item = {
        .session = session, .tokens = tokens, .n_tokens = N_TOKENS, .logits = rows, .all_logits = true};
    must(mb_decode(model, &item, 1, &err), &err);
    for (size_t i = 0; i < N_TOKENS; i++)
        memcpy(logits.at[i], rows + i * n_vocab, n_vocab * sizeof *rows);
    item.n_tokens = 1;
    item.is_generated = true;
    item.logits = logits.at[N_TOKENS];
    must(mb_decode(model, &item, 1, &err), &err);
    mb_session_close(session);
    return logits;
}

static bool are_equal(const struct logits *a, const struct logits *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static void make_coded(const char *name, const char *bound_text)
{
    struct mb_error err;
    struct mb_bound bound;
    struct mb_compress_report report;
    char path[512];
    must(mb_bound_parse(bound_text, &bound, &err), &err);
    struct mb_tensor_bound all = {".", bound};
    struct mb_compress_options options = {
        .size = sizeof options, .n_threads = 2, .tensor_bounds = &all, .n_tensor_bounds = 1};
    snprintf(path, sizeof path, "%s%s", CHECKPOINTS, name);
    must(mb_compress(path, test_path("coded"), &options, &report, &err), &err);
}

/* ---------------------------------------------------------------- waves */

static void check_waves(const char *folder)
{
    static const size_t waves[] = {1, 2, 3};
    struct mb_model *model = open_model(folder);
    struct logits together = run(model);
    for (size_t i = 0; i < sizeof waves / sizeof *waves; i++) {
        model->n_wave = waves[i];
        struct logits logits = run(model);
        if (!are_equal(&logits, &together))
            fail_msg("%s: experts in waves of %zu: other bits than together", folder, waves[i]);
    }
    mb_model_close(model);
}

static void waves_of_experts_do_not_show(void **state)
{
    static const char *const names[] = {"groups", "shapes", "qwen3-moe"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s%s", CHECKPOINTS, names[i]);
        check_waves(path);
        make_coded(names[i], "20%");
        check_waves(test_path("coded"));
        test_remove(test_path("coded"));
    }
}

/* The linker puts this in place of mb_store_acquire_some. */
enum mb_status __real_mb_store_acquire_some(struct mb_store *store, size_t layer, uint32_t *experts, size_t n,
                                            size_t n_max, enum mb_store_use use, struct mb_expert_view *out,
                                            size_t *n_acquired, struct mb_error *err);
enum mb_status __wrap_mb_store_acquire_some(struct mb_store *store, size_t layer, uint32_t *experts, size_t n,
                                            size_t n_max, enum mb_store_use use, struct mb_expert_view *out,
                                            size_t *n_acquired, struct mb_error *err);
static size_t n_until_failure = SIZE_MAX;

enum mb_status __wrap_mb_store_acquire_some(struct mb_store *store, size_t layer, uint32_t *experts, size_t n,
                                            size_t n_max, enum mb_store_use use, struct mb_expert_view *out,
                                            size_t *n_acquired, struct mb_error *err)
{
    if (n_until_failure-- > 0)
        return __real_mb_store_acquire_some(store, layer, experts, n, n_max, use, out, n_acquired, err);
    mb_error_set(err, MB_IO, "layer %zu: no expert today", layer);
    return MB_IO;
}

/* The store fails at its n-th wave: sessions hold what they held, and go on as if nothing had been. */
static void a_store_that_fails_leaves_sessions_as_they_were(void **state)
{
    (void)state;
    static float whole[N_VOCAB_MAX], got[N_VOCAB_MAX];
    static const int32_t tokens[] = {1, 5, 9, 2, 7, 3};
    struct mb_error err;
    struct mb_session *session;
    struct mb_model *model = open_model(CHECKPOINTS "groups");
    must(mb_session_open(model, NULL, &session, &err), &err);
    struct mb_batch_item item = {.session = session, .tokens = tokens, .n_tokens = 6, .logits = whole};
    must(mb_decode(model, &item, 1, &err), &err);
    mb_session_reset(session);
    item.n_tokens = 2;
    item.logits = NULL;
    must(mb_decode(model, &item, 1, &err), &err);
    item = (struct mb_batch_item){.session = session, .tokens = tokens + 2, .n_tokens = 4, .logits = got};
    model->n_wave = 2;
    for (size_t n = 0; n < 4; n++) {
        n_until_failure = n;
        assert_int_equal(mb_decode(model, &item, 1, &err), MB_IO);
        assert_non_null(strstr(err.msg, "no expert today"));
        assert_int_equal(mb_session_n_past(session), 2);
        assert_int_equal(mb_session_n_common(session, tokens, 6, MB_KEEP_PROMPT), 2);
    }
    n_until_failure = SIZE_MAX;
    must(mb_decode(model, &item, 1, &err), &err);
    assert_memory_equal(got, whole, mb_model_info(model)->n_vocab * sizeof *got);
    mb_session_close(session);
    mb_model_close(model);
}

/* ---------------------------------------------------------------- overlays */

/* Lays the matrix of that name of one model over that of another. */
static const struct mb_matrix *matrix_of(struct mb_model *model, const char *name)
{
    struct mb_error err;
    const struct mb_matrix *matrix;
    const struct mb_weight_info *info = mb_index_find(model->index, name);
    assert_non_null(info);
    must(mb_store_matrix(model->store, name, info->n_rows, info->n_cols, &matrix, &err), &err);
    return matrix;
}

/* Each matrix changes logits while it lies over the model, and leaves nothing behind. */
static void check_overlays(struct mb_model *model, struct mb_model *other, const char *const *names, size_t n)
{
    struct mb_error err;
    struct logits before = run(model);
    for (size_t i = 0; i < n; i++) {
        must(mb_model_overlay(model, names[i], matrix_of(other, names[i]), &err), &err);
        struct logits changed = run(model);
        if (are_equal(&changed, &before))
            fail_msg("%s: laid over, it changes nothing", names[i]);
        must(mb_model_overlay(model, names[i], NULL, &err), &err);
        struct logits after = run(model);
        if (!are_equal(&after, &before))
            fail_msg("%s: taken off, it has left something behind", names[i]);
    }
    for (size_t i = 0; i < n; i++)
        must(mb_model_overlay(model, names[i], matrix_of(other, names[i]), &err), &err);
    assert_false(memcmp(run(model).at, before.at, sizeof before.at) == 0);
    for (size_t i = 0; i < n; i++)
        must(mb_model_overlay(model, names[i], NULL, &err), &err);
    struct logits after = run(model);
    assert_true(are_equal(&after, &before));
}

static const char *const latent[] = {
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.layers.0.mlp.gate_proj.weight",
    "model.layers.0.self_attn.kv_b_proj.weight",
    "model.layers.1.mlp.gate.weight",
    "model.layers.1.mlp.experts.3.down_proj.weight",
    "model.layers.1.mlp.shared_experts.up_proj.weight",
    "model.layers.2.self_attn.o_proj.weight",
};

static const char *const grouped[] = {
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.mlp.experts.1.gate_proj.weight",
    "model.layers.1.self_attn.v_proj.weight",
    "model.layers.1.mlp.gate.weight",
};

/* Coded weights over a plain model, and plain ones over a coded one. */
static void check_both_ways(const char *name, const char *const *names, size_t n)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s", CHECKPOINTS, name);
    make_coded(name, "60%");
    struct mb_model *plain = open_model(path), *other_plain = open_model(path);
    struct mb_model *coded = open_model(test_path("coded")), *other_coded = open_model(test_path("coded"));
    check_overlays(plain, other_coded, names, n);
    check_overlays(coded, other_plain, names, n);
    mb_model_close(plain);
    mb_model_close(other_plain);
    mb_model_close(coded);
    mb_model_close(other_coded);
    test_remove(test_path("coded"));
}

static void changed_weights_come_off_without_a_trace(void **state)
{
    (void)state;
    check_both_ways("groups", latent, sizeof latent / sizeof *latent);
    check_both_ways("qwen3-moe", grouped, sizeof grouped / sizeof *grouped);
}

/* All weights of a coded folder over its plain original: the coded folder's logits, bit for bit. */
static void a_model_under_all_coded_weights_is_the_coded_model(void **state)
{
    (void)state;
    struct mb_error err;
    make_coded("qwen3-moe", "30%");
    struct mb_model *plain = open_model(CHECKPOINTS "qwen3-moe"), *coded = open_model(test_path("coded"));
    for (size_t l = 0; l < plain->config.n_layers; l++) {
        struct mb_weight_list list;
        mb_list_layer(&plain->config, l, &list);
        for (size_t i = 0; i < list.n; i++) {
            size_t n = mb_is_expert_matrix(list.at[i].id) ? plain->layers[l].mlp->router.n_experts : 1;
            for (size_t e = 0; e < n && list.at[i].n_cols > 0; e++) {
                char name[MB_NAME_NBYTES_MAX];
                mb_weight_name(&plain->config, list.at[i].id, l, e, name);
                must(mb_model_overlay(plain, name, matrix_of(coded, name), &err), &err);
            }
        }
    }
    must(mb_model_overlay(plain, "lm_head.weight", matrix_of(coded, "lm_head.weight"), &err), &err);
    must(mb_model_overlay(plain, latent[0], matrix_of(coded, latent[0]), &err), &err);
    struct logits a = run(plain), b = run(coded);
    assert_true(are_equal(&a, &b));
    mb_model_close(plain);
    mb_model_close(coded);
    test_remove(test_path("coded"));
}

static void wrong_overlays_are_refused(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_model *model = open_model(CHECKPOINTS "groups");
    const struct mb_matrix *matrix = matrix_of(model, "lm_head.weight");
    assert_int_equal(mb_model_overlay(model, "model.layers.7.self_attn.o_proj.weight", matrix, &err),
                     MB_BAD_DATA);
    assert_int_equal(mb_model_overlay(model, "model.norm.weight", matrix, &err), MB_BAD_DATA);
    assert_int_equal(mb_model_overlay(model, "model.layers.0.self_attn.o_proj.weight", matrix, &err),
                     MB_USAGE);
    mb_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waves_of_experts_do_not_show),
        cmocka_unit_test(a_store_that_fails_leaves_sessions_as_they_were),
        cmocka_unit_test(changed_weights_come_off_without_a_trace),
        cmocka_unit_test(a_model_under_all_coded_weights_is_the_coded_model),
        cmocka_unit_test(wrong_overlays_are_refused),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
