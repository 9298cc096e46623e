/*
 * test_bench_codecs.c - "bench codecs" as a user calls it. Codecs of others need not be installed.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OWN "ours,cuszp-fixed,cuszp-outlier,bf16-exponents,rtn4-g32,nf4"

static int begin(void **state)
{
    struct test_model model = test_model_small();
    model.dtype = MB_BF16;
    if (test_folder_begin(state) != 0)
        return -1;
    test_write_model(test_path("plain"), &model);
    return run("compress plain coded")->exit_status;
}

static double number(const json_t *row, const char *name)
{
    const json_t *value = json_object_get(row, name);
    if (!json_is_number(value))
        fail_msg("%s is no number", name);
    return json_number_value(value);
}

static void every_codec_gets_a_row_at_every_bound(void **state)
{
    (void)state;
    json_t *json =
        run_json("bench codecs plain --codec " OWN " --bounds 5%%,50%%,abs:0.01 -r 1 -t 2 -o json");
    const json_t *rows = json_object_get(json, "rows");
    assert_int_equal(json_array_size(rows), 3 * 3 + 3);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const char *takes = json_string_value(json_object_get(row, "takes"));
        const char *codec = json_string_value(json_object_get(row, "codec"));
        assert_true(number(row, "bits_per_weight") > 0);
        assert_true(number(row, "encode_weights_per_s") > 0 && number(row, "decode_weights_per_s") > 0);
        assert_true(number(row, "encode_weights_per_s_all") > 0 &&
                    number(row, "decode_weights_per_s_all") > 0);
        if (strcmp(takes, "bound") == 0)
            assert_true(number(row, "worst_over_bound") < 1.0001);
        else
            assert_true(json_is_null(json_object_get(row, "worst_over_bound")));
        if (strcmp(takes, "nothing") == 0)
            assert_true(number(row, "worst_over_mean_abs") == 0);
        if (strcmp(codec, "ours") == 0) {
            assert_true(json_is_true(json_object_get(row, "is_kept")));
            assert_true(number(row, "product_weights_per_s") > 0);
        }
    }
    json_decref(json);
}

/* What is measured of sizes and errors is the same at every run and thread count; rates are not. */
static void sizes_and_errors_repeat(void **state)
{
    (void)state;
    static const char *const names[] = {"bits_per_weight", "worst_over_mean_abs", "rms_over_mean_abs"};
    json_t *one = run_json("bench codecs plain --codec " OWN " --bounds 30%% -r 1 -t 1 -o json");
    json_t *three = run_json("bench codecs plain --codec " OWN " --bounds 30%% -r 1 -t 3 -o json");
    const json_t *a = json_object_get(one, "rows"), *b = json_object_get(three, "rows");
    for (size_t i = 0; i < json_array_size(a); i++)
        for (size_t k = 0; k < 3; k++)
            assert_true(number(json_array_get(a, i), names[k]) == number(json_array_get(b, i), names[k]));
    json_decref(one);
    json_decref(three);
}

static void tables_csv_and_a_chart_are_written(void **state)
{
    (void)state;
    const char *table = run_well("bench codecs plain --codec " OWN
                                 " --bounds 30%%,100%% -r 1 --limit 2 --layers 0-1 --chart c.svg");
    assert_non_null(strstr(table, "| cuszp-fixed "));
    assert_non_null(strstr(table, "2 of "));
    size_t nbytes;
    char *chart = (char *)test_read(test_path("c.svg"), &nbytes);
    assert_true(nbytes > 1000 && strncmp(chart, "<svg ", 5) == 0);
    assert_int_equal(strncmp(chart + nbytes - 7, "</svg>\n", 7), 0);
    free(chart);
    const char *csv = run_well("bench codecs plain --codec ours,rtn2 --bounds 30%% -r 1 -o csv");
    assert_int_equal(strncmp(csv, "codec,takes,bound,", 18), 0);
    assert_non_null(strstr(csv, "\nours,bound,30%,"));
    assert_non_null(strstr(csv, "\nrtn2,bits,,"));
}

static void libraries_that_are_not_there_are_named(void **state)
{
    (void)state;
    const struct ran *ran =
        run_after("MOEBIUS_SZ3=/nowhere.so", "bench codecs plain --codec sz3 --bounds 30%% -r 1");
    assert_fails(ran, 3, "/nowhere.so");
    ran = run_after("MOEBIUS_SZ3=/nowhere.so", "bench codecs plain --codec 'ours,sz3*' --bounds 30%% -r 1");
    assert_int_equal(ran->exit_status, 0);
    assert_non_null(strstr(ran->out, "not here: sz3, sz3-interpolation"));
    /* a library that is no SZ3 */
    ran = run_after("MOEBIUS_SZ3=libm.so.6", "bench codecs plain --codec sz3 --bounds 30%% -r 1");
    assert_fails(ran, 3, "no SZ3 that is known");
}

static void wrong_calls_are_refused(void **state)
{
    (void)state;
    assert_fails(run("bench codecs plain --codec sz4"), 2, "no codec 'sz4'");
    assert_fails(run("bench codecs plain --codec 'zz*'"), 2, "no codec 'zz*'");
    assert_fails(run("bench codecs plain --bounds 30"), 2, "'30'");
    assert_fails(run("bench codecs plain --bounds 0%%"), 2, "0%");
    assert_fails(run("bench codecs plain --codec ,"), 2, "no codec ''");
    assert_fails(run("bench codecs plain --layers one"), 2, "FROM-TO");
    assert_fails(run("bench codecs plain --layers 3-1"), 2, "FROM-TO");
    assert_fails(run("bench codecs plain --codec ours --layers 90"), 3, "no matrices of routed experts");
    assert_fails(run("bench codecs coded --codec ours"), 3, "coded already");
    assert_fails(run("bench codecs nothing --codec ours"), 3, "nothing");
    assert_fails(
        run("bench codecs plain --codec ours --bounds 30%% -r 1 --chart no/where.svg -o csv > /dev/null"), 3,
        "no/where.svg");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_codec_gets_a_row_at_every_bound),
        cmocka_unit_test(sizes_and_errors_repeat),
        cmocka_unit_test(tables_csv_and_a_chart_are_written),
        cmocka_unit_test(libraries_that_are_not_there_are_named),
        cmocka_unit_test(wrong_calls_are_refused),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
