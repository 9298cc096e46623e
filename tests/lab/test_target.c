/*
 * test_target.c - the language of selections, on models of several families; usage profiles.
 */
#include "base/error.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "lab/opened.h"
#include <moebius/engine.h>
#include <moebius/perturb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"

static struct mb_model *open_named(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s", CHECKPOINTS, name);
    return open_model(path, 1);
}

/* Counts 10, 11, 12, ... in each layer, but of the experts of 'counts', which has one for each expert. */
static struct mb_profile *make_profile(const struct mb_model *model, const int *counts, size_t n)
{
    struct mb_error err;
    struct mb_profile *profile;
    must(mb_profile_open(model, &profile, &err), &err);
    for (size_t i = 0; i < mb_profile_n_layers(profile); i++) {
        struct mb_profile_layer layer = mb_profile_layer(profile, i);
        assert_int_equal(layer.n_experts, n);
        for (int32_t e = 0; e < (int32_t)n; e++)
            for (int k = 0; k < counts[e]; k++)
                mb_profile_count(profile, layer.layer, 0, &e, &(float){0.5F}, 1, 0);
    }
    return profile;
}

/* 'expected': what mb_selection_text gives, and how many matrices that are. */
static void check(const struct mb_model *model, const struct mb_profile *profile, const char *text,
                  const char *expected, size_t n)
{
    struct mb_error err;
    struct mb_selection selection;
    must(mb_select(model, text, profile, &selection, &err), &err);
    char *got = mb_selection_text(model, &selection);
    if (strcmp(got, expected) != 0 || selection.n != n)
        fail_msg("%s: selects %zu matrices, %s; not %zu, %s", text, selection.n, got, n, expected);
    for (size_t i = 1; i < selection.n; i++)
        assert_true(selection.at[i] > selection.at[i - 1]);
    free(got);
    mb_selection_free(&selection);
}

static void check_refused(const struct mb_model *model, const struct mb_profile *profile, const char *text,
                          const char *word, const char *reason)
{
    struct mb_error err;
    struct mb_selection selection;
    enum mb_status status = mb_select(model, text, profile, &selection, &err);
    if (status != MB_USAGE)
        fail_msg("%s: status %d", text, status);
    if (strstr(err.msg, word) == NULL || strstr(err.msg, reason) == NULL)
        fail_msg("%s: '%s' says neither '%s' nor '%s'", text, err.msg, word, reason);
    assert_null(selection.at);
}

/* Layer 0 of 'groups' is dense; it has 12 experts, and a shared one, in layers 1 and 2. */
static const int groups_counts[12] = {5, 0, 9, 9, 1, 2, 0, 3, 4, 6, 7, 8};

static void selections_name_layers_and_experts_as_tensors_do(void **state)
{
    (void)state;
    struct mb_model *model = open_named("groups");
    struct mb_profile *profile = make_profile(model, groups_counts, 12);
    check(model, NULL, "layer=1 experts=3", "1.3", 3);
    check(model, NULL, "  experts=0-2,11   layers=2\t", "2.0 2.1 2.2 2.11", 12);
    check(model, NULL, "layers=0-2 expert=5 proj=down", "1.5 2.5", 2);
    check(model, NULL, "layers=all expert=5 proj=gate,up", "1.5 2.5", 4);
    check(model, NULL, "moe-layer=1 experts=4", "1.4", 3);
    check(model, NULL, "moe-layers=last experts=4", "2.4", 3);
    check(model, profile, "layers=1-2 experts=top1", "1.2 2.2", 6);
    check(model, profile, "layer=1 experts=top2", "1.2 1.3", 6);
    check(model, profile, "layer=last experts=cold3", "2.1 2.4 2.6", 9);
    check(model, profile, "layer=2 experts=unused", "2.1 2.6", 6);
    check(model, profile, "layer=2 experts=unused,top1,7", "2.1 2.2 2.6 2.7", 12);
    check(
        model, NULL, "layer=1 shared",
        "model.layers.1.mlp.shared_experts.gate_proj.weight model.layers.1.mlp.shared_experts.up_proj.weight "
        "model.layers.1.mlp.shared_experts.down_proj.weight",
        3);
    check(model, NULL, "layers=dense dense proj=up", "model.layers.0.mlp.up_proj.weight", 1);
    check(model, NULL, "lm_head embedding", "model.embed_tokens.weight lm_head.weight", 2);
    check(model, NULL, "layers=moe attention proj=o",
          "model.layers.1.self_attn.o_proj.weight model.layers.2.self_attn.o_proj.weight", 2);
    check(model, NULL, "layer=1 experts=0 router", "model.layers.1.mlp.gate.weight 1.0", 4);
    check(model, NULL, "name=*.2.*kv_b*,lm_*", "model.layers.2.self_attn.kv_b_proj.weight lm_head.weight", 2);
    mb_profile_close(profile);
    mb_model_close(model);
}

static void thirds_of_the_depth_are_those_of_any_model(void **state)
{
    (void)state;
    struct mb_model *model = open_named("groups");
    check(model, NULL, "layers=shallow dense proj=up", "model.layers.0.mlp.up_proj.weight", 1);
    check(model, NULL, "layers=middle experts=1", "1.1", 3);
    check(model, NULL, "layers=deep experts=1", "2.1", 3);
    check(model, NULL, "layers=middle,deep experts=1", "1.1 2.1", 6);
    check(model, NULL, "moe-layers=shallow experts=1", "1.1", 3);
    check_refused(model, NULL, "moe-layers=middle experts=1", "'middle'", "no such layer");
    mb_model_close(model);
}

static void families_without_shared_experts_or_with_fused_ones_are_selected_alike(void **state)
{
    (void)state;
    struct mb_model *model = open_named("qwen3-moe");
    check(model, NULL, "experts=6", "0.6 1.6", 6);
    check_refused(model, NULL, "shared", "'shared'", "the model has no shared experts");
    check_refused(model, NULL, "dense", "'dense'", "the model has no dense MLPs");
    check_refused(model, NULL, "layer=0 attention proj=kv_b", "'kv_b'", "none of 'attention' has");
    mb_model_close(model);
    model = open_named("granitemoe");
    check(model, NULL, "layer=1 experts=5 proj=down", "1.5", 1);
    check_refused(model, NULL, "lm_head", "'lm_head'", "is its embedding");
    mb_model_close(model);
    model = open_named("mixtral");
    check(model, NULL, "layer=0 experts=0", "0.0", 3);
    mb_model_close(model);
}

/* A dense layer between layers with experts. */
static void dense_layers_in_between_are_no_layers_of_experts(void **state)
{
    (void)state;
    struct mb_model *model = open_named("dense-layers");
    size_t n;
    const struct mb_model_matrix *matrices = mb_model_matrices(model, &n);
    int dense = -1, moe = -1;
    for (size_t i = 0; i < n; i++) {
        dense = matrices[i].kind == MB_MATRIX_DENSE ? matrices[i].layer : dense;
        moe = matrices[i].kind == MB_MATRIX_EXPERT && moe < 0 ? matrices[i].layer : moe;
    }
    assert_true(dense >= 0 && moe >= 0);
    char text[64], expected[64];
    snprintf(text, sizeof text, "layer=%d experts=0", dense);
    check_refused(model, NULL, text, "'experts=0'", "the selected layers have no routed experts");
    snprintf(text, sizeof text, "layer=%d dense", moe);
    check_refused(model, NULL, text, "'dense'", "the selected layers have no dense MLPs");
    snprintf(expected, sizeof expected, "%d.0", moe);
    check(model, NULL, "moe-layer=1 experts=0", expected, 3);
    mb_model_close(model);
}

static void what_is_no_selection_is_pointed_at(void **state)
{
    (void)state;
    struct mb_model *model = open_named("groups");
    struct mb_profile *profile = make_profile(model, (const int[12]){1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 12);
    check_refused(model, NULL, "layers=1-2 exprts=top1", "word 2, 'exprts=top1'", "there are layers=");
    check_refused(model, NULL, "layers=1", "does not say which matrices", "experts=");
    check_refused(model, NULL, "", "does not say which matrices", "experts=");
    check_refused(model, NULL, "layers=1 proj=down", "does not say which matrices", "experts=");
    check_refused(model, NULL, "layers=3 experts=1", "at '3'", "the model's layers are 0 to 2");
    check_refused(model, NULL, "layers=2-1 experts=1", "at '2-1'", "not layers");
    check_refused(model, NULL, "layers=1,,2 experts=1", "at ''", "not layers");
    check_refused(model, NULL, "moe-layers=0 experts=1", "at '0'", "counted from 1, are 1 to 2");
    check_refused(model, NULL, "moe-layers=moe experts=1", "at 'moe'", "not layers");
    check_refused(model, NULL, "layers=99999999999 experts=1", "at '99999999999'", "not layers");
    check_refused(model, NULL, "experts=12", "at '12'", "experts of layer 1 are 0 to 11");
    check_refused(model, NULL, "experts=-1", "at '-1'", "not experts");
    check_refused(model, NULL, "experts=top", "at 'top'", "not experts");
    check_refused(model, NULL, "experts=top1", "at 'top1'", "needs a usage profile");
    check_refused(model, profile, "experts=top13", "at 'top13'", "layer 1 has 12 experts");
    check_refused(model, profile, "experts=cold0", "at 'cold0'", "layer 1 has 12 experts");
    check_refused(model, profile, "experts=unused", "at 'unused'", "every expert of these layers was used");
    check_refused(model, NULL, "experts=", "'experts='", "has no value");
    check_refused(model, NULL, "experts=1 expert=2", "word 2, 'expert=2'", "what word 1 says");
    check_refused(model, NULL, "layers=1 moe-layers=1 experts=1", "word 2", "what word 1 says");
    check_refused(model, NULL, "experts=1 proj=middle", "at 'middle'", "no such projection");
    check_refused(model, NULL, "layer=1 lm_head", "'lm_head'", "leave out 'layer=1'");
    check_refused(model, NULL, "name=nothing*", "at 'nothing*'", "no such matrix");
    check_refused(model, NULL, "experts=1 experts", "word 2, 'experts'", "no such word");
    mb_profile_close(profile);
    mb_model_close(model);
}

static void a_models_matrices_are_listed_with_what_they_are(void **state)
{
    (void)state;
    struct mb_model *model = open_named("groups");
    size_t n, n_of[MB_N_MATRIX_KINDS] = {0};
    const struct mb_model_matrix *matrices = mb_model_matrices(model, &n);
    uint64_t n_weights = 0;
    for (size_t i = 0; i < n; i++) {
        struct mb_matrix w = mb_model_weights(model, i);
        n_of[matrices[i].kind]++;
        assert_true(w.n_rows == matrices[i].n_rows && w.n_cols == matrices[i].n_cols && !w.is_coded);
        assert_int_equal(w.dtype, matrices[i].dtype);
        n_weights += w.n_rows * w.n_cols;
    }
    assert_int_equal(n_of[MB_MATRIX_EXPERT], 2 * 12 * 3);
    assert_int_equal(n_of[MB_MATRIX_SHARED], 2 * 3);
    assert_int_equal(n_of[MB_MATRIX_DENSE], 3);
    assert_int_equal(n_of[MB_MATRIX_ROUTER], 2);
    assert_int_equal(n_of[MB_MATRIX_EMBEDDING] + n_of[MB_MATRIX_HEAD], 2);
    uint64_t n_params = mb_model_info(model)->n_params;
    assert_true(n_weights < n_params && n_weights > n_params * 9 / 10); /* the rest is norms and biases */
    mb_model_close(model);
}

/* ---------------------------------------------------------------- profiles */

static const char hash_a[MB_HASH_NBYTES] = "0123456789abcdef0123456789abcdef",
                  hash_b[MB_HASH_NBYTES] = "1123456789abcdef0123456789abcdef";

static void a_profile_is_what_the_router_chose_and_survives_its_file(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_model *model = open_named("groups");
    struct mb_profile *profile, *back;
    struct mb_session *session;
    int32_t tokens[24];
    must(mb_profile_open(model, &profile, &err), &err);
    mb_model_watch_routes(model, mb_profile_count, profile);
    must(mb_session_open(model, NULL, &session, &err), &err);
    for (int32_t i = 0; i < 24; i++)
        tokens[i] = (i * 31 + 7) % 80;
    struct mb_batch_item item = {.session = session, .tokens = tokens, .n_tokens = 24};
    must(mb_decode(model, &item, 1, &err), &err);
    mb_model_watch_routes(model, NULL, NULL);
    mb_session_reset(session);
    must(mb_decode(model, &item, 1, &err), &err); /* nobody counts these */
    mb_session_close(session);
    must(mb_profile_save(profile, test_path("p.json"), hash_a, &err), &err);
    must(mb_profile_load(test_path("p.json"), hash_a, &back, &err), &err);
    assert_int_equal(mb_profile_n_layers(back), 2);
    for (size_t i = 0; i < 2; i++) {
        struct mb_profile_layer a = mb_profile_layer(profile, i), b = mb_profile_layer(back, i);
        uint64_t n = 0, gate = 0;
        assert_int_equal(a.layer, i + 1);
        assert_int_equal(a.n_tokens, 24);
        assert_true(a.layer == b.layer && a.n_tokens == b.n_tokens && a.n_experts == b.n_experts);
        assert_memory_equal(a.n, b.n, 12 * sizeof *a.n);
        assert_memory_equal(a.gate, b.gate, 12 * sizeof *a.gate);
        for (size_t e = 0; e < 12; e++) {
            n += a.n[e];
            gate += a.gate[e];
            assert_true((a.n[e] > 0) == (a.gate[e] > 0));
        }
        assert_int_equal(n, 24 * 4);
        assert_true(gate > 0);
    }
    mb_profile_close(back);
    assert_int_equal(mb_profile_load(test_path("p.json"), hash_b, &back, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "of another model"));
    mb_profile_close(profile);
    mb_model_close(model);
}

static void check_bad_profile(const char *text, const char *reason)
{
    struct mb_error err;
    struct mb_profile *profile;
    test_write(test_path("bad.json"), text, strlen(text));
    enum mb_status status = mb_profile_load(test_path("bad.json"), hash_a, &profile, &err);
    if (status != MB_BAD_DATA && status != MB_UNSUPPORTED)
        fail_msg("%s: status %d", text, status);
    assert_non_null(strstr(err.msg, "bad.json"));
    if (strstr(err.msg, reason) == NULL)
        fail_msg("%s: '%s' does not say '%s'", text, err.msg, reason);
}

static void a_damaged_profile_is_refused(void **state)
{
    (void)state;
#define HEAD "{\"moebius_profile\":1,\"model_hash\":\"0123456789abcdef0123456789abcdef\",\"layers\":"
    check_bad_profile("", "");
    check_bad_profile("[1]", "");
    check_bad_profile("{\"layers\":[]}", "not a usage profile");
    check_bad_profile("{\"moebius_profile\":2,\"model_hash\":\"x\",\"layers\":[1]}", "version 2");
    check_bad_profile(HEAD "[]}", "not a usage profile");
    check_bad_profile(HEAD "[7]}", "layers[0]");
    check_bad_profile(HEAD "[{\"layer\":1,\"n_tokens\":2,\"n\":[1,2],\"gate\":[1]}]}", "as many numbers");
    check_bad_profile(HEAD "[{\"layer\":1,\"n_tokens\":2,\"n\":[1,3],\"gate\":[1,1]}]}", "expert 1: more");
    check_bad_profile(HEAD "[{\"layer\":1,\"n_tokens\":2,\"n\":[1,-1],\"gate\":[1,1]}]}", "not a count");
    check_bad_profile(HEAD "[{\"layer\":1,\"n_tokens\":2,\"n\":[1,1],\"gate\":[1,-1]}]}", "not a sum");
    check_bad_profile(HEAD "[{\"layer\":1,\"n_tokens\":2,\"n\":[1],\"gate\":[1]},"
                           "{\"layer\":1,\"n_tokens\":2,\"n\":[1],\"gate\":[1]}]}",
                      "there twice");
}

static void a_profile_of_other_layers_selects_nothing(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_selection selection;
    struct mb_model *groups = open_named("groups"), *qwen = open_named("qwen3-moe");
    struct mb_profile *profile = make_profile(groups, groups_counts, 12);
    assert_int_equal(mb_select(qwen, "experts=top1", profile, &selection, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "other layers"));
    mb_profile_close(profile);
    mb_model_close(groups);
    mb_model_close(qwen);
}

static void a_models_hash_tells_it_from_others(void **state)
{
    (void)state;
    struct mb_error err;
    char a[MB_HASH_NBYTES], b[MB_HASH_NBYTES], c[MB_HASH_NBYTES];
    must(mb_model_hash(CHECKPOINTS "groups", a, &err), &err);
    must(mb_model_hash(CHECKPOINTS "groups", b, &err), &err);
    must(mb_model_hash(CHECKPOINTS "shapes", c, &err), &err);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    assert_int_equal(strlen(a), 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(selections_name_layers_and_experts_as_tensors_do),
        cmocka_unit_test(thirds_of_the_depth_are_those_of_any_model),
        cmocka_unit_test(families_without_shared_experts_or_with_fused_ones_are_selected_alike),
        cmocka_unit_test(dense_layers_in_between_are_no_layers_of_experts),
        cmocka_unit_test(what_is_no_selection_is_pointed_at),
        cmocka_unit_test(a_models_matrices_are_listed_with_what_they_are),
        cmocka_unit_test(a_profile_is_what_the_router_chose_and_survives_its_file),
        cmocka_unit_test(a_damaged_profile_is_refused),
        cmocka_unit_test(a_profile_of_other_layers_selects_nothing),
        cmocka_unit_test(a_models_hash_tells_it_from_others),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
