/*
 * test_truth.c - logits and routing against `transformers` (goldens: tools/goldens/README.md), and coded
 * folders against their decompressed twins.
 *
 * Rules: max |difference| / max |logit| within the tolerance; top-1 equal wherever the reference's margin
 * exceeds the tolerance; tokens whose expert sets differ are counted and had a router margin below 1e-4.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "npy.h"
#include <jansson.h>
#include <math.h>
#include <moebius/checkpoint.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATA MB_REPO "/tests/model/data"
#define TOLERANCE_F32_CACHE 1e-3
#define TOLERANCE_F16_CACHE 3e-3
#define TOLERANCE_DECOMPRESSED 2e-3
#define FLIP_MARGIN_MAX 1e-4F

enum { N_MOE_MAX = 16 };

/* One run of a model over some tokens: a golden, or our own. */
struct run {
    size_t n_tokens, n_rows, n_vocab; /* logits of the last n_rows positions */
    size_t n_moe, n_used;
    const int32_t *tokens;
    float *logits;                            /* [n_rows][n_vocab] */
    int32_t *experts;                         /* [n_moe][n_tokens][n_used], each set sorted */
    float *margin;                            /* [n_moe][n_tokens] */
    size_t moe_layers[N_MOE_MAX], n_moe_seen; /* layers of the indices above, in order */
};

enum feed {
    FEED_PROMPT,    /* all tokens in one call */
    FEED_PIECES,    /* a prompt in pieces of 7 */
    FEED_GENERATED, /* one prompt token, then one generated token a call */
};
static const char *const feed_names[] = {"prompt", "pieces", "generated"};

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static struct npy golden_file(const char *name, const char *file, const char *type)
{
    char path[512];
    snprintf(path, sizeof path, DATA "/goldens/%s/%s.npy", name, file);
    return npy_read(path, type);
}

static struct run golden_read(const char *name)
{
    struct npy tokens = golden_file(name, "tokens", "<i4"), logits = golden_file(name, "logits", "<f4");
    struct npy experts = golden_file(name, "experts", "<i4"),
               margin = golden_file(name, "router_margin", "<f4");
    assert_int_equal(experts.shape[1], tokens.n);
    assert_int_equal(margin.n, experts.shape[0] * tokens.n);
    return (struct run){
        .n_tokens = tokens.n,
        .n_rows = logits.shape[0],
        .n_vocab = logits.shape[1],
        .n_moe = experts.shape[0],
        .n_used = experts.shape[2],
        .tokens = tokens.data,
        .logits = logits.data,
        .experts = experts.data,
        .margin = margin.data,
    };
}

static void run_free(struct run *run, bool with_tokens)
{
    if (with_tokens)
        free((void *)run->tokens);
    free(run->logits);
    free(run->experts);
    free(run->margin);
}

static int compare_ids(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

/* Its index among the MoE layers, which come in order. */
static size_t index_of_layer(struct run *run, size_t layer)
{
    for (size_t i = 0; i < run->n_moe_seen; i++)
        if (run->moe_layers[i] == layer)
            return i;
    assert_true(run->n_moe_seen < run->n_moe && run->n_moe <= N_MOE_MAX);
    assert_true(run->n_moe_seen == 0 || run->moe_layers[run->n_moe_seen - 1] < layer);
    run->moe_layers[run->n_moe_seen] = layer;
    return run->n_moe_seen++;
}

static void note_route(void *ctx, size_t layer, size_t pos, const int32_t *experts, const float *weights,
                       size_t n_experts, float margin)
{
    struct run *run = ctx;
    (void)weights;
    assert_true(pos < run->n_tokens);
    assert_int_equal(n_experts, run->n_used);
    size_t at = index_of_layer(run, layer) * run->n_tokens + pos;
    int32_t *set = run->experts + at * run->n_used;
    memcpy(set, experts, n_experts * sizeof *set);
    qsort(set, n_experts, sizeof *set, compare_ids);
    run->margin[at] = margin;
}

/* The same tokens through our engine; shapes as in 'like', but logits of all positions. */
static struct run run_tokens(struct mb_model *model, const struct run *like, enum mb_cache_type cache_type,
                             enum feed feed)
{
    const struct mb_model_info *info = mb_model_info(model);
    assert_int_equal(info->n_vocab, like->n_vocab);
    struct run run = *like;
    run.n_rows = run.n_tokens;
    run.logits = calloc(run.n_rows * run.n_vocab, sizeof(float));
    run.experts = malloc(run.n_moe * run.n_tokens * run.n_used * sizeof(int32_t));
    run.margin = malloc(run.n_moe * run.n_tokens * sizeof(float));
    assert_true(run.logits != NULL && run.experts != NULL && run.margin != NULL);
    memset(run.experts, -1, run.n_moe * run.n_tokens * run.n_used * sizeof(int32_t));

    struct mb_session_options options = {
        .size = sizeof options, .cache_type = cache_type, .route = note_route, .route_ctx = &run};
    struct mb_session *session;
    struct mb_error err;
    must(mb_session_open(model, &options, &session, &err), &err);
    size_t piece = feed == FEED_PROMPT ? run.n_tokens : feed == FEED_PIECES ? 7 : 1;
    for (size_t pos = 0; pos < run.n_tokens; pos += piece) {
        struct mb_batch_item item = {.session = session,
                                     .tokens = run.tokens + pos,
                                     .n_tokens = piece < run.n_tokens - pos ? piece : run.n_tokens - pos,
                                     .is_generated = feed == FEED_GENERATED && pos > 0,
                                     .logits = run.logits + pos * run.n_vocab,
                                     .all_logits = true};
        must(mb_decode(model, &item, 1, &err), &err);
    }
    assert_int_equal(mb_session_n_past(session), run.n_tokens);
    assert_int_equal(run.n_moe_seen, run.n_moe);
    mb_session_close(session);
    return run;
}

/* ---------------------------------------------------------------- the rules */

struct agreement {
    double diff;       /* max |difference| / max |logit| */
    size_t n_top;      /* top-1 differs though the reference's margin exceeds the tolerance */
    size_t n_flips;    /* tokens (of a layer) whose expert sets differ */
    float flip_margin; /* the largest reference margin among them */
};

static size_t top_1(const float *logits, size_t n, float *margin)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    float second = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (i != best && logits[i] > second)
            second = logits[i];
    *margin = logits[best] - second;
    return best;
}

static struct agreement compare(const struct run *truth, const struct run *run, double tolerance)
{
    struct agreement a = {0};
    float logit_max = 0;
    for (size_t i = 0; i < truth->n_rows * truth->n_vocab; i++)
        logit_max = fmaxf(logit_max, fabsf(truth->logits[i]));
    const float *ours = run->logits + (run->n_rows - truth->n_rows) * run->n_vocab;
    for (size_t row = 0; row < truth->n_rows; row++) {
        const float *x = truth->logits + row * truth->n_vocab, *y = ours + row * truth->n_vocab;
        for (size_t i = 0; i < truth->n_vocab; i++) {
            double diff = fabs((double)x[i] - (double)y[i]) / (double)logit_max;
            if (!(diff <= a.diff)) /* NaN counts */
                a.diff = diff;
        }
        float margin, ignored;
        if (top_1(x, truth->n_vocab, &margin) != top_1(y, truth->n_vocab, &ignored) &&
            (double)margin > tolerance * (double)logit_max)
            a.n_top++;
    }
    for (size_t at = 0; at < truth->n_moe * truth->n_tokens; at++) {
        size_t set_nbytes = truth->n_used * sizeof(int32_t);
        if (memcmp(truth->experts + at * truth->n_used, run->experts + at * truth->n_used, set_nbytes) != 0) {
            a.n_flips++;
            a.flip_margin = fmaxf(a.flip_margin, truth->margin[at]);
        }
    }
    return a;
}

/* Prints the figures; returns whether they keep the rules. */
static bool judge(const char *what, const char *cache, enum feed feed, const struct run *truth,
                  const struct run *run, double tolerance)
{
    struct agreement a = compare(truth, run, tolerance);
    bool is_good = a.diff <= tolerance && a.n_top == 0 && a.flip_margin < FLIP_MARGIN_MAX;
    printf("%-28s %s cache, %-9s  diff %.1e (<= %.0e)  top-1 %zu of %zu  experts differ %zu of %zu (margin "
           "%.0e)%s\n",
           what, cache, feed_names[feed], a.diff, tolerance, a.n_top, truth->n_rows, a.n_flips,
           truth->n_moe * truth->n_tokens, (double)a.flip_margin, is_good ? "" : "  <-- BROKEN");
    return is_good;
}

/* ---------------------------------------------------------------- against transformers */

/* One family after another; golden files have the same names. */
static const char *const small[] = {"groups",
                                    "shared",
                                    "q-lora",
                                    "dense-layers",
                                    "yarn",
                                    "yarn-5",
                                    "shapes",
                                    "halves",
                                    "fp8",
                                    "deepseek-v2",
                                    "deepseek-v2-groups",
                                    "deepseek-v2-shapes",
                                    "dots1",
                                    "dots1-window",
                                    "dots1-types",
                                    "ernie4-5-moe",
                                    "ernie4-5-moe-layers",
                                    "ernie4-5-moe-shapes",
                                    "glm4-moe",
                                    "glm4-moe-norm",
                                    "glm4-moe-yarn",
                                    "glm4-moe-lite",
                                    "glm4-moe-lite-types",
                                    "glm4-moe-lite-halves",
                                    "granitemoe",
                                    "granitemoe-plain",
                                    "granitemoe-shapes",
                                    "granitemoeshared",
                                    "granitemoeshared-plain",
                                    "granitemoeshared-none",
                                    "minimax-m2",
                                    "minimax-m2-5",
                                    "minimax-m2-yarn",
                                    "mixtral",
                                    "mixtral-window",
                                    "mixtral-tied",
                                    "mixtral-longrope",
                                    "mixtral-longrope-5",
                                    "olmoe",
                                    "olmoe-clip",
                                    "olmoe-yarn",
                                    "phimoe",
                                    "phimoe-window",
                                    "phimoe-shapes",
                                    "qwen2-moe",
                                    "qwen2-moe-window",
                                    "qwen2-moe-mixed",
                                    "qwen3-moe",
                                    "qwen3-moe-mixed",
                                    "qwen3-moe-yarn",
                                    "qwen3-moe-long",
                                    "qwen3-moe-window",
                                    "qwen3-moe-fp8"};
static const char *const reference[] = {"reference-0", "reference-1", "reference-2", "reference-long"};
enum { N_SMALL = sizeof small / sizeof *small, N_REFERENCE = sizeof reference / sizeof *reference };

static struct mb_model *open_model(const char *folder)
{
    struct mb_model *model;
    struct mb_error err;
    struct mb_model_options options = {
        .size = sizeof options, .n_threads = 2, .activations = MB_ACTIVATIONS_EXACT};
    must(mb_model_open(folder, &options, &model, &err), &err);
    return model;
}

static void small_folder(char path[512], size_t i)
{
    snprintf(path, 512, DATA "/checkpoints/%s", small[i]);
}

/* The number of broken cases of one golden: both caches, all ways of feeding. */
static int check_golden(struct mb_model *model, const char *name)
{
    int n_broken = 0;
    struct run truth = golden_read(name);
    for (int is_f32 = 0; is_f32 <= 1; is_f32++)
        for (enum feed feed = FEED_PROMPT; feed <= FEED_GENERATED; feed++) {
            struct run run = run_tokens(model, &truth, is_f32 ? MB_CACHE_F32 : MB_CACHE_F16, feed);
            n_broken += !judge(name, is_f32 ? "f32" : "f16", feed, &truth, &run,
                               is_f32 ? TOLERANCE_F32_CACHE : TOLERANCE_F16_CACHE);
            run_free(&run, false);
        }
    run_free(&truth, true);
    return n_broken;
}

static void small_checkpoints_agree(void **state)
{
    (void)state;
    int n_broken = 0;
    for (size_t i = 0; i < N_SMALL; i++) {
        char path[512];
        small_folder(path, i);
        struct mb_model *model = open_model(path);
        n_broken += check_golden(model, small[i]);
        mb_model_close(model);
    }
    assert_int_equal(n_broken, 0);
}

static void reference_models_agree(void **state)
{
    (void)state;
    int n_broken = 0;
    struct mb_model *model = open_model(MB_REPO "/models/reference");
    for (size_t i = 0; i < N_REFERENCE; i++)
        n_broken += check_golden(model, reference[i]);
    mb_model_close(model);
    model = open_model(MB_REPO "/models/reference-qwen3");
    n_broken += check_golden(model, "reference-qwen3");
    mb_model_close(model);
    assert_int_equal(n_broken, 0);
}

/* ---------------------------------------------------------------- coded against decompressed */

/* The coded folder's logits are those of its decompressed twin; both run in our engine. The embedding table,
 * else exact, is coded too. */
static int check_twin(const char *folder, const char *golden, const char *name)
{
    const char *coded = test_path("coded"), *plain = test_path("plain");

    struct mb_error err;
    struct mb_tensor_bound embedding = {"embed_tokens", {0}};
    must(mb_bound_parse("10%", &embedding.bound, &err), &err);
    struct mb_compress_options options = {
        .size = sizeof options, .n_threads = 2, .tensor_bounds = &embedding, .n_tensor_bounds = 1};
    struct mb_compress_report compressed;
    struct mb_decompress_report decompressed;
    must(mb_compress(folder, coded, &options, &compressed, &err), &err);
    must(
        mb_decompress(coded, plain, DECOMPRESS_OPTIONS(.dtype = MB_F32, .n_threads = 2), &decompressed, &err),
        &err);

    int n_broken = 0;
    struct run like = golden_read(golden);
    struct mb_model *coded_model = open_model(coded), *plain_model = open_model(plain);
    assert_true(mb_model_info(coded_model)->is_coded);
    assert_false(mb_model_info(plain_model)->is_coded);
    for (enum feed feed = FEED_PROMPT; feed <= FEED_GENERATED; feed++) {
        struct run truth = run_tokens(plain_model, &like, MB_CACHE_F32, feed);
        struct run run = run_tokens(coded_model, &like, MB_CACHE_F32, feed);
        n_broken += !judge(name, "f32", feed, &truth, &run, TOLERANCE_DECOMPRESSED);
        run_free(&truth, false);
        run_free(&run, false);
    }
    mb_model_close(coded_model);
    mb_model_close(plain_model);
    run_free(&like, true);
    test_remove(coded);
    test_remove(plain);
    return n_broken;
}

static void coded_agrees_with_decompressed(void **state)
{
    (void)state;
    int n_broken = 0;
    for (size_t i = 0; i < N_SMALL; i++) {
        char path[512], name[64];
        small_folder(path, i);
        snprintf(name, sizeof name, "%s, coded", small[i]);
        n_broken += check_twin(path, small[i], name);
    }
    n_broken += check_twin(MB_REPO "/models/reference", "reference-1", "reference-1, coded");
    n_broken += check_twin(MB_REPO "/models/reference-qwen3", "reference-qwen3", "reference-qwen3, coded");
    assert_int_equal(n_broken, 0);
}

/* ---------------------------------------------------------------- shared experts */

static void link_in(const char *from, const char *to, const char *name)
{
    char target[600], path[600];
    snprintf(target, sizeof target, "%s/%s", from, name);
    snprintf(path, sizeof path, "%s/%s", to, name);
    assert_int_equal(symlink(target, path), 0);
}

/* 'plain' with all weights of shared experts 0. */
static void write_zeros(const char *from, const char *to)
{
    char path[600];
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    size_t n_zeroed = 0;
    must(mb_checkpoint_open(from, &ckpt, &err), &err);
    size_t nbytes;
    snprintf(path, sizeof path, "%s/model.safetensors", from);
    uint8_t *bytes = test_read(path, &nbytes);
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        if (strstr(tensor->name, ".shared_experts.") == NULL)
            continue;
        memset(bytes + tensor->file_pos, 0, tensor->nbytes);
        n_zeroed++;
    }
    assert_true(n_zeroed > 0);
    mb_checkpoint_close(ckpt);
    snprintf(path, sizeof path, "%s/model.safetensors", to);
    test_write(path, bytes, nbytes);
    free(bytes);
}

/* 'plain' under names that nobody reads. */
static void write_renamed(const char *from, const char *to)
{
    static const char name[] = ".shared_experts.", other[] = ".absent_experts.";
    char path[600];
    size_t nbytes, n_renamed = 0;
    snprintf(path, sizeof path, "%s/model.safetensors", from);
    uint8_t *bytes = test_read(path, &nbytes);
    for (size_t i = 0; i + sizeof name < nbytes; i++)
        if (memcmp(bytes + i, name, sizeof name - 1) == 0) {
            memcpy(bytes + i, other, sizeof other - 1);
            n_renamed++;
        }
    assert_true(n_renamed > 0);
    snprintf(path, sizeof path, "%s/model.safetensors", to);
    test_write(path, bytes, nbytes);
    free(bytes);
}

/* A model without shared experts is one whose shared experts give 0. */
static void without_shared_experts(void **state)
{
    (void)state;
    char from[512], path[600];
    const char *zeros = test_path("zeros"), *without = test_path("without");
    small_folder(from, 0);
    test_make_folder(zeros);
    test_make_folder(without);
    link_in(from, zeros, "config.json");
    write_zeros(from, zeros);
    write_renamed(from, without);
    snprintf(path, sizeof path, "%s/config.json", from);
    json_t *config = json_load_file(path, 0, NULL);
    assert_int_equal(json_object_set_new(config, "n_shared_experts", json_null()), 0);
    assert_int_equal(json_dump_file(config, test_path("without/config.json"), 0), 0);
    json_decref(config);

    struct run like = golden_read(small[0]);
    struct mb_model *a = open_model(zeros), *b = open_model(without);
    struct run expected = run_tokens(a, &like, MB_CACHE_F32, FEED_GENERATED),
               got = run_tokens(b, &like, MB_CACHE_F32, FEED_GENERATED);
    for (size_t i = 0; i < got.n_rows * got.n_vocab; i++)
        assert_true(got.logits[i] == expected.logits[i]);
    run_free(&expected, false);
    run_free(&got, false);
    run_free(&like, true);
    mb_model_close(a);
    mb_model_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_checkpoints_agree),
        cmocka_unit_test(reference_models_agree),
        cmocka_unit_test(coded_agrees_with_decompressed),
        cmocka_unit_test(without_shared_experts),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
