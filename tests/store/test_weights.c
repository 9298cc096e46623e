/*
 * test_weights.c - weights in memory, from plain and coded folders: looked up by their original names, with
 * the shapes that were asked for.
 */
#include "base/bytes.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "weights.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char NORM[] = "model.norm.weight", UP[] = "model.layers.1.mlp.experts.1.up_proj.weight",
                  Q_PROJ[] = "model.layers.0.self_attn.q_proj.weight",
                  EMBEDDING[] = "model.embed_tokens.weight";

static void load(struct test_weights *weights, const char *path)
{
    struct mb_error err;
    if (test_weights_open(path, 2, weights, &err) != MB_OK)
        fail_msg("%s", err.msg);
}

static int begin(void **state)
{
    const struct mb_tensor_bound exact = {"embed_tokens", {MB_BOUND_EXACT, 0}};
    struct mb_compress_options options = {
        .size = sizeof options, .tensor_bounds = &exact, .n_tensor_bounds = 1};
    struct mb_compress_report report;
    struct mb_error err;
    struct test_model model = test_model_small();
    if (test_folder_begin(state) != 0)
        return -1;
    test_write_model(test_path("plain"), &model);
    enum mb_status status = mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err);
    if (status != MB_OK)
        print_error("%s\n", err.msg);
    return status == MB_OK ? 0 : -1;
}

static void assert_shapes_are_checked(const char *folder)
{
    struct test_weights loaded;
    const struct mb_matrix *matrix;
    struct mb_error err;
    load(&loaded, test_path(folder));
    assert_int_equal(mb_store_matrix(loaded.store, UP, 40, 48, &matrix, &err), MB_OK);
    assert_int_equal(matrix->n_rows, 40);
    assert_int_equal(matrix->n_cols, 48);
    assert_int_equal(mb_store_matrix(loaded.store, UP, 48, 40, &matrix, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, UP));
    assert_non_null(strstr(err.msg, "[40, 48]"));
    assert_non_null(strstr(err.msg, "[48, 40]"));
    assert_int_equal(mb_store_matrix(loaded.store, "model.layers.9.q_proj.weight", 1, 1, &matrix, &err),
                     MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "model.layers.9.q_proj.weight"));
    assert_int_equal(mb_store_matrix(loaded.store, NORM, 48, 1, &matrix, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, NORM));
    assert_non_null(mb_index_find(loaded.index, UP));
    assert_non_null(mb_index_find(loaded.index, NORM));
    assert_null(mb_index_find(loaded.index, "model.layers.1.mlp.experts.1.moebius"));
    assert_null(mb_index_find(loaded.index, ""));
    test_weights_close(&loaded);
}

static void shapes_are_checked(void **state)
{
    (void)state;
    assert_shapes_are_checked("plain");
    assert_shapes_are_checked("coded");
}

static void vectors_are_the_same_in_both(void **state)
{
    (void)state;
    struct test_weights plain, coded;
    float a[48], b[48];
    struct mb_error err;
    load(&plain, test_path("plain"));
    load(&coded, test_path("coded"));
    assert_int_equal(mb_store_vector(plain.store, NORM, 48, a, &err), MB_OK);
    assert_int_equal(mb_store_vector(coded.store, NORM, 48, b, &err), MB_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_true(isfinite(a[0]) && a[0] != a[1]);
    assert_int_equal(mb_store_vector(plain.store, NORM, 47, a, &err), MB_BAD_DATA);
    assert_int_equal(mb_store_vector(coded.store, NORM, 47, a, &err), MB_BAD_DATA);
    assert_int_equal(mb_store_vector(coded.store, "none", 48, a, &err), MB_BAD_DATA);
    assert_int_equal(mb_store_vector(coded.store, UP, 40 * 48, a, &err), MB_BAD_DATA);
    test_weights_close(&plain);
    test_weights_close(&coded);
}

static bool is_among(const char *name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* Matrices, vectors and the parts of experts, in blobs or not. */
static void what_nobody_took_is_listed(void **state)
{
    (void)state;
    static const char *const folders[] = {"plain", "coded"};
    for (size_t k = 0; k < 2; k++) {
        struct test_weights loaded;
        struct mb_error err;
        const struct mb_matrix *matrix;
        const char *names[64];
        float norm[48];
        const struct mb_expert_part part = {UP, 40, 48};
        load(&loaded, test_path(folders[k]));
        size_t n = mb_store_unused(loaded.store, names, 64);
        assert_in_range(n, 10, 64);
        assert_true(is_among(UP, names, n) && is_among(NORM, names, n) && is_among(Q_PROJ, names, n));
        assert_int_equal(mb_store_vector(loaded.store, NORM, 47, norm, &err), MB_BAD_DATA);
        assert_int_equal(mb_store_unused(loaded.store, NULL, 0), n);
        assert_int_equal(mb_store_vector(loaded.store, NORM, 48, norm, &err), MB_OK);
        assert_int_equal(mb_store_matrix(loaded.store, Q_PROJ, 48, 48, &matrix, &err), MB_OK);
        assert_int_equal(mb_store_bind_expert(loaded.store, 1, 1, &part, 1, &err), MB_OK);
        assert_int_equal(mb_store_unused(loaded.store, names, 64), n - 3);
        assert_false(is_among(UP, names, n - 3) || is_among(NORM, names, n - 3));
        test_weights_close(&loaded);
    }
}

/* The coded expert's decoded weights against the plain ones: within the stated bound, and not the same. */
static void a_coded_matrix_is_near_the_plain_one(void **state)
{
    (void)state;
    struct test_weights plain, coded;
    const struct mb_matrix *a, *b;
    struct mb_error err;
    float rows[40 * 48];
    size_t n_different = 0;
    load(&plain, test_path("plain"));
    load(&coded, test_path("coded"));
    assert_int_equal(mb_store_matrix(plain.store, UP, 40, 48, &a, &err), MB_OK);
    assert_int_equal(mb_store_matrix(coded.store, UP, 40, 48, &b, &err), MB_OK);
    assert_false(a->is_coded);
    assert_true(b->is_coded);
    assert_true(b->coded.eps > 0);
    mb_kernels()->decode_rows(&b->coded, 0, 40, rows);
    for (size_t i = 0; i < 40 * 48; i++) {
        float w = mb_float_of_bf16(mb_load_u16((const uint8_t *)a->dense + 2 * i));
        assert_true(fabs((double)w - (double)rows[i]) <= b->coded.eps);
        n_different += w != rows[i];
    }
    assert_true(n_different > 1000);
    test_weights_close(&plain);
    test_weights_close(&coded);
}

static void exact_matrices_stay_dense(void **state)
{
    (void)state;
    struct test_weights plain, coded;
    const struct mb_matrix *a, *b;
    struct mb_error err;
    load(&plain, test_path("plain"));
    load(&coded, test_path("coded"));
    assert_int_equal(mb_store_matrix(plain.store, EMBEDDING, 64, 48, &a, &err), MB_OK);
    assert_int_equal(mb_store_matrix(coded.store, EMBEDDING, 64, 48, &b, &err), MB_OK);
    assert_false(b->is_coded);
    assert_int_equal(b->dtype, MB_BF16);
    assert_memory_equal(a->dense, b->dense, 2 * 64 * 48);
    test_weights_close(&plain);
    test_weights_close(&coded);
}

static void memory_is_told_by_kind(void **state)
{
    (void)state;
    struct test_weights plain, coded;
    load(&plain, test_path("plain"));
    load(&coded, test_path("coded"));
    struct mb_store_memory a = mb_store_memory(plain.store), b = mb_store_memory(coded.store);
    assert_int_equal(a.blob_nbytes + a.exact_nbytes, 0);
    assert_true(a.mapped_nbytes > 0);
    assert_int_equal(b.mapped_nbytes, 0);
    assert_true(b.blob_nbytes > 0 && b.exact_nbytes > 0 && b.table_nbytes > 0);
    test_weights_close(&plain);
    test_weights_close(&coded);
}

/* F8 linear matrices, by name; other types as matrices. */
static void types_that_are_no_weights_are_refused(void **state)
{
    (void)state;
    static const char header[] =
        "{\"f8.w\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,3],\"data_offsets\":[0,6]},"
        "\"i8.weight\":{\"dtype\":\"I8\",\"shape\":[2,3],\"data_offsets\":[6,12]},"
        "\"cube.weight\":{\"dtype\":\"BF16\",\"shape\":[1,1,1],\"data_offsets\":[12,14]}}";
    struct test_weights loaded;
    const struct mb_matrix *matrix;
    struct mb_error err;
    const char *folder = test_path("types");
    test_make_folder(folder);
    test_write_text(folder, "config.json", "{}");
    test_write_safetensors(folder, "model.safetensors", header, "0123456789abcd", 14);
    load(&loaded, folder);
    assert_int_equal(mb_store_matrix(loaded.store, "f8.w", 2, 3, &matrix, &err), MB_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "F8_E4M3"));
    assert_int_equal(mb_store_matrix(loaded.store, "i8.weight", 2, 3, &matrix, &err), MB_BAD_DATA);
    assert_int_equal(mb_store_matrix(loaded.store, "cube.weight", 1, 1, &matrix, &err), MB_BAD_DATA);
    test_weights_close(&loaded);
}

/* ---------------------------------------------------------------- forms in memory */

/* Which forms there are depends on the instruction set: CI runs this with each. */
static void every_memory_form_has_the_same_weights(void **state)
{
    (void)state;
    enum { N_WEIGHTS = 40 * 48 };
    float expected[N_WEIGHTS], weights[N_WEIGHTS];
    uint64_t stored_nbytes = 0;
    for (int form = MB_MEMORY_FORM_STORED; form <= MB_MEMORY_FORM_FAST; form++) {
        struct mb_store_options options = {
            .size = sizeof options, .n_threads = 2, .memory_form = (enum mb_memory_form)form};
        struct test_weights loaded;
        const struct mb_matrix *matrix;
        struct mb_error err;
        bool is_stored = form == MB_MEMORY_FORM_STORED || mb_kernels()->resident == NULL;
        assert_int_equal(test_weights_open_with(test_path("coded"), &options, &loaded, &err), MB_OK);
        assert_int_equal(mb_store_matrix(loaded.store, UP, 40, 48, &matrix, &err), MB_OK);
        assert_true((matrix->coded.form == MB_FORM_PATCHED) == is_stored);
        mb_kernels()->decode_rows(&matrix->coded, 0, 40, form == MB_MEMORY_FORM_STORED ? expected : weights);
        uint64_t nbytes = mb_store_product_nbytes(loaded.store, UP);
        if (form == MB_MEMORY_FORM_STORED)
            stored_nbytes = nbytes;
        else
            assert_memory_equal(weights, expected, sizeof expected);
        assert_true((nbytes == stored_nbytes) == is_stored && nbytes > 0);
        assert_true(mb_store_memory(loaded.store).blob_nbytes > 0);
        assert_int_equal(mb_store_product_nbytes(loaded.store, "no.such.weight"), 0);
        test_weights_close(&loaded);
    }
}

/* ---------------------------------------------------------------- threads */

enum { N_THREADS = 4, N_TIMES = 1000 };

static void *acquire_often(void *arg)
{
    struct mb_store *store = arg;
    static const uint32_t experts[] = {0, 1};
    struct mb_expert_view out[2];
    for (int i = 0; i < N_TIMES; i++) {
        mb_store_prefetch(store, 1, experts, 2, MB_HINT_NEAR);
        if (mb_store_acquire(store, 1, experts, 2, out, NULL) != MB_OK || out[1].matrices[0]->n_rows != 40)
            return store;
        mb_store_release(store, 1, experts, 2);
    }
    return NULL;
}

static void threads_acquire_at_once(void **state)
{
    (void)state;
    static const char *const names[] = {"model.layers.1.mlp.experts.0.up_proj.weight", UP};
    struct test_weights w;
    struct mb_error err;
    pthread_t threads[N_THREADS];
    load(&w, test_path("coded"));
    for (size_t e = 0; e < 2; e++)
        assert_int_equal(
            mb_store_bind_expert(w.store, 1, e, &(struct mb_expert_part){names[e], 40, 48}, 1, &err), MB_OK);
    for (size_t i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, acquire_often, w.store), 0);
    for (size_t i = 0; i < N_THREADS; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    /* All are released: a matrix may be changed. */
    assert_int_equal(mb_store_overlay(w.store, UP, NULL, &err), MB_OK);
    test_weights_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_checked),
        cmocka_unit_test(vectors_are_the_same_in_both),
        cmocka_unit_test(what_nobody_took_is_listed),
        cmocka_unit_test(a_coded_matrix_is_near_the_plain_one),
        cmocka_unit_test(exact_matrices_stay_dense),
        cmocka_unit_test(memory_is_told_by_kind),
        cmocka_unit_test(types_that_are_no_weights_are_refused),
        cmocka_unit_test(every_memory_form_has_the_same_weights),
        cmocka_unit_test(threads_acquire_at_once),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
