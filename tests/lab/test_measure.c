/*
 * test_measure.c - a changed model beside the clean one: suffix replay, what is kept, two models, routing.
 */
#include "base/error.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "lab/opened.h"
#include "model/child.h"
#include <math.h>
#include <moebius/checkpoint.h>
#include <moebius/measure.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"
#define REFERENCE MB_REPO "/models/reference"
enum { N_WINDOWS = 9, N_CTX = 40, N_VOCAB_MAX = 128 };

/* Windows of different lengths, which are scored from different tokens on. */
static struct mb_windows make_windows(const struct mb_model *model)
{
    struct mb_windows windows = {0};
    struct mb_error err;
    int32_t tokens[N_CTX];
    for (size_t w = 0; w < N_WINDOWS; w++) {
        for (size_t t = 0; t < N_CTX; t++)
            tokens[t] = (int32_t)((t * (w + 3) * 31 + w * 17 + 7) % mb_model_info(model)->n_vocab);
        must(mb_windows_add(&windows, tokens, N_CTX - 3 * w, (N_CTX - 3 * w) / 2 - w, &err), &err);
    }
    return windows;
}

static struct mb_measure *open_measure(struct mb_model *model, const struct mb_windows *windows,
                                       uint64_t nbytes_max)
{
    struct mb_error err;
    struct mb_measure *measure;
    struct mb_measure_options options = {.size = sizeof options, .kept_nbytes_max = nbytes_max};
    must(mb_measure_open(model, windows, &options, &measure, &err), &err);
    return measure;
}

static struct mb_comparison run(struct mb_measure *measure, size_t first_layer, bool is_head_changed)
{
    struct mb_error err;
    struct mb_comparison c = {0};
    struct mb_measure_change change = {.first_layer = first_layer, .is_head_changed = is_head_changed};
    must(mb_measure_run(measure, &change, &c, &err), &err);
    c.seconds = 0;
    return c;
}

static void assert_same(const struct mb_comparison *a, const struct mb_comparison *b)
{
    assert_memory_equal(a, b, sizeof *a);
}

/* ---------------------------------------------------------------- one model */

static void a_run_from_a_layer_gives_the_bits_of_a_whole_run(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_model *model = open_model(CHECKPOINTS "groups", 2);
    struct mb_windows windows = make_windows(model);
    struct mb_measure *measure = open_measure(model, &windows, 0);
    assert_int_equal(mb_measure_kept(measure).n_layers_kept, 2);
    assert_true(mb_measure_kept(measure).has_logits);
    for (size_t layer = 1; layer < 3; layer++) {
        must(mb_model_drop_expert(model, layer, 3, true, &err), &err);
        struct mb_comparison suffix = run(measure, layer, false), whole = run(measure, 0, false);
        assert_same(&suffix, &whole);
        assert_true(suffix.kl.value > 1e-6 && suffix.tv.value > 1e-4);
        must(mb_model_drop_expert(model, layer, 3, false, &err), &err);
    }
    struct mb_comparison again = run(measure, 0, false);
    assert_true(again.kl.value == 0 && again.same_top.value == 1 && again.ppl == again.ppl_clean);
    mb_measure_close(measure);
    mb_windows_free(&windows);
    mb_model_close(model);
}

static void what_is_kept_changes_no_bit(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_model *model = open_model(CHECKPOINTS "groups", 2);
    struct mb_windows windows = make_windows(model);
    uint64_t state_nbytes = 40 * sizeof(float), scored_nbytes = windows.n_scored * state_nbytes;
    struct mb_measure *all = open_measure(model, &windows, 0),
                      *none = open_measure(model, &windows, scored_nbytes),
                      *one = open_measure(model, &windows, scored_nbytes + windows.n_tokens * state_nbytes);
    assert_int_equal(mb_measure_kept(none).n_layers_kept, 0);
    assert_false(mb_measure_kept(none).has_logits);
    assert_int_equal(mb_measure_kept(one).n_layers_kept, 1);
    must(mb_model_drop_expert(model, 2, 1, true, &err), &err);
    struct mb_comparison a = run(all, 2, false), b = run(none, 2, false), c = run(one, 2, false);
    assert_same(&a, &b);
    assert_same(&a, &c);
    struct mb_measure_change head = {.is_head_changed = true};
    assert_int_equal(mb_measure_run(none, &head, &c, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "no room"));
    mb_measure_close(all);
    mb_measure_close(none);
    mb_measure_close(one);
    mb_windows_free(&windows);
    mb_model_close(model);
}

static void threads_do_not_show(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_comparison first;
    for (int n_threads = 1; n_threads < 5; n_threads++) {
        struct mb_model *model = open_model(CHECKPOINTS "qwen3-moe", n_threads);
        struct mb_windows windows = make_windows(model);
        struct mb_measure *measure = open_measure(model, &windows, 0);
        must(mb_model_drop_expert(model, 1, 2, true, &err), &err);
        struct mb_comparison c = run(measure, 1, false);
        if (n_threads == 1)
            first = c;
        assert_same(&c, &first);
        mb_measure_close(measure);
        mb_windows_free(&windows);
        mb_model_close(model);
    }
}

static void a_changed_head_is_measured_alone(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_model *model = open_model(CHECKPOINTS "groups", 2);
    struct mb_windows windows = make_windows(model);
    struct mb_measure *measure = open_measure(model, &windows, 0);
    static float values[80 * 40];
    for (size_t i = 0; i < 80 * 40; i++)
        values[i] = (float)(i % 13) * 0.1F - 0.6F;
    struct mb_matrix head = {.n_rows = 80, .n_cols = 40, .dtype = MB_F32, .dense = values};
    must(mb_model_overlay(model, "lm_head.weight", &head, &err), &err);
    struct mb_comparison alone = run(measure, 3, true), whole = run(measure, 0, true);
    assert_same(&alone, &whole);
    assert_true(alone.kl.value > 1e-3);
    mb_measure_close(measure);
    mb_windows_free(&windows);
    mb_model_close(model);
}

/* Figures of a dropped expert; in a process that has chosen its kernels by MOEBIUS_CPU. */
static uint64_t hash_of_run(const void *ctx)
{
    struct mb_error err;
    struct mb_model *model = open_model(CHECKPOINTS "groups", *(const int *)ctx);
    struct mb_windows windows = make_windows(model);
    struct mb_measure *measure = open_measure(model, &windows, 0);
    must(mb_model_drop_expert(model, 1, 2, true, &err), &err);
    struct mb_comparison c = run(measure, 1, false);
    const unsigned char *bytes = (const unsigned char *)&c;
    uint64_t hash = 14695981039346656037U; /* FNV-1a */
    for (size_t i = 0; i < sizeof c; i++)
        hash = (hash ^ bytes[i]) * 1099511628211U;
    mb_measure_close(measure);
    mb_windows_free(&windows);
    mb_model_close(model);
    return hash;
}

/* First of all tests: this process must not yet have chosen its kernels. */
static void instruction_sets_do_not_show(void **state)
{
    (void)state;
    const int one = 1, three = 3;
    static const char *const cpus[] = {
        "",
#ifdef __x86_64__
        "-avx512",
        "-avx512,-avx2",
#endif
    };
    uint64_t hash = test_hash_in_child("", hash_of_run, &one);
    for (size_t i = 0; i < sizeof cpus / sizeof *cpus; i++)
        assert_int_equal(test_hash_in_child(cpus[i], hash_of_run, &three), hash);
}

/* ---------------------------------------------------------------- two models */

static void make_coded(const char *bound_text)
{
    struct mb_error err;
    struct mb_bound bound;
    struct mb_compress_report report;
    must(mb_bound_parse(bound_text, &bound, &err), &err);
    struct mb_tensor_bound all = {".", bound};
    struct mb_compress_options options = {
        .size = sizeof options, .n_threads = 2, .tensor_bounds = &all, .n_tensor_bounds = 1};
    must(mb_compress(CHECKPOINTS "groups", test_path("coded"), &options, &report, &err), &err);
}

/* Logits of all tokens of a window, as any program gets them. */
static void read_window(struct mb_model *model, const struct mb_window *window, float *logits)
{
    struct mb_error err;
    struct mb_session *session;
    must(mb_session_open(model, NULL, &session, &err), &err);
    struct mb_batch_item item = {.session = session,
                                 .tokens = window->tokens,
                                 .n_tokens = window->n_tokens,
                                 .logits = logits,
                                 .all_logits = true};
    must(mb_decode(model, &item, 1, &err), &err);
    mb_session_close(session);
}

static double plain_kl(const float *a, const float *b, size_t n)
{
    double a_sum = 0, b_sum = 0, kl = 0;
    for (size_t i = 0; i < n; i++) {
        a_sum += exp((double)a[i]);
        b_sum += exp((double)b[i]);
    }
    for (size_t i = 0; i < n; i++) {
        double p = exp((double)a[i]) / a_sum, q = exp((double)b[i]) / b_sum;
        kl += p * log(p / q);
    }
    return kl;
}

static void two_models_are_compared_as_the_definition_says(void **state)
{
    (void)state;
    static float a[N_CTX * N_VOCAB_MAX], b[N_CTX * N_VOCAB_MAX];
    struct mb_error err;
    struct mb_comparison c;
    make_coded("40%");
    struct mb_model *plain = open_model(CHECKPOINTS "groups", 2), *coded = open_model(test_path("coded"), 2);
    struct mb_windows windows = make_windows(plain);
    size_t n_vocab = mb_model_info(plain)->n_vocab;
    double sum = 0, largest = 0;
    for (size_t w = 0; w < windows.n; w++) {
        const struct mb_window *window = &windows.at[w];
        read_window(plain, window, a);
        read_window(coded, window, b);
        for (size_t t = window->from; t + 1 < window->n_tokens; t++) {
            double kl = plain_kl(a + t * n_vocab, b + t * n_vocab, n_vocab);
            sum += kl;
            largest = fmax(largest, kl);
        }
    }
    struct mb_window_sums sums[64];
    const struct mb_measure_options options = {.size = sizeof options, .sums = sums};
    assert_true(windows.n <= 64);
    must(mb_measure_models(plain, coded, MB_CACHE_F16, &windows, &options, &c, &err), &err);
    assert_true(fabs(c.kl.value - sum / (double)windows.n_scored) < 1e-13);
    for (size_t w = 0; w < windows.n; w++)
        sum -= sums[w].kl;
    assert_true(fabs(sum) < 1e-12);
    assert_true(fabs(c.kl_percentiles[MB_N_PERCENTS - 1] - largest) < 1e-13);
    assert_int_equal(c.n_scored, windows.n_scored);
    assert_true(c.kl.value > 0 && c.kl.low <= c.kl.value && c.kl.value <= c.kl.high);
    must(mb_measure_models(plain, plain, MB_CACHE_F16, &windows, NULL, &c, &err), &err);
    assert_true(c.kl.value == 0 && c.tv.value == 0);
    mb_windows_free(&windows);
    mb_model_close(plain);
    mb_model_close(coded);
    test_remove(test_path("coded"));
}

static void the_floor_is_the_cache_of_half_the_width(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_comparison c;
    struct mb_model *model = open_model(CHECKPOINTS "groups", 2);
    struct mb_windows windows = make_windows(model);
    struct mb_measure_options options = {.size = sizeof options, .cache_type = MB_CACHE_F32};
    must(mb_measure_models(model, model, MB_CACHE_F16, &windows, &options, &c, &err), &err);
    assert_true(c.kl.value > 0 && c.kl.value < 1e-4);
    mb_windows_free(&windows);
    mb_model_close(model);
}

/* ---------------------------------------------------------------- routing */

static void load_moves_from_a_dropped_expert_to_others(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_layer_routing clean, now;
    uint64_t n_left, n_joined, before[64];
    double to[64], sum = 0;
    struct mb_model *model = open_model(CHECKPOINTS "qwen3-moe", 2);
    struct mb_windows windows = make_windows(model);
    struct mb_measure *measure = open_measure(model, &windows, 0);
    size_t n_experts = mb_model_info(model)->n_experts, n_used = mb_model_info(model)->n_experts_used;
    assert_int_equal(mb_measure_n_routed(measure), mb_model_info(model)->n_layers);
    assert_int_equal(mb_measure_routing(measure, 0, false, &now, &err), MB_USAGE); /* no run yet */
    must(mb_measure_routing(measure, 1, true, &clean, &err), &err);
    assert_int_equal(clean.layer, 1);
    assert_int_equal(clean.n_tokens, windows.n_tokens);
    memcpy(before, clean.load, n_experts * sizeof *before);
    uint64_t total = 0, most = 0;
    for (size_t e = 0; e < n_experts; e++) {
        total += before[e];
        most = before[e] > before[most] ? e : most;
    }
    assert_int_equal(total, windows.n_tokens * n_used);
    must(mb_model_drop_expert(model, 1, most, true, &err), &err);
    run(measure, 1, false);
    must(mb_measure_routing(measure, 0, false, &now, &err), &err); /* a layer before the change */
    assert_true(now.changed == 0 && now.moved == 0);
    must(mb_measure_routing(measure, 1, false, &now, &err), &err);
    assert_int_equal(now.load[most], 0);
    assert_true(now.gate[most] == 0);
    /* A token that went to it goes to one other expert in its place, and nothing else changes in this layer.
     */
    assert_true(fabs(now.changed - (double)before[most] / (double)windows.n_tokens) < 1e-12);
    assert_true(fabs(now.moved - (double)before[most] / (double)total) < 1e-12);
    must(mb_measure_flow(measure, 1, most, &n_left, &n_joined, to, &err), &err);
    assert_int_equal(n_left, before[most]);
    assert_int_equal(n_joined, 0);
    for (size_t e = 0; e < n_experts; e++) {
        sum += to[e];
        assert_true(fabs(to[e] - (e == most ? 0 : (double)now.load[e] - (double)before[e])) < 1e-9);
    }
    assert_true(fabs(sum - (double)n_left) < 1e-9);
    assert_int_equal(mb_measure_flow(measure, 1, n_experts, &n_left, &n_joined, to, &err), MB_USAGE);
    mb_measure_close(measure);
    mb_windows_free(&windows);
    mb_model_close(model);
}

/* ---------------------------------------------------------------- windows */

static void windows_of_a_text_are_those_of_perplexity(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_tokenizer *tokenizer;
    struct mb_model *model = open_model(REFERENCE, 2);
    struct mb_windows windows = {0};
    static const char part[] = "A baker has 12 trays with 30 rolls each. ";
    char text[40 * sizeof part] = "";
    for (int i = 0; i < 40; i++)
        strcat(text, part); /* NOLINT(clang-analyzer-security.insecureAPI.strcpy) */
    must(mb_tokenizer_open(REFERENCE, &tokenizer, &err), &err);
    const struct mb_model_info *info = mb_model_info(model);
    must(mb_windows_add_text(&windows, info, tokenizer, text, strlen(text), 64, 3, &err), &err);
    assert_int_equal(windows.n, 3);
    assert_int_equal(windows.n_tokens, 192);
    assert_int_equal(windows.n_scored, 3 * 31);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(windows.at[i].tokens[0], info->bos_id);
    assert_int_equal(mb_windows_add_text(&windows, info, tokenizer, part, strlen(part), 256, 0, &err),
                     MB_BAD_DATA);
    assert_int_equal(mb_windows_add_text(&windows, info, tokenizer, text, strlen(text), 257, 0, &err),
                     MB_USAGE);
    mb_windows_free(&windows);
    must(mb_windows_add_reply(&windows, info, tokenizer, "What is 2 + 3?", "2 + 3 = 5\n#### 5", &err), &err);
    const struct mb_window *w = &windows.at[0];
    assert_int_equal(w->tokens[w->n_tokens - 1], info->eos_ids[0]);
    int32_t *ids;
    size_t n;
    must(mb_tokenizer_encode(tokenizer, "2 + 3 = 5\n#### 5", 16, false, &ids, &n, &err), &err);
    assert_int_equal(windows.n_scored, n + 1);
    assert_memory_equal(w->tokens + w->from + 1, ids, n * sizeof *ids);
    free(ids);
    mb_windows_free(&windows);
    mb_tokenizer_close(tokenizer);
    mb_model_close(model);
}

static void what_cannot_be_measured_is_refused(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_measure *measure;
    struct mb_comparison c;
    struct mb_model *model = open_model(CHECKPOINTS "groups", 2),
                    *other = open_model(CHECKPOINTS "shapes", 2);
    struct mb_windows none = {0}, windows = make_windows(model), longer = {0};
    int32_t tokens[200] = {0};
    assert_int_equal(mb_windows_add(&none, tokens, 1, 0, &err), MB_USAGE);
    assert_int_equal(mb_windows_add(&none, tokens, 5, 4, &err), MB_USAGE);
    assert_int_equal(mb_measure_open(model, &none, NULL, &measure, &err), MB_USAGE);
    must(mb_windows_add(&longer, tokens, 200, 0, &err), &err);
    assert_int_equal(mb_measure_open(model, &longer, NULL, &measure, &err), MB_USAGE);
    struct mb_measure_options options = {.size = sizeof options, .kept_nbytes_max = 100};
    assert_int_equal(mb_measure_open(model, &windows, &options, &measure, &err), MB_USAGE);
    assert_int_equal(mb_measure_models(model, other, MB_CACHE_F16, &windows, NULL, &c, &err),
                     mb_model_info(model)->n_vocab == mb_model_info(other)->n_vocab ? MB_OK : MB_USAGE);
    measure = open_measure(model, &windows, 0);
    struct mb_measure_change change = {.first_layer = 4};
    assert_int_equal(mb_measure_run(measure, &change, &c, &err), MB_USAGE);
    assert_null(mb_measure_window_sums(measure));
    mb_measure_close(measure);
    mb_windows_free(&windows);
    mb_windows_free(&longer);
    mb_model_close(model);
    mb_model_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instruction_sets_do_not_show),
        cmocka_unit_test(a_run_from_a_layer_gives_the_bits_of_a_whole_run),
        cmocka_unit_test(what_is_kept_changes_no_bit),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(a_changed_head_is_measured_alone),
        cmocka_unit_test(two_models_are_compared_as_the_definition_says),
        cmocka_unit_test(the_floor_is_the_cache_of_half_the_width),
        cmocka_unit_test(load_moves_from_a_dropped_expert_to_others),
        cmocka_unit_test(windows_of_a_text_are_those_of_perplexity),
        cmocka_unit_test(what_cannot_be_measured_is_refused),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
