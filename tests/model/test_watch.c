/*
 * test_watch.c - the inputs of matrices as a watcher sees them: all of them, right, and without an effect.
 */
#include "base/error.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "model/mlp.h"
#include "model/model.h"
#include <math.h>
#include <moebius/checkpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"
enum { N_TOKENS = 40, N_VALUES_MAX = 256, N_SEEN_MAX = 400 };

/* The weighted sum of the inputs of a matrix. */
struct seen {
    char name[128];
    size_t layer, expert, n, n_values;
    double weights, sum[N_VALUES_MAX];
};

struct watcher {
    struct seen seen[N_SEEN_MAX];
    size_t n;
};

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static struct seen *find(struct watcher *watcher, const char *name)
{
    for (size_t i = 0; i < watcher->n; i++)
        if (strcmp(watcher->seen[i].name, name) == 0)
            return &watcher->seen[i];
    return NULL;
}

static void watch(void *ctx, const struct mb_matrix_input *input)
{
    struct watcher *watcher = ctx;
    struct seen *seen = find(watcher, input->name);
    if (seen == NULL) {
        assert_true(watcher->n < N_SEEN_MAX && input->n_values <= N_VALUES_MAX);
        seen = &watcher->seen[watcher->n++];
        snprintf(seen->name, sizeof seen->name, "%s", input->name);
        seen->layer = input->layer;
        seen->expert = input->expert;
        seen->n_values = input->n_values;
    }
    assert_true((input->weights != NULL) == (input->expert != SIZE_MAX));
    for (size_t t = 0; t < input->n; t++) {
        double weight = input->weights != NULL ? (double)input->weights[t] : 1;
        seen->weights += weight;
        for (size_t c = 0; c < input->n_values; c++)
            seen->sum[c] += weight * (double)input->x[t * input->stride + c];
    }
    seen->n += input->n;
}

struct run {
    float logits[N_TOKENS * 160];
    float hidden[6][N_TOKENS * 160], *out[6];
    size_t n_chosen[6][64];
    double gate[6][64];
};

static void count(void *ctx, size_t layer, size_t pos, const int32_t *experts, const float *weights, size_t n,
                  float margin)
{
    struct run *r = ctx;
    (void)pos, (void)margin;
    for (size_t k = 0; k < n; k++) {
        r->n_chosen[layer][experts[k]]++;
        r->gate[layer][experts[k]] += (double)weights[k];
    }
}

static struct run *run_prompt(struct mb_model *model)
{
    struct run *r = calloc(1, sizeof *r);
    struct mb_error err;
    struct mb_session *session;
    struct mb_session_options options = {.size = sizeof options, .route = count, .route_ctx = r};
    int32_t tokens[N_TOKENS];
    assert_non_null(r);
    assert_true(model->config.n_layers < 6 && model->config.d_model <= 160 && model->config.n_vocab <= 160);
    for (size_t t = 0; t < N_TOKENS; t++)
        tokens[t] = (int32_t)((t * 31 + 7) % model->config.n_vocab);
    for (size_t l = 0; l <= model->config.n_layers; l++)
        r->out[l] = r->hidden[l];
    struct mb_hidden_states hidden = {.out = r->out};
    must(mb_session_open(model, &options, &session, &err), &err);
    struct mb_batch_item item = {.session = session,
                                 .tokens = tokens,
                                 .n_tokens = N_TOKENS,
                                 .logits = r->logits,
                                 .all_logits = true,
                                 .hidden = &hidden};
    must(mb_decode(model, &item, 1, &err), &err);
    mb_session_close(session);
    return r;
}

/* to += the matrix of that name times the sum of what it read. */
static void add_product(struct mb_model *model, struct watcher *watcher, const char *name, double *to)
{
    struct mb_error err;
    const struct seen *seen = find(watcher, name);
    const struct mb_matrix *m;
    if (seen == NULL)
        return; /* an expert that no token went to */
    const struct mb_weight_info *info = mb_index_find(model->index, name);
    assert_non_null(info);
    must(mb_store_matrix(model->store, name, info->n_rows, info->n_cols, &m, &err), &err);
    assert_int_equal(seen->n_values, m->n_cols);
    float *row = malloc(m->n_cols * sizeof *row);
    assert_non_null(row);
    for (size_t r = 0; r < m->n_rows; r++) {
        model->ops->widen(m->dtype, (const uint8_t *)m->dense + r * m->n_cols * mb_dtype_nbytes(m->dtype),
                          m->n_cols, row);
        for (size_t c = 0; c < m->n_cols; c++)
            to[r] += (double)row[c] * seen->sum[c];
    }
    free(row);
}

static void add_weight(struct mb_model *model, struct watcher *watcher, enum mb_weight_id id, size_t layer,
                       size_t expert, double *to)
{
    char name[MB_NAME_NBYTES_MAX];
    mb_weight_name(&model->config, id, layer, expert, name);
    add_product(model, watcher, name, to);
}

static void close_to_sum(const double *got, const float *rows, const float *less, size_t n)
{
    for (size_t c = 0; c < n; c++) {
        double want = 0, size = 0;
        for (size_t t = 0; t < N_TOKENS; t++) {
            want += (double)rows[t * n + c] - (less != NULL ? (double)less[t * n + c] : 0);
            size += fabs((double)rows[t * n + c]);
        }
        if (!(fabs(got[c] - want) <= 1e-4 * size + 1e-5))
            fail_msg("column %zu: %g is not %g", c, got[c], want);
    }
}

/* What attention and MLP add to the residual stream, summed over all tokens, is what their last matrices make
 * of what they read; and logits are what the head makes. */
static void check_sums(const char *name)
{
    static struct watcher watcher;
    char path[512];
    struct mb_error err;
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = 2};
    snprintf(path, sizeof path, "%s%s", CHECKPOINTS, name);
    must(mb_model_open(path, &options, &model, &err), &err);
    watcher.n = 0;
    memset(watcher.seen, 0, sizeof watcher.seen);
    mb_model_watch_inputs(model, watch, &watcher);
    struct run *r = run_prompt(model);
    const struct mb_config *c = &model->config;
    for (size_t l = 0; l < c->n_layers; l++) {
        double sum[N_VALUES_MAX] = {0};
        const struct mb_layer *layer = &model->layers[l];
        add_weight(model, &watcher, MB_W_O, l, 0, sum);
        if (!layer->mlp->kind->has_experts)
            add_weight(model, &watcher, MB_W_DOWN, l, 0, sum);
        if (layer->mlp->d_shared > 0)
            add_weight(model, &watcher, MB_W_SHARED_DOWN, l, 0, sum);
        for (size_t e = 0; layer->mlp->kind->has_experts && e < layer->mlp->router.n_experts; e++)
            add_weight(model, &watcher, MB_W_EXPERT_DOWN, l, e, sum);
        close_to_sum(sum, r->hidden[l + 1], r->hidden[l], c->d_model);
    }
    double sum[N_VALUES_MAX] = {0};
    add_weight(model, &watcher, c->is_tied ? MB_W_EMBEDDING : MB_W_HEAD, 0, 0, sum);
    close_to_sum(sum, r->logits, NULL, c->n_vocab);
    free(r);
    mb_model_close(model);
}

static void what_is_seen_is_what_is_multiplied(void **state)
{
    (void)state;
    check_sums("groups");
    check_sums("qwen3-moe");
    check_sums("mixtral-tied");
}

/* Every matrix, as often as tokens go through it; experts with the router's weights. */
static void check_all(struct mb_model *model, struct watcher *watcher, const struct run *r)
{
    const struct mb_config *c = &model->config;
    size_t n_seen = 1; /* the head */
    for (size_t l = 0; l < c->n_layers; l++) {
        struct mb_weight_list list;
        mb_list_layer(c, l, &list);
        for (size_t i = 0; i < list.n; i++) {
            bool is_expert = mb_is_expert_matrix(list.at[i].id);
            size_t n = is_expert ? model->layers[l].mlp->router.n_experts : 1;
            for (size_t e = 0; e < n && list.at[i].n_cols > 0; e++) {
                char name[MB_NAME_NBYTES_MAX];
                mb_weight_name(c, list.at[i].id, l, e, name);
                const struct seen *seen = find(watcher, name);
                if (is_expert && r->n_chosen[l][e] == 0) {
                    assert_null(seen);
                    continue;
                }
                if (seen == NULL)
                    fail_msg("%s was not seen", name);
                n_seen++;
                assert_int_equal(seen->layer, l);
                assert_int_equal(seen->expert, is_expert ? e : SIZE_MAX);
                assert_int_equal(seen->n, is_expert ? r->n_chosen[l][e] : N_TOKENS);
                assert_int_equal(seen->n_values, list.at[i].n_cols);
                if (is_expert)
                    assert_true(fabs(seen->weights - r->gate[l][e]) < 1e-9);
            }
        }
    }
    const struct seen *head = find(watcher, "lm_head.weight");
    assert_non_null(head);
    assert_true(head->layer == SIZE_MAX && head->expert == SIZE_MAX && head->n == N_TOKENS);
    assert_int_equal(watcher->n, n_seen);
}

static void check_model(const char *path)
{
    static struct watcher watcher;
    struct mb_error err;
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = 2};
    must(mb_model_open(path, &options, &model, &err), &err);
    watcher.n = 0;
    memset(watcher.seen, 0, sizeof watcher.seen);
    struct run *before = run_prompt(model);
    assert_int_equal(watcher.n, 0);
    mb_model_watch_inputs(model, watch, &watcher);
    struct run *watched = run_prompt(model);
    check_all(model, &watcher, watched);
    mb_model_watch_inputs(model, NULL, NULL);
    watcher.n = 0;
    struct run *after = run_prompt(model);
    assert_int_equal(watcher.n, 0);
    assert_memory_equal(watched->logits, before->logits, sizeof before->logits);
    assert_memory_equal(after->logits, before->logits, sizeof before->logits);
    free(before);
    free(watched);
    free(after);
    mb_model_close(model);
}

static void all_matrices_are_seen_and_nothing_changes(void **state)
{
    static const char *const names[] = {"groups", "qwen3-moe", "q-lora", "qwen2-moe", "phimoe"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s%s", CHECKPOINTS, names[i]);
        check_model(path);
    }
}

static void a_coded_model_shows_its_inputs_too(void **state)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_seen_is_what_is_multiplied),
        cmocka_unit_test(all_matrices_are_seen_and_nothing_changes),
        cmocka_unit_test(a_coded_model_shows_its_inputs_too),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
