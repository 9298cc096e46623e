/*
 * test_long.c - generated tokens after more than one chunk of positions (256) give what a prompt token there
 * gives, and the same bits for every number of threads, batch and instruction set.
 *
 * The reference model's weights, with a longer context than it was trained for.
 */
#include "checkpoint/folder.h"
#include "child.h"
#include "cmocka_all.h"
#include <jansson.h>
#include <math.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define REFERENCE MB_REPO "/models/reference"
#define TOLERANCE 1e-3 /* as test_truth's, of the largest logit */
enum { N_CTX = 1024, N_VOCAB = 2048, N_GENERATED = 8, N_SESSIONS = 3 };

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

/* The reference model under a config.json that says N_CTX. */
static int make_folder(void **state)
{
    static const char *const names[] = {"model.safetensors", "generation_config.json"};
    if (test_folder_begin(state) != 0)
        return 1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char target[512];
        snprintf(target, sizeof target, "%s/%s", REFERENCE, names[i]);
        if (symlink(target, test_path(names[i])) != 0)
            return 1;
    }
    json_t *config = json_load_file(REFERENCE "/config.json", 0, NULL);
    int bad = json_object_set_new(config, "max_position_embeddings", json_integer(N_CTX)) != 0 ||
              json_dump_file(config, test_path("config.json"), 0) != 0;
    json_decref(config);
    return bad;
}

static struct mb_model *open_model(int n_threads)
{
    struct mb_error err;
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = n_threads};
    must(mb_model_open(test_path("."), &options, &model, &err), &err);
    return model;
}

static struct mb_session *open_session(struct mb_model *model, enum mb_cache_type cache_type)
{
    struct mb_error err;
    struct mb_session *session;
    struct mb_session_options options = {.size = sizeof options, .cache_type = cache_type};
    must(mb_session_open(model, &options, &session, &err), &err);
    return session;
}

static const int32_t *prompt(void)
{
    static int32_t tokens[N_CTX];
    for (size_t i = 0; i < N_CTX; i++)
        tokens[i] = (int32_t)((i * 7919 + 13) % N_VOCAB);
    return tokens;
}

static void feed(struct mb_model *model, struct mb_session *session, size_t n, bool is_generated,
                 float *logits)
{
    struct mb_error err;
    struct mb_batch_item item = {.session = session,
                                 .tokens = prompt() + mb_session_n_past(session),
                                 .n_tokens = n,
                                 .is_generated = is_generated,
                                 .logits = logits};
    must(mb_decode(model, &item, 1, &err), &err);
}

static void generated_tokens_equal_prompt_tokens(void **state)
{
    (void)state;
    static const size_t pasts[] = {255, 256, 257, 512};
    static float expected[N_VOCAB], got[N_VOCAB];
    struct mb_model *model = open_model(2);
    for (size_t i = 0; i < sizeof pasts / sizeof *pasts; i++) {
        struct mb_session *session = open_session(model, MB_CACHE_F32);
        feed(model, session, pasts[i] + 1, false, expected);
        mb_session_reset(session);
        feed(model, session, pasts[i], false, NULL);
        feed(model, session, 1, true, got);
        double largest = 0, worst = 0;
        for (size_t k = 0; k < N_VOCAB; k++) {
            largest = fmax(largest, fabs((double)expected[k]));
            worst = fmax(worst, fabs((double)expected[k] - (double)got[k]));
        }
        if (!(worst <= TOLERANCE * largest))
            fail_msg("after %zu tokens: logits differ by %g of %g", pasts[i], worst, largest);
        mb_session_close(session);
    }
    mb_model_close(model);
}

struct setting {
    const char *cpu; /* MOEBIUS_CPU */
    int n_threads;
    bool together; /* all sessions in a batch, else one by one */
};

/* Hash of all logits of sessions after 5, 300 and 508 tokens, which then generate. */
static uint64_t run_setting(const void *ctx)
{
    const struct setting *setting = ctx;
    static const size_t pasts[N_SESSIONS] = {5, 300, 508};
    static float logits[N_GENERATED][N_SESSIONS][N_VOCAB];
    struct mb_model *model = open_model(setting->n_threads);
    struct mb_session *sessions[N_SESSIONS];
    for (size_t s = 0; s < N_SESSIONS; s++) {
        sessions[s] = open_session(model, MB_CACHE_F16);
        feed(model, sessions[s], pasts[s], false, NULL);
    }
    for (size_t i = 0; i < N_GENERATED; i++) {
        struct mb_batch_item items[N_SESSIONS];
        struct mb_error err;
        for (size_t s = 0; s < N_SESSIONS; s++) {
            items[s] = (struct mb_batch_item){.session = sessions[s],
                                              .tokens = prompt() + pasts[s] + i,
                                              .n_tokens = 1,
                                              .is_generated = true,
                                              .logits = logits[i][s]};
            if (!setting->together)
                must(mb_decode(model, &items[s], 1, &err), &err);
        }
        if (setting->together)
            must(mb_decode(model, items, N_SESSIONS, &err), &err);
    }
    for (size_t s = 0; s < N_SESSIONS; s++)
        mb_session_close(sessions[s]);
    mb_model_close(model);
    return XXH3_64bits(logits, sizeof logits);
}

static void the_same_bits(void **state)
{
    (void)state;
    static const struct setting settings[] = {
        {"", 1, false},
        {"", 2, true},
        {"", 3, false},
        {"-avx512", 2, true},
        {"-avx512,-avxvnni", 2, true},
        {"-avx2", 1, true},
    };
    uint64_t first = test_hash_in_child(settings[0].cpu, run_setting, &settings[0]);
    for (size_t i = 1; i < sizeof settings / sizeof *settings; i++)
        if (test_hash_in_child(settings[i].cpu, run_setting, &settings[i]) != first)
            fail_msg("MOEBIUS_CPU=%s, %d threads, %s: other bits than one thread alone", settings[i].cpu,
                     settings[i].n_threads, settings[i].together ? "together" : "one by one");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bits), /* before this process has chosen its kernels */
        cmocka_unit_test(generated_tokens_equal_prompt_tokens),
    };
    return cmocka_run_group_tests(tests, make_folder, test_folder_end);
}
