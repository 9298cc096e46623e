/*
 * test_moments.c - second moments: against an independent computation, on every instruction set, after kills,
 * and from damaged files.
 */
#include "base/json.h"
#include "calibrate/gram.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "model/child.h"
#include <math.h>
#include <moebius/calibrate.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"
#define REFERENCE MB_REPO "/models/reference"
#define DATA MB_REPO "/tests/calibrate/data/"
enum { N_CTX = 40, N_WINDOWS = 9 };

static const struct mb_moments_key key = {
    "00112233445566778899aabbccddeeff", "00000000000000000000000000000001",
    "00000000000000000000000000000002", "00000000000000000000000000000003"};

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static struct mb_model *open_model(const char *path, int n_threads)
{
    struct mb_error err;
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = n_threads};
    must(mb_model_open(path, &options, &model, &err), &err);
    return model;
}

/* Windows of different lengths. */
static struct mb_calibration make_calibration(const struct mb_model *model)
{
    struct mb_calibration calibration = {0};
    struct mb_error err;
    int32_t tokens[N_CTX];
    for (size_t w = 0; w < N_WINDOWS; w++) {
        for (size_t t = 0; t < N_CTX; t++)
            tokens[t] = (int32_t)((t * (w + 3) * 31 + w * 17 + 7) % mb_model_info(model)->n_vocab);
        must(mb_windows_add(&calibration.windows, tokens, N_CTX - 3 * w, 0, &err), &err);
    }
    return calibration;
}

static enum mb_status make(const char *path, const char *model_path, int n_threads, uint64_t nbytes_max,
                           mb_progress_fn progress, void *ctx, struct mb_moments_report *report,
                           struct mb_error *err)
{
    struct mb_model *model = open_model(model_path, n_threads);
    struct mb_calibration calibration = make_calibration(model);
    struct mb_moments_options options = {.size = sizeof options,
                                         .n_threads = n_threads,
                                         .nbytes_max = nbytes_max,
                                         .progress = progress,
                                         .progress_ctx = ctx};
    enum mb_status status = mb_moments_make(path, model, &calibration, &key, &options, report, err);
    mb_calibration_free(&calibration);
    mb_model_close(model);
    return status;
}

static void must_make(const char *path, const char *model_path)
{
    struct mb_moments_report report;
    struct mb_error err;
    test_remove(path);
    must(make(path, model_path, 2, 0, NULL, NULL, &report, &err), &err);
}

static uint64_t hash_of_file(const char *path)
{
    size_t nbytes;
    uint8_t *bytes = test_read(path, &nbytes);
    uint64_t hash = XXH3_64bits(bytes, nbytes);
    free(bytes);
    return hash;
}

static float *read_moments(const struct mb_moments *moments, const struct mb_moments_input *input)
{
    struct mb_error err;
    float *h = malloc(input->n_values * input->n_values * sizeof *h);
    assert_non_null(h);
    must(mb_moments_read(moments, input, h, &err), &err);
    return h;
}

/* ---------------------------------------------------------------- bits */

struct way {
    const char *name, *model;
    int n_threads;
    uint64_t nbytes_max;
};

static uint64_t hash_of_way(const void *ctx)
{
    const struct way *way = ctx;
    struct mb_moments_report report;
    struct mb_error err;
    const char *path = test_path(way->name);
    test_remove(path);
    must(make(path, way->model, way->n_threads, way->nbytes_max, NULL, NULL, &report, &err), &err);
    return hash_of_file(path);
}

static void instruction_sets_threads_and_memory_do_not_show(void **state)
{
    (void)state;
    static const char *const models[] = {CHECKPOINTS "shapes", CHECKPOINTS "qwen3-moe"};
    static const char *const cpus[] = {
#if defined __x86_64__
        "-avx512",
        "-avx512,-avx2",
#elif defined __aarch64__
        "-neon",
#endif
        "",
    };
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        struct way one = {"one", models[m], 1, 0}, two = {"two", models[m], 2, 1},
                   three = {"three", models[m], 3, 30000};
        uint64_t hash = test_hash_in_child("", hash_of_way, &one);
        for (size_t i = 0; i < sizeof cpus / sizeof *cpus; i++)
            assert_int_equal(test_hash_in_child(cpus[i], hash_of_way, i == 0 ? &two : &three), hash);
    }
}

static void all_kernels_give_the_bits_of_the_scalar_one(void **state)
{
    (void)state;
    enum { TILE = MB_GRAM_PANEL * MB_GRAM_PANEL };
    static const char *const isas[] = {"avx2", "avx512", "neon"};
    static float a[MB_GRAM_BLOCK * MB_GRAM_PANEL], b[MB_GRAM_BLOCK * MB_GRAM_PANEL], expected[TILE],
        got[TILE];
    srand(1);
    for (size_t i = 0; i < sizeof a / sizeof *a; i++) {
        a[i] = (float)rand() / (float)RAND_MAX - 0.4F;
        b[i] = ldexpf((float)rand() / (float)RAND_MAX - 0.5F, rand() % 40 - 20);
    }
    const struct mb_gram_ops *scalar = mb_gram_ops_by_isa("scalar");
    assert_non_null(scalar);
    for (size_t k = 0; k < sizeof isas / sizeof *isas; k++) {
        const struct mb_gram_ops *ops = mb_gram_ops_by_isa(isas[k]);
        for (size_t n = 0; ops != NULL && n <= MB_GRAM_BLOCK; n += n < 9 ? 1 : 31) {
            memset(expected, 0, sizeof expected);
            memset(got, 0, sizeof got);
            for (size_t round = 0; round < 2; round++) {
                scalar->add(a, b, n, expected);
                ops->add(a, b, n, got);
            }
            assert_memory_equal(expected, got, sizeof got);
        }
    }
}

/* ---------------------------------------------------------------- values */

static void assert_near(double got, double expected, double scale, const char *what, const char *matrix)
{
    if (!(fabs(got - expected) <= 2e-5 * scale))
        fail_msg("%s of %s: %.9g instead of %.9g", what, matrix, got, expected);
}

static double number(const json_t *json, const char *name)
{
    return json_number_value(json_object_get(json, name));
}

static void check_golden(const struct mb_moments *moments, const json_t *golden)
{
    const char *name = json_string_value(json_object_get(golden, "matrix"));
    const struct mb_moments_input *input = mb_moments_find(moments, name);
    assert_non_null(input);
    assert_int_equal(input->n_tokens, json_integer_value(json_object_get(golden, "n_tokens")));
    if (input->n_tokens == 0)
        return;
    size_t n = input->n_values;
    float *h = read_moments(moments, input);
    double trace = 0, quadratic = 0;
    for (size_t i = 0; i < n; i++) {
        trace += h[i * n + i];
        for (size_t j = 0; j < n; j++) {
            assert_true(h[i * n + j] == h[j * n + i]);
            quadratic += ((double)((i * 37 + 11) % 64) / 32 - 1) * h[i * n + j] *
                         ((double)((j * 37 + 11) % 64) / 32 - 1);
        }
    }
    assert_near(input->sum_gg, number(golden, "sum_gg"), number(golden, "sum_gg"), "sum of g^2", name);
    assert_near(trace, number(golden, "trace"), number(golden, "trace"), "trace", name);
    assert_near(h[n], number(golden, "h10"), number(golden, "trace") / 10, "H[1][0]", name);
    assert_near(h[n * n - 1], number(golden, "h_last"), number(golden, "trace") / 10, "last element", name);
    assert_near(quadratic, number(golden, "quadratic"), number(golden, "trace"), "quadratic form", name);
    free(h);
}

static void check_tokens(const struct mb_windows *windows, const json_t *golden)
{
    assert_int_equal(windows->n, json_array_size(golden));
    for (size_t w = 0; w < windows->n; w++) {
        const json_t *tokens = json_array_get(golden, w);
        assert_int_equal(windows->at[w].n_tokens, json_array_size(tokens));
        for (size_t t = 0; t < windows->at[w].n_tokens; t++)
            assert_int_equal(windows->at[w].tokens[t], json_integer_value(json_array_get(tokens, t)));
    }
}

/* tools/goldens/moments.py */
static void moments_are_those_of_an_independent_computation(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_tokenizer *tokenizer;
    struct mb_calibration calibration;
    struct mb_moments_report report;
    struct mb_moments *moments;
    json_t *golden;
    struct mb_model *model = open_model(REFERENCE, 2);
    must(mb_json_read(DATA "moments.json", 1 << 20, &golden, &err), &err);
    must(mb_tokenizer_open(REFERENCE, &tokenizer, &err), &err);
    must(mb_calibration_read(DATA "text.jsonl", mb_model_info(model), tokenizer, NULL, &calibration, &err),
         &err);
    check_tokens(&calibration.windows, json_object_get(golden, "tokens"));
    assert_int_equal(calibration.n_strange, 0);
    const char *path = test_path("golden.moments");
    must(mb_moments_make(path, model, &calibration, &key, NULL, &report, &err), &err);
    must(mb_moments_open(path, key.model, &moments, &err), &err);
    const json_t *inputs = json_object_get(golden, "inputs");
    assert_true(json_array_size(inputs) > 70);
    for (size_t i = 0; i < json_array_size(inputs); i++)
        check_golden(moments, json_array_get(inputs, i));
    mb_moments_close(moments);
    mb_calibration_free(&calibration);
    mb_tokenizer_close(tokenizer);
    mb_model_close(model);
    json_decref(golden);
}

/* In models of all kinds each matrix but the embedding finds its input, of its size. */
static void every_matrix_has_an_input(void **state)
{
    (void)state;
    static const char *const names[] = {"q-lora",    "shared",           "mixtral-tied",
                                        "qwen2-moe", "granitemoeshared", "phimoe"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        char path[512];
        struct mb_error err;
        struct mb_moments *moments;
        size_t n;
        snprintf(path, sizeof path, CHECKPOINTS "%s", names[k]);
        must_make(test_path("all.moments"), path);
        must(mb_moments_open(test_path("all.moments"), NULL, &moments, &err), &err);
        struct mb_model *model = open_model(path, 1);
        const struct mb_model_matrix *matrices = mb_model_matrices(model, &n);
        for (size_t i = 0; i < n; i++) {
            const struct mb_moments_input *input = mb_moments_find(moments, matrices[i].name);
            bool is_head = i + 1 == n;
            if (matrices[i].kind == MB_MATRIX_EMBEDDING && !is_head) {
                assert_null(input);
                continue;
            }
            assert_non_null(input);
            assert_int_equal(input->n_values, matrices[i].n_cols);
            assert_int_equal(input->expert, matrices[i].expert);
            assert_int_equal(input->layer, matrices[i].layer < 0 ? SIZE_MAX : (size_t)matrices[i].layer);
            if (input->expert < 0)
                assert_int_equal(input->n_tokens, mb_moments_contents(moments)->n_tokens);
        }
        mb_model_close(model);
        mb_moments_close(moments);
    }
}

/* ---------------------------------------------------------------- kills */

struct stop {
    int n_left;
    bool kills;
};

static bool stop_later(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct stop *stop = ctx;
    (void)what;
    assert_true(done <= total);
    if (stop->n_left-- > 0)
        return false;
    if (stop->kills)
        kill(getpid(), SIGKILL);
    return true;
}

static void kill_after(const char *path, const char *model, int n)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct stop stop = {n, true};
        struct mb_moments_report report;
        make(path, model, 1, 0, stop_later, &stop, &report, NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void a_kill_loses_no_more_than_the_layer_at_hand(void **state)
{
    (void)state;
    struct mb_moments_report report;
    struct mb_error err;
    const char *model = CHECKPOINTS "shapes", *path = test_path("killed.moments");
    must_make(test_path("whole.moments"), model);
    struct mb_model *open = open_model(model, 1);
    size_t n_layers = mb_model_info(open)->n_layers;
    mb_model_close(open);
    for (size_t l = 0; l <= n_layers; l += 2) {
        kill_after(path, model, (int)l);
        assert_false(test_exists(path));
        must(make(path, model, 2, 0, NULL, NULL, &report, &err), &err);
        assert_int_equal(report.n_layers_resumed, l);
        assert_int_equal(hash_of_file(path), hash_of_file(test_path("whole.moments")));
        assert_false(test_exists(test_path("killed.moments.states")));
        assert_false(test_exists(test_path("killed.moments.partial")));
        test_remove(path);
    }
    for (size_t l = 0; l < n_layers; l++) { /* one kill after another */
        kill_after(path, model, 1);
        if (l == 0)
            kill_after(path, model, 0);
    }
    must(make(path, model, 1, 0, NULL, NULL, &report, &err), &err);
    assert_int_equal(report.n_layers_resumed, n_layers);
    assert_int_equal(hash_of_file(path), hash_of_file(test_path("whole.moments")));
}

static void flip(const char *path, size_t at, uint8_t bits)
{
    size_t nbytes;
    uint8_t *bytes = test_read(path, &nbytes);
    assert_true(at < nbytes);
    bytes[at] ^= bits;
    test_write(path, bytes, nbytes);
    free(bytes);
}

static void damaged_work_begins_anew(void **state)
{
    (void)state;
    struct mb_moments_report report;
    struct mb_error err;
    const char *model = CHECKPOINTS "shapes", *path = test_path("again.moments");
    must_make(test_path("whole.moments"), model);
    static const char *const files[] = {"again.moments.states", "again.moments.partial"};
    for (size_t i = 0; i < 4; i++) {
        struct stop stop = {2, false};
        assert_int_equal(make(path, model, 1, 0, stop_later, &stop, &report, &err), MB_CANCELLED);
        if (i < 2)
            flip(test_path(files[i]), 40, 1);
        else if (i == 2)
            flip(test_path(files[0]), 4000, 1);
        else
            test_remove(test_path(files[0]));
        must(make(path, model, 1, 0, NULL, NULL, &report, &err), &err);
        assert_int_equal(report.n_layers_resumed, 0);
        assert_int_equal(hash_of_file(path), hash_of_file(test_path("whole.moments")));
        assert_int_equal(make(path, model, 1, 0, NULL, NULL, &report, &err), MB_USAGE); /* it exists */
        test_remove(path);
    }
}

/* ---------------------------------------------------------------- damaged files */

/* Reads all of it. */
static enum mb_status read_all(const char *path, const char *model_hash, struct mb_error *err)
{
    struct mb_moments *moments;
    size_t n;
    enum mb_status status = mb_moments_open(path, model_hash, &moments, err);
    if (status != MB_OK)
        return status;
    const struct mb_moments_input *inputs = mb_moments_inputs(moments, &n);
    for (size_t i = 0; i < n && status == MB_OK; i++) {
        float *h = malloc(inputs[i].n_values * inputs[i].n_values * sizeof *h);
        assert_non_null(h);
        if (inputs[i].n_tokens > 0)
            status = mb_moments_read(moments, &inputs[i], h, err);
        free(h);
    }
    mb_moments_close(moments);
    return status;
}

static void damage_is_found(void **state)
{
    (void)state;
    struct mb_error err;
    const char *path = test_path("damaged.moments");
    size_t nbytes;
    must_make(test_path("sound.moments"), CHECKPOINTS "shapes");
    uint8_t *bytes = test_read(test_path("sound.moments"), &nbytes);
    must(read_all(test_path("sound.moments"), key.model, &err), &err);
    size_t n_same = 0;
    for (size_t at = 0; at < nbytes; at += at < 800 ? 1 : 977) {
        bytes[at] ^= 0x20;
        test_write(path, bytes, nbytes);
        enum mb_status status = read_all(path, key.model, &err);
        n_same += status == MB_OK; /* padding */
        assert_true(status == MB_OK || status == MB_BAD_DATA || status == MB_UNSUPPORTED);
        bytes[at] ^= 0x20;
    }
    assert_true(n_same < 130);
    static const size_t cuts[] = {0, 1, 7, 31, 32, 200, 500, 5000};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        test_write(path, bytes, cuts[i]);
        assert_int_equal(read_all(path, NULL, &err), MB_BAD_DATA);
        test_write(path, bytes, nbytes - cuts[i] - 1);
        assert_int_equal(read_all(path, NULL, &err), MB_BAD_DATA);
        assert_non_null(strstr(err.msg, "damaged.moments"));
    }
    uint8_t *longer = calloc(1, nbytes + 1);
    assert_non_null(longer);
    memcpy(longer, bytes, nbytes);
    test_write(path, longer, nbytes + 1);
    assert_int_equal(read_all(path, NULL, &err), MB_BAD_DATA);
    free(longer);
    free(bytes);
}

static void moments_of_another_model_are_refused(void **state)
{
    (void)state;
    struct mb_error err;
    must_make(test_path("sound.moments"), CHECKPOINTS "shapes");
    assert_int_equal(read_all(test_path("sound.moments"), "ffeeddccbbaa99887766554433221100", &err),
                     MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "another model"));
    assert_int_equal(read_all(REFERENCE "/model.safetensors", NULL, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "not a moments file"));
    assert_int_equal(read_all(test_path("nothing"), NULL, &err), MB_BAD_DATA);
}

/* A value that is not finite, with a checksum that is right, as a wrong program would write it. */
static void moments_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    struct mb_error err;
    const char *path = test_path("nan.moments");
    size_t nbytes, n;
    struct mb_moments *moments;
    must_make(path, CHECKPOINTS "shapes");
    must(mb_moments_open(path, NULL, &moments, &err), &err);
    const struct mb_moments_input *inputs = mb_moments_inputs(moments, &n);
    size_t half_nbytes = inputs[n - 1].n_values * (inputs[n - 1].n_values + 1) / 2 * sizeof(float);
    mb_moments_close(moments);
    uint8_t *bytes = test_read(path, &nbytes);
    char before[17], after[17];
    snprintf(before, sizeof before, "%016llx",
             (unsigned long long)XXH3_64bits(bytes + nbytes - half_nbytes, half_nbytes));
    memset(bytes + nbytes - 4, 0xff, 4);
    snprintf(after, sizeof after, "%016llx",
             (unsigned long long)XXH3_64bits(bytes + nbytes - half_nbytes, half_nbytes));
    uint8_t *table = memmem(bytes, nbytes, before, 16);
    assert_non_null(table);
    memcpy(table, after, 16);
    uint8_t *frame = table;
    while (memcmp(frame, "MBMLAYER", 8) != 0)
        frame--;
    uint32_t json_nbytes;
    memcpy(&json_nbytes, frame + 12, 4);
    uint64_t xxh3 = XXH3_64bits_withSeed(frame + 32, json_nbytes, XXH3_64bits(frame, 24));
    memcpy(frame + 24, &xxh3, 8);
    test_write(path, bytes, nbytes);
    assert_int_equal(read_all(path, NULL, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "not finite"));
    free(bytes);
}

/* ---------------------------------------------------------------- damaged models */

static void infinite_activations_are_named(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_moments_report report;
    size_t n, i = 0;
    struct mb_model *model = open_model(CHECKPOINTS "shapes", 1);
    struct mb_calibration calibration = make_calibration(model);
    const struct mb_model_matrix *matrices = mb_model_matrices(model, &n);
    while (matrices[i].layer != 1 || strcmp(matrices[i].part, "o") != 0)
        i++;
    float *values = malloc(matrices[i].n_rows * matrices[i].n_cols * sizeof *values);
    assert_non_null(values);
    for (size_t k = 0; k < matrices[i].n_rows * matrices[i].n_cols; k++)
        values[k] = 3e38F;
    struct mb_matrix changed = {
        .n_rows = matrices[i].n_rows, .n_cols = matrices[i].n_cols, .dtype = MB_F32, .dense = values};
    must(mb_model_overlay(model, matrices[i].name, &changed, &err), &err);
    const char *path = test_path("infinite.moments");
    assert_int_equal(mb_moments_make(path, model, &calibration, &key, NULL, &report, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "NaN or infinite"));
    assert_non_null(strstr(err.msg, "layers.1."));
    assert_false(test_exists(path));
    free(values);
    mb_calibration_free(&calibration);
    mb_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instruction_sets_threads_and_memory_do_not_show),
        cmocka_unit_test(all_kernels_give_the_bits_of_the_scalar_one),
        cmocka_unit_test(moments_are_those_of_an_independent_computation),
        cmocka_unit_test(every_matrix_has_an_input),
        cmocka_unit_test(a_kill_loses_no_more_than_the_layer_at_hand),
        cmocka_unit_test(damaged_work_begins_anew),
        cmocka_unit_test(damage_is_found),
        cmocka_unit_test(moments_of_another_model_are_refused),
        cmocka_unit_test(moments_that_are_not_finite_are_refused),
        cmocka_unit_test(infinite_activations_are_named),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
