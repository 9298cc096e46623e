/*
 * test_starved.c - the n-th allocation or read fails, for every n, in all that reads or writes a folder: it
 * says so, leaks nothing, leaves nothing that looks finished, and then does the same work as if nothing had
 * been.
 */
#include "base/error.h"
#include "cmocka_all.h"
#include "folder.h"
#include "starve.h"
#include "weights.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sanitizers take their time: there it is every third call, and all of them without. */
#if defined(__SANITIZE_ADDRESS__)
enum { STRIDE = 3 };
#else
enum { STRIDE = 1 };
#endif

/* A piece of work that can be done again and again. */
struct act {
    const char *name;
    void (*prepare)(void);                       /* NULL: nothing to do before */
    enum mb_status (*run)(struct mb_error *err); /* frees what it has made */
    const char *out, *whole; /* the folder that it writes, and what that must be; NULL: none */
    const char *before;      /* what 'out' is before; NULL: nothing */
    bool lasts;              /* tried too: all allocations from the n-th on fail */
    bool does_without;       /* there are reads and allocations that it has another way for */
};

/* ---------------------------------------------------------------- the folders */

/* Two experts, transposed and interleaved, so that nothing of them lies in a row, and a name with a prefix.
 */
static void write_fused(void)
{
    static const uint8_t zeros[2 * (96 + 48 + 6)];
    test_make_folder(test_path("fused"));
    test_write_text(
        test_path("fused"), "config.json",
        "{\"text_config\": {\"model_type\": \"gpt_oss\", \"hidden_size\": 6, \"intermediate_size\": 4, "
        "\"num_local_experts\": 2, \"num_hidden_layers\": 1}}");
    test_write_safetensors(
        test_path("fused"), "model.safetensors",
        "{\"language_model.model.layers.0.mlp.experts.gate_up_proj\":{\"dtype\":\"BF16\",\"shape\":[2,6,8],"
        "\"data_offsets\":[0,192]},\"language_model.model.layers.0.mlp.experts.down_proj\":{\"dtype\":"
        "\"BF16\","
        "\"shape\":[2,4,6],\"data_offsets\":[192,288]},\"language_model.model.norm.weight\":{\"dtype\":"
        "\"BF16\","
        "\"shape\":[6],\"data_offsets\":[288,300]}}",
        zeros, sizeof zeros);
}

static int begin(void **state)
{
    /* A bound that a pattern is stronger than. */
    static const char plan[] =
        "{\"bounds\": [{\"tensor\": \"model.layers.0.self_attn.q_proj.weight\", \"bound\": \"1%\"}]}";
    struct test_model model = {.dtype = MB_BF16, .is_bare = true, .n_hidden = 3, .n_inner = 2, .n_shards = 1};
    struct mb_compress_options options = {.size = sizeof options, .n_threads = 1};
    struct mb_compress_report report;
    struct mb_decompress_report plain_report;
    struct mb_error err;
    if (test_folder_begin(state) != 0)
        return -1;
    test_write_model(test_path("plain"), &model);
    model.n_shards = 2;
    test_write_model(test_path("dealt"), &model);
    test_write(test_path("plan.json"), plan, sizeof plan - 1);
    options.tensor_bounds = &(struct mb_tensor_bound){"q_proj", {MB_BOUND_MEAN_ABS, 0.5}};
    options.n_tensor_bounds = 1;
    assert_int_equal(mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err), MB_OK);
    options.n_tensor_bounds = 0;
    assert_int_equal(mb_compress(test_path("plain"), test_path("other"), &options, &report, &err), MB_OK);
    assert_int_equal(mb_decompress(test_path("coded"), test_path("back"),
                                   DECOMPRESS_OPTIONS(.dtype = MB_BF16, .n_threads = 1), &plain_report, &err),
                     MB_OK);
    write_fused();
    assert_int_equal(mb_compress(test_path("fused"), test_path("fused-coded"), &options, &report, &err),
                     MB_OK);
    assert_int_equal(mb_decompress(test_path("fused-coded"), test_path("fused-back"),
                                   DECOMPRESS_OPTIONS(.dtype = MB_BF16, .n_threads = 1), &plain_report, &err),
                     MB_OK);
    return 0;
}

static void copy_folder(const char *from, const char *to)
{
    char line[2400];
    snprintf(line, sizeof line, "cp -r '%s' '%s'", test_path(from), test_path(to));
    assert_int_equal(system(line), 0); /* NOLINT(cert-env33-c): our own words */
}

/* ---------------------------------------------------------------- acts */

static enum mb_status open_folder(const char *name, struct mb_error *err)
{
    struct mb_checkpoint *ckpt;
    enum mb_status status = mb_checkpoint_open(test_path(name), &ckpt, err);
    if (status == MB_OK)
        mb_checkpoint_close(ckpt);
    return status;
}

static enum mb_status open_plain(struct mb_error *err)
{
    return open_folder("plain", err);
}

static enum mb_status open_dealt(struct mb_error *err)
{
    return open_folder("dealt", err);
}

static enum mb_status open_fused(struct mb_error *err)
{
    return open_folder("fused", err);
}

static enum mb_status open_coded(struct mb_error *err)
{
    return open_folder("coded", err);
}

static enum mb_status load(const char *name, int n_threads, struct mb_error *err)
{
    struct test_weights weights;
    enum mb_status status = test_weights_open(test_path(name), n_threads, &weights, err);
    if (status == MB_OK)
        test_weights_close(&weights);
    return status;
}

/* A matrix that is computed is read when it is asked for. */
static enum mb_status load_fused(struct mb_error *err)
{
    struct test_weights weights;
    const struct mb_matrix *matrix;
    MB_TRY(test_weights_open(test_path("fused"), 1, &weights, err));
    enum mb_status status =
        mb_store_matrix(weights.store, "model.layers.0.mlp.experts.1.up_proj.weight", 4, 6, &matrix, err);
    test_weights_close(&weights);
    return status;
}

static enum mb_status load_plain(struct mb_error *err)
{
    return load("dealt", 1, err);
}

static enum mb_status load_coded(struct mb_error *err)
{
    return load("coded", 1, err);
}

static enum mb_status load_with_threads(struct mb_error *err)
{
    return load("coded", 3, err);
}

static enum mb_status compress(struct mb_compress_options options, struct mb_error *err)
{
    static const struct mb_tensor_bound wide = {"q_proj", {MB_BOUND_MEAN_ABS, 0.5}};
    struct mb_compress_report report;
    options.size = sizeof options;
    options.tensor_bounds = &wide;
    options.n_tensor_bounds = 1;
    if (options.n_threads == 0)
        options.n_threads = 1;
    return mb_compress(test_path("plain"), test_path("out"), &options, &report, err);
}

static enum mb_status compress_fresh(struct mb_error *err)
{
    return compress((struct mb_compress_options){0}, err);
}

static enum mb_status compress_with_threads(struct mb_error *err)
{
    return compress((struct mb_compress_options){.n_threads = 2}, err);
}

static enum mb_status compress_over(struct mb_error *err)
{
    return compress((struct mb_compress_options){.force = true}, err);
}

static enum mb_status compress_planned(struct mb_error *err)
{
    return compress((struct mb_compress_options){.plan_path = test_path("plan.json")}, err);
}

static enum mb_status compress_fused(struct mb_error *err)
{
    const struct mb_compress_options options = {.size = sizeof options, .n_threads = 1};
    struct mb_compress_report report;
    return mb_compress(test_path("fused"), test_path("out"), &options, &report, err);
}

static enum mb_status decompress_fused(struct mb_error *err)
{
    struct mb_decompress_report report;
    return mb_decompress(test_path("fused-coded"), test_path("out"),
                         DECOMPRESS_OPTIONS(.dtype = MB_BF16, .n_threads = 1), &report, err);
}

static enum mb_status compress_dry(struct mb_error *err)
{
    return compress((struct mb_compress_options){.dry_run = true}, err);
}

static bool stop_at_second_shard(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    (void)ctx, (void)what;
    return done > total / 2;
}

static void stop_in_between(void)
{
    struct mb_error err;
    struct mb_compress_options options = {.progress = stop_at_second_shard};
    assert_int_equal(compress(options, &err), MB_CANCELLED);
}

static enum mb_status decompress(struct mb_error *err)
{
    struct mb_decompress_report report;
    return mb_decompress(test_path("coded"), test_path("out"),
                         DECOMPRESS_OPTIONS(.dtype = MB_BF16, .n_threads = 1), &report, err);
}

static void count_tensor(void *ctx, const struct mb_verify_tensor *tensor)
{
    (void)tensor;
    ++*(size_t *)ctx;
}

static enum mb_status verify_against(const char *original, struct mb_error *err)
{
    size_t n = 0;
    struct mb_verify_report report;
    enum mb_status status =
        mb_verify(test_path("coded"), original,
                  VERIFY_OPTIONS(.n_threads = 1, .each = count_tensor, .each_ctx = &n), &report, err);
    if (status == MB_OK)
        assert_true(report.n_broken == 0 && n > 3);
    return status;
}

static enum mb_status verify(struct mb_error *err)
{
    return verify_against(test_path("plain"), err);
}

static enum mb_status verify_alone(struct mb_error *err)
{
    return verify_against(NULL, err);
}

/* ---------------------------------------------------------------- every n */

static void put_before(const struct act *act)
{
    if (act->out != NULL) {
        test_remove(test_path(act->out));
        test_remove(test_path("out.partial"));
        test_remove(test_path("out.partial.json"));
        if (act->before != NULL)
            copy_folder(act->before, act->out);
    }
    if (act->prepare != NULL)
        act->prepare();
}

static void check_result(const struct act *act, long n)
{
    if (act->out != NULL && act->whole != NULL &&
        (!test_same_folders(test_path(act->out), test_path(act->whole)) ||
         test_exists(test_path("out.partial")) || test_exists(test_path("out.partial.json"))))
        fail_msg("%s, after call %ld had failed, gave something else", act->name, n);
}

static void run_well(const struct act *act, long n)
{
    struct mb_error err;
    if (act->run(&err) != MB_OK)
        fail_msg("%s, after call %ld had failed: %s", act->name, n, err.msg);
    check_result(act, n);
}

/* OUT is what it was, or what it is to be. */
static bool out_is_sound(const struct act *act)
{
    bool exists = act->out != NULL && test_exists(test_path(act->out));
    if (!exists)
        return act->before == NULL;
    return test_equal_folders(test_path(act->out), test_path(act->whole)) ||
           (act->before != NULL && test_equal_folders(test_path(act->out), test_path(act->before)));
}

static bool same_held(struct starve_held a, struct starve_held b)
{
    return a.n_blocks == b.n_blocks && a.mapped_nbytes == b.mapped_nbytes && a.n_files == b.n_files;
}

/* How a kind of calls fails, and what is to come of it. */
struct want {
    enum starve_kind kind;
    const char *what;
    enum mb_status status;
    const char *words, *or_words;
};

static const struct want memory = {STARVE_MEMORY, "allocation", MB_NO_MEMORY, "memory", "thread"},
                         reading = {STARVE_READ, "read", MB_IO, "Input/output error", NULL},
                         cut = {STARVE_SHORT, "cut", MB_BAD_DATA, "truncated", NULL},
                         half = {STARVE_HALF, "half a read", MB_OK, NULL, NULL};

static bool says(const struct want *want, const struct mb_error *err)
{
    bool has_words = strstr(err->msg, want->words) != NULL ||
                     (want->or_words != NULL && strstr(err->msg, want->or_words) != NULL);
    return has_words && (want->kind == STARVE_MEMORY || strstr(err->msg, MB_TEST_FOLDER "/run-") != NULL);
}

static void fail_at(const struct act *act, const struct want *want, long n, bool lasts)
{
    struct mb_error err = {0};
    const char *later = lasts ? " and later" : "";
    put_before(act);
    struct starve_held before = starve_held();
    starve_begin(want->kind, n, lasts);
    enum mb_status status = act->run(&err);
    starve_end();
    struct starve_held after = starve_held();
    bool is_right = status == MB_OK ? want->status == MB_OK || act->does_without
                                    : status == want->status && says(want, &err);
    if (!is_right)
        fail_msg("%s: %s %ld%s: status %d: %s", act->name, want->what, n, later, (int)status, err.msg);
    if (!same_held(before, after))
        fail_msg("%s: %s %ld%s: left behind %ld blocks, %ld mapped bytes, %ld files", act->name, want->what,
                 n, later, after.n_blocks - before.n_blocks, after.mapped_nbytes - before.mapped_nbytes,
                 after.n_files - before.n_files);
    if (!out_is_sound(act))
        fail_msg("%s: %s %ld%s: left something that looks finished", act->name, want->what, n, later);
    if (status == MB_OK)
        check_result(act, n);
    else
        run_well(act, n);
}

static void starve(const struct act *act, const struct want *want)
{
    struct mb_error err;
    put_before(act);
    run_well(act, 0); /* what is made once in a process is made now */
    put_before(act);
    starve_begin(want->kind, 0, false);
    assert_int_equal(act->run(&err), MB_OK);
    long n_calls = starve_end();
    print_message("%s: %ld x %s\n", act->name, n_calls, want->what);
    assert_true(n_calls > 2);
    for (long n = 1; n <= n_calls; n += STRIDE) {
        fail_at(act, want, n, false);
        if (act->lasts && want == &memory)
            fail_at(act, want, n, true);
    }
}

/* A shard for each layer, an expert, a linear matrix and a norm; ".lasts" where failures are cleaned up. */
static const struct act acts[] = {
    {.name = "open", .run = open_plain},
    {.name = "open shards", .run = open_dealt, .lasts = true},
    {.name = "open coded", .run = open_coded},
    {.name = "open fused", .run = open_fused, .lasts = true},
    {.name = "load fused", .run = load_fused},
    {.name = "compress fused", .run = compress_fused, .out = "out", .whole = "fused-coded"},
    {.name = "decompress fused", .run = decompress_fused, .lasts = true, .out = "out", .whole = "fused-back"},
    {.name = "load", .run = load_plain},
    {.name = "load coded", .run = load_coded, .lasts = true, .does_without = true},
    {.name = "load coded with threads", .run = load_with_threads, .does_without = true},
    {.name = "compress", .run = compress_fresh, .lasts = true, .out = "out", .whole = "coded"},
    {.name = "compress with threads", .run = compress_with_threads, .out = "out", .whole = "coded"},
    {.name = "compress --force", /* what it cannot take from the old folder it codes */
     .run = compress_over,
     .out = "out",
     .whole = "coded",
     .before = "other",
     .does_without = true},
    {.name = "compress, resumed",
     .prepare = stop_in_between,
     .run = compress_fresh,
     .out = "out",
     .whole = "coded"},
    {.name = "compress --plan", .run = compress_planned, .out = "out", .whole = "coded"},
    {.name = "compress --dry-run", .run = compress_dry},
    {.name = "decompress", .run = decompress, .lasts = true, .out = "out", .whole = "back"},
    {.name = "verify", .run = verify, .lasts = true},
    {.name = "verify alone", .run = verify_alone},
};

static void starve_all(const struct want *want)
{
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
        starve(&acts[i], want);
}

static void allocations_fail(void **state)
{
    (void)state;
    starve_all(&memory);
}

static void reads_fail(void **state)
{
    (void)state;
    starve_all(&reading);
}

/* Somebody cuts a file that is being read. */
static void files_end_early(void **state)
{
    (void)state;
    starve_all(&cut);
}

static void reads_give_half(void **state)
{
    (void)state;
    starve_all(&half);
}

int main(void)
{
    const struct CMUnitTest tests[] = {

        cmocka_unit_test(allocations_fail),
        cmocka_unit_test(reads_fail),
        cmocka_unit_test(files_end_early),
        cmocka_unit_test(reads_give_half),
    };
    json_set_alloc_funcs(starve_spared_malloc, free);
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
