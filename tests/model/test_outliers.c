/*
 * test_outliers.c - channels that are far larger than the others take nothing from them.
 *
 * A channel of a normed vector, or of an MLP's hidden vector, is multiplied by S and its column of the next
 * matrices divided by S: the same function, and the same weights up to a power of two.  Coded logits must
 * stay as near to those of the decompressed folder as they are for S = 1.
 */
#include "base/bytes.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "npy.h"
#include <math.h>
#include <moebius/checkpoint.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REFERENCE MB_REPO "/models/reference"
#define GOLDEN MB_REPO "/tests/model/data/goldens/reference-0/"

/* Which vectors have large channels: all normed ones (also the latent one), or all hidden ones. */
enum place { NORMS, HIDDEN };
static const char *const place_names[] = {"norms", "hidden"};

/* The factors are 2^0 (as a measure), 2^4, ... 2^20. */
enum { N_FACTORS = 6, EXPONENT_STEP = 4, N_CHANNELS_MAX = 3, MORE_MAX = 2 };
enum { N_TOKENS = 48, N_VOCAB = 2048 };

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

/* ---------------------------------------------------------------- scaled checkpoints */

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), n_end = strlen(end);
    return n >= n_end && strcmp(name + n - n_end, end) == 0;
}

/* A power of two: only values so small that nothing depends on them are rounded. */
static void scale_value(enum mb_tensor_type type, uint8_t *value, float factor)
{
    if (type == MB_TENSOR_F32) {
        mb_store_u32(value, mb_bits_of_float(mb_float_of_bits(mb_load_u32(value)) * factor));
        return;
    }
    assert_int_equal(type, MB_TENSOR_BF16);
    float v = mb_float_of_bits((uint32_t)mb_load_u16(value) << 16) * factor;
    mb_store_u16(value, (uint16_t)(mb_bits_of_float(v) >> 16));
}

/* Channels first, first + step, ... of one dimension of a tensor of one or two dimensions. */
static void scale_channels(const struct mb_tensor *t, uint8_t *bytes, bool is_column, size_t n_channels,
                           float factor)
{
    size_t elem_nbytes = (size_t)(t->nbytes / t->n_elems);
    size_t n_rows = (size_t)t->shape[0], n_cols = t->n_dims == 2 ? (size_t)t->shape[1] : 1;
    size_t n = is_column ? n_cols : n_rows;
    for (size_t i = 0; i < n_channels; i++) {
        size_t channel = (2 * i + 1) * n / (2 * N_CHANNELS_MAX) + i;
        for (size_t k = 0; k < (is_column ? n_rows : n_cols); k++) {
            size_t at = is_column ? k * n_cols + channel : channel * n_cols + k;
            scale_value(t->type, bytes + t->file_pos + at * elem_nbytes, factor);
        }
    }
}

static void scale_tensor(const struct mb_tensor *t, uint8_t *bytes, enum place place, size_t n_channels,
                         float factor)
{
    static const char *const readers[] = {
        "q_proj.weight",  "kv_a_proj_with_mqa.weight", "kv_b_proj.weight", "gate_proj.weight",
        "up_proj.weight", "mlp.gate.weight",           "lm_head.weight"};
    if (place == HIDDEN) {
        if (ends_with(t->name, "up_proj.weight"))
            scale_channels(t, bytes, false, n_channels, factor);
        if (ends_with(t->name, "down_proj.weight"))
            scale_channels(t, bytes, true, n_channels, 1 / factor);
        return;
    }
    if (ends_with(t->name, "norm.weight"))
        scale_channels(t, bytes, false, n_channels, factor);
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
        if (ends_with(t->name, readers[i]))
            scale_channels(t, bytes, true, n_channels, 1 / factor);
}

static void write_scaled(const char *folder, enum place place, size_t n_channels, float factor)
{
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    size_t nbytes;
    char path[600];
    uint8_t *bytes = test_read(REFERENCE "/model.safetensors", &nbytes);
    must(mb_checkpoint_open(REFERENCE, &ckpt, &err), &err);
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++)
        scale_tensor(mb_checkpoint_tensor(ckpt, i), bytes, place, n_channels, factor);
    mb_checkpoint_close(ckpt);
    test_make_folder(folder);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    test_write(path, bytes, nbytes);
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(symlink(REFERENCE "/config.json", path), 0);
    free(bytes);
}

/* ---------------------------------------------------------------- coded against decompressed */

/* The first token as a prompt and the others one by one, or all as a prompt. */
static float *run_tokens(const char *folder, const struct npy *tokens, bool is_generated,
                         enum mb_activation_form activations)
{
    struct mb_model *model;
    struct mb_session *session;
    struct mb_error err;
    struct mb_model_options options = {.size = sizeof options, .n_threads = 2, .activations = activations};
    struct mb_session_options session_options = {.size = sizeof session_options, .cache_type = MB_CACHE_F32};
    must(mb_model_open(folder, &options, &model, &err), &err);
    must(mb_session_open(model, &session_options, &session, &err), &err);
    size_t piece = is_generated ? 1 : tokens->n;
    float *logits = malloc(tokens->n * N_VOCAB * sizeof *logits);
    assert_true(logits != NULL && mb_model_info(model)->n_vocab == N_VOCAB);
    for (size_t at = 0; at < tokens->n; at += piece) {
        struct mb_batch_item item = {.session = session,
                                     .tokens = (const int32_t *)tokens->data + at,
                                     .n_tokens = piece,
                                     .is_generated = at > 0,
                                     .logits = logits + at * N_VOCAB,
                                     .all_logits = true};
        must(mb_decode(model, &item, 1, &err), &err);
    }
    mb_session_close(session);
    mb_model_close(model);
    return logits;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the largest differences of logits of all tokens, as a prompt and generated. */
struct difference {
    double median; /* a token whose experts differ, by a tie of the router, does not show */
    double largest;
};

static struct difference compare(const char *coded, const char *plain, const struct npy *tokens,
                                 enum mb_activation_form activations)
{
    double of_token[2 * N_TOKENS];
    for (size_t is_generated = 0; is_generated <= 1; is_generated++) {
        float *a = run_tokens(coded, tokens, is_generated, activations);
        float *b = run_tokens(plain, tokens, is_generated, activations);
        for (size_t t = 0; t < N_TOKENS; t++) {
            double largest = 0;
            for (size_t i = t * N_VOCAB; i < (t + 1) * N_VOCAB; i++) {
                double d = fabs((double)a[i] - (double)b[i]);
                largest = d <= largest ? largest : isnan(d) ? INFINITY : d;
            }
            of_token[is_generated * N_TOKENS + t] = largest;
        }
        free(a);
        free(b);
    }
    qsort(of_token, 2 * N_TOKENS, sizeof of_token[0], compare_doubles);
    return (struct difference){of_token[N_TOKENS], of_token[2 * N_TOKENS - 1]};
}

/* Bounds are absolute, so that a large row does not change those of the others. */
static struct difference scaled_difference(enum place place, size_t n_channels, float factor,
                                           const struct npy *tokens, enum mb_activation_form activations)
{
    const char *scaled = test_path("scaled"), *coded = test_path("coded"), *plain = test_path("plain");
    const struct mb_tensor_bound exact = {"embed_tokens", {MB_BOUND_EXACT, 0}};
    struct mb_compress_options options = {.size = sizeof options,
                                          .n_threads = 2,
                                          .has_bound = true,
                                          .has_dense_bound = true,
                                          .tensor_bounds = &exact,
                                          .n_tensor_bounds = 1};
    struct mb_compress_report compressed;
    struct mb_decompress_report decompressed;
    struct mb_error err;
    must(mb_bound_parse("abs:0.01", &options.bound, &err), &err);
    options.dense_bound = options.bound;
    write_scaled(scaled, place, n_channels, factor);
    must(mb_compress(scaled, coded, &options, &compressed, &err), &err);
    must(
        mb_decompress(coded, plain, DECOMPRESS_OPTIONS(.dtype = MB_F32, .n_threads = 2), &decompressed, &err),
        &err);
    struct difference difference = compare(coded, plain, tokens, activations);
    test_remove(scaled);
    test_remove(coded);
    test_remove(plain);
    return difference;
}

static void check(enum place place, size_t n_channels, enum mb_activation_form activations)
{
    struct npy tokens = npy_read(GOLDEN "tokens.npy", "<i4");
    double at_1 = 0, worst = 0;
    assert_true(tokens.n >= N_TOKENS);
    tokens.n = N_TOKENS;
    printf("%s, %zu large: differences of logits, median (largest) over tokens\n", place_names[place],
           n_channels);
    for (int i = 0; i < N_FACTORS; i++) {
        float factor = ldexpf(1, i * EXPONENT_STEP);
        struct difference d = scaled_difference(place, n_channels, factor, &tokens, activations);
        at_1 = i == 0 ? d.median : at_1;
        worst = d.median <= worst ? worst : d.median;
        printf("  S = 2^%-2d  %.2e (%.1e)\n", i * EXPONENT_STEP, d.median, d.largest);
    }
    assert_true(at_1 > 0 && worst <= MORE_MAX * at_1);
    free(tokens.data);
}

static void one_large_channel_of_all_normed_vectors(void **state)
{
    (void)state;
    check(NORMS, 1, MB_ACTIVATIONS_EXACT);
}

static void three_large_channels_of_all_normed_vectors(void **state)
{
    (void)state;
    check(NORMS, 3, MB_ACTIVATIONS_EXACT);
}

static void one_large_channel_of_all_hidden_vectors(void **state)
{
    (void)state;
    check(HIDDEN, 1, MB_ACTIVATIONS_EXACT);
}

static void three_large_channels_of_all_hidden_vectors(void **state)
{
    (void)state;
    check(HIDDEN, 3, MB_ACTIVATIONS_EXACT);
}

static void large_channels_meet_fast_activations(void **state)
{
    (void)state;
    check(NORMS, 3, MB_ACTIVATIONS_FAST);
    check(HIDDEN, 1, MB_ACTIVATIONS_FAST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_large_channel_of_all_normed_vectors),
        cmocka_unit_test(three_large_channels_of_all_normed_vectors),
        cmocka_unit_test(one_large_channel_of_all_hidden_vectors),
        cmocka_unit_test(three_large_channels_of_all_hidden_vectors),
        cmocka_unit_test(large_channels_meet_fast_activations),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
