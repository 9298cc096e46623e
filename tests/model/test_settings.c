/*
 * test_settings.c - each family reads each setting of config.json as `transformers` does, or refuses it by
 * name: tests/model/data/settings, made by tools/goldens/settings.py.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <jansson.h>
#include <math.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA MB_REPO "/tests/model/data/"
enum { N_VOCAB_MAX = 128, N_TOKENS_MAX = 64 };
static const double tolerance = 1e-4; /* of the largest logit */

static json_t *read_json(const char *path)
{
    json_t *json = json_load_file(path, 0, NULL);
    if (json == NULL)
        fail_msg("%s: cannot be read", path);
    return json;
}

static void write_config(const char *checkpoint, const json_t *a_case)
{
    char path[1200];
    size_t i;
    const json_t *key;
    snprintf(path, sizeof path, DATA "checkpoints/%s/config.json", checkpoint);
    json_t *config = read_json(path);
    json_array_foreach(json_object_get(a_case, "without"), i, key)
        json_object_del(config, json_string_value(key));
    assert_int_equal(json_object_update(config, json_object_get(a_case, "changes")), 0);
    assert_int_equal(json_dump_file(config, test_path("config.json"), 0), 0);
    json_decref(config);
}

static void link_weights(const char *checkpoint)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "model-00001-of-00002.safetensors",
                                        "model-00002-of-00002.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char target[1200];
        snprintf(target, sizeof target, DATA "checkpoints/%s/%s", checkpoint, names[i]);
        unlink(test_path(names[i]));
        if (access(target, R_OK) == 0)
            assert_int_equal(symlink(target, test_path(names[i])), 0);
    }
}

static enum mb_status run(const json_t *tokens, float logits[N_VOCAB_MAX], struct mb_error *err)
{
    int32_t ids[N_TOKENS_MAX];
    size_t n = json_array_size(tokens);
    struct mb_model *model;
    struct mb_session *session;
    struct mb_session_options options = {.size = sizeof options, .cache_type = MB_CACHE_F32};
    struct mb_model_options model_options = {.size = sizeof model_options, .n_threads = 1};
    assert_true(n <= N_TOKENS_MAX);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(tokens, i));
    enum mb_status status = mb_model_open(test_path("."), &model_options, &model, err);
    if (status != MB_OK)
        return status;
    assert_true(mb_model_info(model)->n_vocab <= N_VOCAB_MAX);
    assert_int_equal(mb_session_open(model, &options, &session, err), MB_OK);
    struct mb_batch_item item = {.session = session, .tokens = ids, .n_tokens = n, .logits = logits};
    status = mb_decode(model, &item, 1, err);
    mb_session_close(session);
    mb_model_close(model);
    return status;
}

static bool is_as_said(const json_t *a_case, const float *logits)
{
    double most = json_number_value(json_object_get(a_case, "max")), diff = 0;
    const json_t *expected = json_object_get(a_case, "logits"), *x;
    size_t i;
    json_array_foreach(expected, i, x) diff =
        fmax(diff, fabs(json_number_value(x) - (double)logits[i]) / most);
    return json_array_size(expected) > 0 && diff <= tolerance;
}

/* Whether a case is as it should be; says what is wrong. */
static bool check_case(const char *family, const json_t *golden, const json_t *a_case)
{
    static float logits[N_VOCAB_MAX];
    struct mb_error err = {0};
    bool is_refused = json_is_true(json_object_get(a_case, "refused"));
    write_config(json_string_value(json_object_get(golden, "checkpoint")), a_case);
    enum mb_status status = run(json_object_get(golden, "tokens"), logits, &err);
    bool is_named = status == MB_UNSUPPORTED || status == MB_BAD_DATA;
    if (json_is_true(json_object_get(a_case, "either")) && (status == MB_OK || is_named))
        return true;
    if (is_refused ? is_named : status == MB_OK && is_as_said(a_case, logits))
        return true;
    char *changes = json_dumps(json_object_get(a_case, "changes"), 0),
         *without = json_dumps(json_object_get(a_case, "without"), 0);
    print_error("%s, %s without %s: %s\n", family, changes, without,
                status != MB_OK ? err.msg
                : is_refused    ? "runs, though it should be refused"
                                : "runs, but not as transformers does");
    free(changes);
    free(without);
    return false;
}

static void settings_are_read_as_transformers_reads_them(void **state)
{
    static const char *const families[] = {"deepseek_v2", "deepseek_v3",   "dots1",      "ernie4_5_moe",
                                           "glm4_moe",    "glm4_moe_lite", "granitemoe", "granitemoeshared",
                                           "minimax_m2",  "mixtral",       "olmoe",      "phimoe",
                                           "qwen2_moe",   "qwen3_moe"};
    size_t n_wrong = 0;
    (void)state;
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        char path[512];
        size_t i;
        const json_t *a_case;
        snprintf(path, sizeof path, DATA "settings/%s.json", families[f]);
        json_t *golden = read_json(path);
        link_weights(json_string_value(json_object_get(golden, "checkpoint")));
        json_array_foreach(json_object_get(golden, "cases"), i, a_case) n_wrong +=
            !check_case(families[f], golden, a_case);
        assert_true(i > 40);
        json_decref(golden);
    }
    assert_int_equal(n_wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_are_read_as_transformers_reads_them),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
