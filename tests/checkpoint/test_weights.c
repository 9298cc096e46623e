/*
 * test_weights.c - weights in memory, from plain and coded folders: looked up by their original names, with
 * the shapes that were asked for.
 */
#include "base/bytes.h"
#include "cmocka_all.h"
#include "folder.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char NORM[] = "model.norm.weight", UP[] = "model.layers.1.mlp.experts.1.up_proj.weight",
                  EMBEDDING[] = "model.embed_tokens.weight";

struct loaded {
    struct mb_checkpoint *ckpt;
    struct mb_weights *weights;
};

static void load(struct loaded *loaded, const char *path)
{
    struct mb_error err;
    if (mb_checkpoint_open(path, &loaded->ckpt, &err) != MB_OK ||
        mb_weights_load(loaded->ckpt, 2, &loaded->weights, &err) != MB_OK)
        fail_msg("%s", err.msg);
}

static void unload(struct loaded *loaded)
{
    mb_weights_free(loaded->weights);
    mb_checkpoint_close(loaded->ckpt);
}

static int begin(void **state)
{
    struct mb_compress_options options = {.size = sizeof options};
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
    struct loaded loaded;
    struct mb_matrix matrix;
    struct mb_error err;
    load(&loaded, test_path(folder));
    const struct mb_weights *w = loaded.weights;
    assert_int_equal(mb_weights_matrix(w, UP, 40, 48, &matrix, &err), MB_OK);
    assert_int_equal(matrix.n_rows, 40);
    assert_int_equal(matrix.n_cols, 48);
    assert_int_equal(mb_weights_matrix(w, UP, 48, 40, &matrix, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, UP));
    assert_non_null(strstr(err.msg, "[40, 48]"));
    assert_non_null(strstr(err.msg, "[48, 40]"));
    assert_int_equal(mb_weights_matrix(w, "model.layers.9.q_proj.weight", 1, 1, &matrix, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "model.layers.9.q_proj.weight"));
    assert_int_equal(mb_weights_matrix(w, NORM, 48, 1, &matrix, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, NORM));
    assert_true(mb_weights_has(w, UP));
    assert_true(mb_weights_has(w, NORM));
    assert_false(mb_weights_has(w, "model.layers.1.mlp.experts.1.moebius"));
    assert_false(mb_weights_has(w, ""));
    unload(&loaded);
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
    struct loaded plain, coded;
    float a[48], b[48];
    struct mb_error err;
    load(&plain, test_path("plain"));
    load(&coded, test_path("coded"));
    assert_int_equal(mb_weights_vector(plain.weights, NORM, 48, a, &err), MB_OK);
    assert_int_equal(mb_weights_vector(coded.weights, NORM, 48, b, &err), MB_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_true(isfinite(a[0]) && a[0] != a[1]);
    assert_int_equal(mb_weights_vector(plain.weights, NORM, 47, a, &err), MB_BAD_DATA);
    assert_int_equal(mb_weights_vector(coded.weights, NORM, 47, a, &err), MB_BAD_DATA);
    assert_int_equal(mb_weights_vector(coded.weights, "none", 48, a, &err), MB_BAD_DATA);
    assert_int_equal(mb_weights_vector(coded.weights, UP, 40 * 48, a, &err), MB_BAD_DATA);
    unload(&plain);
    unload(&coded);
}

/* The coded expert's decoded weights against the plain ones: within the stated bound, and not the same. */
static void a_coded_matrix_is_near_the_plain_one(void **state)
{
    (void)state;
    struct loaded plain, coded;
    struct mb_matrix a, b;
    struct mb_error err;
    float rows[40 * 48];
    size_t n_different = 0;
    load(&plain, test_path("plain"));
    load(&coded, test_path("coded"));
    assert_int_equal(mb_weights_matrix(plain.weights, UP, 40, 48, &a, &err), MB_OK);
    assert_int_equal(mb_weights_matrix(coded.weights, UP, 40, 48, &b, &err), MB_OK);
    assert_false(a.is_coded);
    assert_true(b.is_coded);
    assert_true(b.coded.eps > 0);
    mb_kernels()->decode_rows(&b.coded, 0, 40, rows);
    for (size_t i = 0; i < 40 * 48; i++) {
        float w = mb_float_of_bf16(mb_load_u16((const uint8_t *)a.dense + 2 * i));
        assert_true(fabs((double)w - (double)rows[i]) <= b.coded.eps);
        n_different += w != rows[i];
    }
    assert_true(n_different > 1000);
    unload(&plain);
    unload(&coded);
}

static void exact_matrices_stay_dense(void **state)
{
    (void)state;
    struct loaded plain, coded;
    struct mb_matrix a, b;
    struct mb_error err;
    load(&plain, test_path("plain"));
    load(&coded, test_path("coded"));
    assert_int_equal(mb_weights_matrix(plain.weights, EMBEDDING, 64, 48, &a, &err), MB_OK);
    assert_int_equal(mb_weights_matrix(coded.weights, EMBEDDING, 64, 48, &b, &err), MB_OK);
    assert_false(b.is_coded);
    assert_int_equal(b.dtype, MB_BF16);
    assert_memory_equal(a.dense, b.dense, 2 * 64 * 48);
    unload(&plain);
    unload(&coded);
}

static void memory_is_told_by_kind(void **state)
{
    (void)state;
    struct loaded plain, coded;
    load(&plain, test_path("plain"));
    load(&coded, test_path("coded"));
    struct mb_weights_memory a = mb_weights_memory(plain.weights), b = mb_weights_memory(coded.weights);
    assert_int_equal(a.blob_nbytes + a.exact_nbytes, 0);
    assert_true(a.mapped_nbytes > 0);
    assert_int_equal(b.mapped_nbytes, 0);
    assert_true(b.blob_nbytes > 0 && b.exact_nbytes > 0 && b.table_nbytes > 0);
    unload(&plain);
    unload(&coded);
}

/* F8 linear matrices, by name; other types as matrices. */
static void types_that_are_no_weights_are_refused(void **state)
{
    (void)state;
    static const char header[] =
        "{\"f8.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,3],\"data_offsets\":[0,6]},"
        "\"i8.weight\":{\"dtype\":\"I8\",\"shape\":[2,3],\"data_offsets\":[6,12]},"
        "\"cube.weight\":{\"dtype\":\"BF16\",\"shape\":[1,1,1],\"data_offsets\":[12,14]}}";
    struct loaded loaded;
    struct mb_matrix matrix;
    struct mb_error err;
    const char *folder = test_path("types");
    test_make_folder(folder);
    test_write_text(folder, "config.json", "{}");
    test_write_safetensors(folder, "model.safetensors", header, "0123456789abcd", 14);
    load(&loaded, folder);
    assert_int_equal(mb_weights_matrix(loaded.weights, "f8.weight", 2, 3, &matrix, &err), MB_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "F8_E4M3"));
    assert_int_equal(mb_weights_matrix(loaded.weights, "i8.weight", 2, 3, &matrix, &err), MB_BAD_DATA);
    assert_int_equal(mb_weights_matrix(loaded.weights, "cube.weight", 1, 1, &matrix, &err), MB_BAD_DATA);
    unload(&loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_checked),
        cmocka_unit_test(vectors_are_the_same_in_both),
        cmocka_unit_test(a_coded_matrix_is_near_the_plain_one),
        cmocka_unit_test(exact_matrices_stay_dense),
        cmocka_unit_test(memory_is_told_by_kind),
        cmocka_unit_test(types_that_are_no_weights_are_refused),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
