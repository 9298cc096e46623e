/*
 * test_hidden.c - hidden states that are handed out, and passes that begin at a layer with them.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <moebius/checkpoint.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"
enum { N_ITEMS = 3, N_TOKENS = 64, N_VOCAB_MAX = 320, N_LAYERS_MAX = 8, D_MODEL_MAX = 320 };

/* What a batch of prompts of different lengths gives. */
struct result {
    float logits[N_ITEMS][N_TOKENS * N_VOCAB_MAX];
    float hidden[N_ITEMS][N_LAYERS_MAX + 1][N_TOKENS * D_MODEL_MAX];
    float *out[N_ITEMS][N_LAYERS_MAX + 1];
};

struct loaded {
    struct mb_model *model;
    size_t n_layers, n_vocab, d_model;
    struct mb_session *sessions[N_ITEMS];
    int32_t tokens[N_ITEMS][N_TOKENS];
};

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static struct loaded load(const char *path)
{
    struct loaded m;
    struct mb_error err;
    struct mb_model_options options = {.size = sizeof options, .n_threads = 2};
    must(mb_model_open(path, &options, &m.model, &err), &err);
    const struct mb_model_info *info = mb_model_info(m.model);
    m.n_layers = info->n_layers;
    m.n_vocab = info->n_vocab;
    m.d_model = info->d_model;
    assert_true(m.n_layers <= N_LAYERS_MAX && m.n_vocab <= N_VOCAB_MAX && m.d_model <= D_MODEL_MAX);
    for (size_t i = 0; i < N_ITEMS; i++) {
        must(mb_session_open(m.model, NULL, &m.sessions[i], &err), &err);
        for (size_t t = 0; t < N_TOKENS; t++)
            m.tokens[i][t] = (int32_t)((t * 31 + i * 17 + 7) % m.n_vocab);
    }
    return m;
}

static void unload(struct loaded *m)
{
    for (size_t i = 0; i < N_ITEMS; i++)
        mb_session_close(m->sessions[i]);
    mb_model_close(m->model);
}

static size_t n_tokens_of(size_t item)
{
    return N_TOKENS - 20 * item;
}

static void fill_items(struct loaded *m, struct result *r, struct mb_batch_item *items)
{
    for (size_t i = 0; i < N_ITEMS; i++) {
        mb_session_reset(m->sessions[i]);
        items[i] = (struct mb_batch_item){.session = m->sessions[i],
                                          .tokens = m->tokens[i],
                                          .n_tokens = n_tokens_of(i),
                                          .logits = r->logits[i],
                                          .all_logits = true};
    }
}

static struct result *run_whole(struct loaded *m, bool hands_out)
{
    struct mb_error err;
    struct result *r = calloc(1, sizeof *r);
    struct mb_batch_item items[N_ITEMS];
    struct mb_hidden_states hidden[N_ITEMS];
    assert_non_null(r);
    fill_items(m, r, items);
    for (size_t i = 0; i < N_ITEMS && hands_out; i++) {
        for (size_t l = 0; l <= m->n_layers; l++)
            r->out[i][l] = r->hidden[i][l];
        hidden[i] = (struct mb_hidden_states){.out = r->out[i]};
        items[i].hidden = &hidden[i];
    }
    must(mb_decode(m->model, items, N_ITEMS, &err), &err);
    return r;
}

/* A pass that begins at a layer with the hidden states of 'from'. */
static struct result *run_from(struct loaded *m, const struct result *from, size_t layer)
{
    struct mb_error err;
    struct result *r = calloc(1, sizeof *r);
    struct mb_batch_item items[N_ITEMS];
    struct mb_hidden_states hidden[N_ITEMS];
    assert_non_null(r);
    fill_items(m, r, items);
    for (size_t i = 0; i < N_ITEMS; i++) {
        for (size_t l = layer; l <= m->n_layers; l++)
            r->out[i][l] = r->hidden[i][l];
        hidden[i] =
            (struct mb_hidden_states){.first_layer = layer, .in = from->hidden[i][layer], .out = r->out[i]};
        items[i].hidden = &hidden[i];
    }
    must(mb_decode(m->model, items, N_ITEMS, &err), &err);
    return r;
}

static void check_equal(const struct loaded *m, const struct result *a, const struct result *b, size_t layer)
{
    for (size_t i = 0; i < N_ITEMS; i++) {
        assert_memory_equal(a->logits[i], b->logits[i], n_tokens_of(i) * m->n_vocab * sizeof(float));
        for (size_t l = layer; l <= m->n_layers; l++)
            assert_memory_equal(a->hidden[i][l], b->hidden[i][l],
                                n_tokens_of(i) * m->d_model * sizeof(float));
    }
}

static void check_model(const char *path)
{
    struct loaded m = load(path);
    struct result *plain = run_whole(&m, false), *whole = run_whole(&m, true);
    for (size_t i = 0; i < N_ITEMS; i++)
        assert_memory_equal(plain->logits[i], whole->logits[i], sizeof plain->logits[i]);
    for (size_t layer = 1; layer <= m.n_layers; layer++) {
        struct result *suffix = run_from(&m, whole, layer);
        check_equal(&m, suffix, whole, layer);
        free(suffix);
    }
    free(plain);
    free(whole);
    unload(&m);
}

static void a_pass_from_a_layer_gives_the_bits_of_a_whole_pass(void **state)
{
    static const char *const names[] = {"groups",           "shapes",     "qwen3-moe", "mixtral-window",
                                        "mixtral-longrope", "granitemoe", "phimoe",    "q-lora"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s%s", CHECKPOINTS, names[i]);
        check_model(path);
    }
}

static void a_coded_model_does_so_too(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_bound bound;
    struct mb_compress_report report;
    must(mb_bound_parse("20%", &bound, &err), &err);
    struct mb_tensor_bound all = {".", bound};
    struct mb_compress_options options = {
        .size = sizeof options, .n_threads = 2, .tensor_bounds = &all, .n_tensor_bounds = 1};
    must(mb_compress(CHECKPOINTS "groups", test_path("coded"), &options, &report, &err), &err);
    check_model(test_path("coded"));
    test_remove(test_path("coded"));
}

/* What the lab does: early layers once, then changes in later layers alone. */
static void a_change_in_a_late_layer_needs_the_early_layers_once(void **state)
{
    (void)state;
    struct mb_error err;
    struct loaded m = load(CHECKPOINTS "groups");
    struct result *clean = run_whole(&m, true);
    for (size_t e = 0; e < 12; e++) {
        must(mb_model_drop_expert(m.model, 2, e, true, &err), &err);
        struct result *suffix = run_from(&m, clean, 2), *whole = run_whole(&m, true);
        check_equal(&m, suffix, whole, 2);
        must(mb_model_drop_expert(m.model, 2, e, false, &err), &err);
        free(suffix);
        free(whole);
    }
    struct result *again = run_from(&m, clean, 2);
    check_equal(&m, again, clean, 2);
    free(again);
    free(clean);
    unload(&m);
}

static void pieces_and_generated_tokens_begin_at_a_layer_too(void **state)
{
    (void)state;
    struct mb_error err;
    struct loaded m = load(CHECKPOINTS "groups");
    struct result *r = calloc(1, sizeof *r), *s = calloc(1, sizeof *s);
    assert_non_null(r);
    assert_non_null(s);
    for (int round = 0; round < 2; round++) {
        size_t first_layer = round == 0 ? 0 : 2;
        struct result *to = round == 0 ? r : s;
        mb_session_reset(m.sessions[0]);
        for (size_t pos = 0, n; pos < N_TOKENS; pos += n) {
            n = pos < 60 ? 15 : 1;
            for (size_t l = 0; l <= m.n_layers; l++)
                to->out[0][l] = to->hidden[0][l] + pos * m.d_model;
            struct mb_hidden_states hidden = {
                .first_layer = first_layer, .in = r->hidden[0][2] + pos * m.d_model, .out = to->out[0]};
            struct mb_batch_item item = {.session = m.sessions[0],
                                         .tokens = m.tokens[0] + pos,
                                         .n_tokens = n,
                                         .is_generated = n == 1,
                                         .logits = to->logits[0] + pos * m.n_vocab,
                                         .all_logits = true,
                                         .hidden = &hidden};
            must(mb_decode(m.model, &item, 1, &err), &err);
        }
    }
    assert_memory_equal(r->logits[0], s->logits[0], N_TOKENS * m.n_vocab * sizeof(float));
    free(r);
    free(s);
    unload(&m);
}

static void the_first_tokens_may_have_no_logits(void **state)
{
    (void)state;
    struct mb_error err;
    struct loaded m = load(CHECKPOINTS "qwen3-moe");
    struct result *whole = run_whole(&m, false), *part = calloc(1, sizeof *part);
    assert_non_null(part);
    struct mb_batch_item items[N_ITEMS];
    fill_items(&m, part, items);
    for (size_t i = 0; i < N_ITEMS; i++)
        items[i].logits_from = 10 + 25 * i;
    must(mb_decode(m.model, items, N_ITEMS, &err), &err);
    for (size_t i = 0; i < N_ITEMS; i++) {
        size_t from = 10 + 25 * i, n = n_tokens_of(i) > from ? (n_tokens_of(i) - from) * m.n_vocab : 0;
        assert_memory_equal(part->logits[i], whole->logits[i] + from * m.n_vocab, n * sizeof(float));
        for (size_t k = n; k < N_TOKENS * m.n_vocab; k++)
            assert_true(part->logits[i][k] == 0);
    }
    free(whole);
    free(part);
    unload(&m);
}

/* A session that began at layer 2 has no early layers: they are computed, not taken for what they are not. */
static void a_session_that_lacks_early_layers_computes_them(void **state)
{
    (void)state;
    struct mb_error err;
    struct loaded m = load(CHECKPOINTS "groups");
    struct result *clean = run_whole(&m, true), *more = calloc(1, sizeof *more);
    assert_non_null(more);
    struct mb_hidden_states hidden = {.first_layer = 2, .in = clean->hidden[0][2]};
    struct mb_batch_item item = {
        .session = m.sessions[0], .tokens = m.tokens[0], .n_tokens = 40, .hidden = &hidden};
    mb_session_reset(m.sessions[0]);
    must(mb_decode(m.model, &item, 1, &err), &err);
    assert_int_equal(mb_session_n_common(m.sessions[0], m.tokens[0], 40, MB_KEEP_PROMPT), 0);
    item = (struct mb_batch_item){.session = m.sessions[0],
                                  .tokens = m.tokens[0] + 40,
                                  .n_tokens = N_TOKENS - 40,
                                  .logits = more->logits[0],
                                  .all_logits = true};
    must(mb_decode(m.model, &item, 1, &err), &err);
    assert_memory_equal(more->logits[0], clean->logits[0] + 40 * m.n_vocab,
                        (N_TOKENS - 40) * m.n_vocab * sizeof(float));
    free(clean);
    free(more);
    unload(&m);
}

/* One buffer is enough: each layer reads and writes it. */
static void layers_can_run_one_at_a_time(void **state)
{
    (void)state;
    static const char *const paths[] = {CHECKPOINTS "groups", CHECKPOINTS "qwen3-moe"};
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
        struct mb_error err;
        struct loaded m = load(paths[p]);
        struct result *whole = run_whole(&m, true), *r = calloc(1, sizeof *r);
        assert_non_null(r);
        for (size_t l = 0; l < m.n_layers; l++) {
            struct mb_batch_item items[N_ITEMS];
            struct mb_hidden_states hidden[N_ITEMS];
            fill_items(&m, r, items);
            for (size_t i = 0; i < N_ITEMS; i++) {
                r->out[i][l + 1] = r->hidden[i][0];
                hidden[i] = (struct mb_hidden_states){
                    .first_layer = l, .in = r->hidden[i][0], .out = r->out[i], .end_layer = l + 1};
                items[i].hidden = &hidden[i];
                items[i].logits = l + 1 < m.n_layers ? NULL : items[i].logits;
            }
            must(mb_decode(m.model, items, N_ITEMS, &err), &err);
            for (size_t i = 0; i < N_ITEMS; i++)
                assert_memory_equal(r->hidden[i][0], whole->hidden[i][l + 1],
                                    n_tokens_of(i) * m.d_model * sizeof(float));
        }
        for (size_t i = 0; i < N_ITEMS; i++)
            assert_memory_equal(r->logits[i], whole->logits[i], n_tokens_of(i) * m.n_vocab * sizeof(float));
        free(whole);
        free(r);
        unload(&m);
    }
}

/* What late layers lack is computed, or the batch is refused. */
static void a_session_that_ended_early_is_fed_again(void **state)
{
    (void)state;
    struct mb_error err;
    struct loaded m = load(CHECKPOINTS "groups");
    struct result *clean = run_whole(&m, true), *more = calloc(1, sizeof *more);
    assert_non_null(more);
    struct mb_hidden_states hidden = {.end_layer = 1}, later = {.first_layer = 1, .in = clean->hidden[0][1]};
    struct mb_batch_item item = {
        .session = m.sessions[0], .tokens = m.tokens[0], .n_tokens = 40, .hidden = &hidden};
    mb_session_reset(m.sessions[0]);
    must(mb_decode(m.model, &item, 1, &err), &err);
    item = (struct mb_batch_item){.session = m.sessions[0],
                                  .tokens = m.tokens[0] + 40,
                                  .n_tokens = N_TOKENS - 40,
                                  .logits = more->logits[0],
                                  .all_logits = true,
                                  .hidden = &later};
    assert_int_equal(mb_decode(m.model, &item, 1, &err), MB_USAGE);
    item.hidden = NULL;
    must(mb_decode(m.model, &item, 1, &err), &err);
    assert_memory_equal(more->logits[0], clean->logits[0] + 40 * m.n_vocab,
                        (N_TOKENS - 40) * m.n_vocab * sizeof(float));
    free(clean);
    free(more);
    unload(&m);
}

static void batches_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct mb_error err;
    struct loaded m = load(CHECKPOINTS "groups");
    struct result *clean = run_whole(&m, true), *r = calloc(1, sizeof *r);
    assert_non_null(r);
    struct mb_hidden_states at_2 = {.first_layer = 2, .in = clean->hidden[0][2]};
    struct mb_hidden_states at_1 = {.first_layer = 1, .in = clean->hidden[0][1]};
    struct mb_hidden_states beyond = {.first_layer = m.n_layers + 1, .in = clean->hidden[0][1]};
    struct mb_hidden_states nothing = {.first_layer = 1};
    struct mb_batch_item items[N_ITEMS];
    fill_items(&m, r, items);
    items[0].hidden = &at_2; /* the others begin at layer 0 */
    assert_int_equal(mb_decode(m.model, items, N_ITEMS, &err), MB_USAGE);
    items[0].hidden = &beyond;
    assert_int_equal(mb_decode(m.model, items, 1, &err), MB_USAGE);
    items[0].hidden = &nothing;
    assert_int_equal(mb_decode(m.model, items, 1, &err), MB_USAGE);
    items[0].n_tokens = 5;
    items[0].hidden = &at_2;
    must(mb_decode(m.model, items, 1, &err), &err);
    items[0].hidden = &at_1; /* layer 1 has no cache of the first five */
    assert_int_equal(mb_decode(m.model, items, 1, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "reset it"));
    assert_int_equal(mb_session_n_past(m.sessions[0]), 5);
    struct mb_hidden_states ends = {.end_layer = 1},
                            ends_first = {.first_layer = 1, .in = clean->hidden[0][1], .end_layer = 1};
    fill_items(&m, r, items);
    items[0].hidden = &ends; /* logits after layer 1 */
    assert_int_equal(mb_decode(m.model, items, 1, &err), MB_USAGE);
    items[0].logits = NULL;
    assert_int_equal(mb_decode(m.model, items, N_ITEMS, &err), MB_USAGE); /* the others go on */
    items[0].hidden = &ends_first;
    assert_int_equal(mb_decode(m.model, items, 1, &err), MB_USAGE);
    free(clean);
    free(r);
    unload(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_from_a_layer_gives_the_bits_of_a_whole_pass),
        cmocka_unit_test(a_coded_model_does_so_too),
        cmocka_unit_test(a_change_in_a_late_layer_needs_the_early_layers_once),
        cmocka_unit_test(pieces_and_generated_tokens_begin_at_a_layer_too),
        cmocka_unit_test(the_first_tokens_may_have_no_logits),
        cmocka_unit_test(a_session_that_lacks_early_layers_computes_them),
        cmocka_unit_test(layers_can_run_one_at_a_time),
        cmocka_unit_test(a_session_that_ended_early_is_fed_again),
        cmocka_unit_test(batches_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
