/*
 * test_report.c - reports: JSON, CSV and page have what is in the file, and no text of it becomes markup.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <jansson.h>
#include <math.h>
#include <moebius/report.h>
#include <moebius/results.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WILD "a,\"b\"\n</script><b>\xff\xc3\xa4"

static void put(struct mb_results *results, int64_t id, const char *error, double kl)
{
    struct mb_error err;
    struct mb_result_value values[] = {{"kl", kl, 0.1, INFINITY, 3}, {"pia", 1.0 / 3, NAN, NAN, 3}};
    struct mb_result_load load = {1, 2, 40 + (uint64_t)id, 0.25};
    struct mb_result_flow flow = {.layer = 1, .expert = 2, .is_changed = true, .n_left = 3, .n_got = 0.5};
    struct mb_result_answer answer = {true, true, 0, 7, -1};
    struct mb_result_run run = {.id = id,
                                .label = WILD,
                                .target = id == 0 ? "" : "layer=1 experts=2",
                                .selected = id == 0 ? "" : "1.2",
                                .projection = "all",
                                .error = error,
                                .values = values,
                                .n_values = 2,
                                .answers = &answer,
                                .n_answers = 1,
                                .loads = &load,
                                .n_loads = 1,
                                .flows = &flow,
                                .n_flows = 1,
                                .begun = "2026-01-01T00:00:00Z"};
    if (mb_results_put_run(results, &run, &err) != MB_OK)
        fail_msg("%s", err.msg);
}

static int begin(void **state)
{
    static const struct mb_manifest_row manifest[] = {{"model", "m", true, "the model"}};
    struct mb_results *results;
    int status = test_folder_begin(state);
    if (status != 0 || mb_results_open(test_path("r.db"), manifest, 1, false, &results, NULL) != MB_OK)
        return -1;
    put(results, 0, "none", 0);
    put(results, 1, "zero", 0.1);
    mb_results_close(results);
    return 0;
}

static struct mb_report *open_report(void)
{
    struct mb_report *report;
    struct mb_error err;
    if (mb_report_open(test_path("r.db"), &report, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return report;
}

static json_t *rows_of(const json_t *root, const char *table)
{
    json_t *rows = json_object_get(json_object_get(json_object_get(root, "tables"), table), "rows");
    assert_true(json_is_array(rows));
    return rows;
}

static json_t *cell(const json_t *root, const char *table, size_t row, size_t column)
{
    return json_array_get(json_array_get(rows_of(root, table), row), column);
}

static void json_has_all_rows_with_their_values(void **state)
{
    char *text;
    size_t nbytes;
    (void)state;
    struct mb_report *report = open_report();
    assert_int_equal(mb_report_json(report, &text, &nbytes, NULL), MB_OK);
    assert_int_equal(strlen(text), nbytes);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    assert_int_equal(json_array_size(rows_of(root, "run")), 2);
    assert_int_equal(json_array_size(rows_of(root, "answer")), 2);
    assert_int_equal(json_array_size(rows_of(root, "load")), 2);
    assert_int_equal(json_array_size(rows_of(root, "reply")), 0);
    assert_true(json_real_value(cell(root, "flow", 1, 6)) == 0.5);
    /* Ordered by run and name: run, name, value, low, high, n. */
    assert_string_equal(json_string_value(cell(root, "value", 2, 1)), "kl");
    assert_true(json_real_value(cell(root, "value", 2, 2)) == 0.1);
    assert_true(json_is_null(cell(root, "value", 2, 4)));
    assert_true(json_real_value(cell(root, "value", 3, 2)) == 1.0 / 3);
    assert_string_equal(json_string_value(cell(root, "run", 0, 1)),
                        "a,\"b\"\n</script><b>\xef\xbf\xbd\xc3\xa4");
    json_decref(root);
    free(text);
    mb_report_close(report);
}

/* The table that earlier programs did not write is empty. */
static void a_file_without_a_later_table_is_read(void **state)
{
    char *text;
    size_t nbytes;
    sqlite3 *db;
    (void)state;
    assert_int_equal(sqlite3_open(test_path("r.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "ALTER TABLE flow RENAME TO other", NULL, NULL, NULL), SQLITE_OK);
    struct mb_report *report = open_report();
    assert_int_equal(mb_report_json(report, &text, &nbytes, NULL), MB_OK);
    json_t *root = json_loads(text, 0, NULL);
    assert_int_equal(json_array_size(rows_of(root, "flow")), 0);
    json_decref(root);
    free(text);
    mb_report_close(report);
    assert_int_equal(sqlite3_exec(db, "ALTER TABLE other RENAME TO flow", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void a_page_contains_its_data_once_and_as_data(void **state)
{
    char *text;
    size_t nbytes;
    (void)state;
    struct mb_report *report = open_report();
    assert_int_equal(mb_report_page(report, &text, &nbytes, NULL), MB_OK);
    assert_null(strstr(text, "</script><b>"));
    assert_null(strstr(text, "http://www.w3.org/1999"));
    assert_null(strstr(text, " src="));
    char *data = strstr(text, "id=\"data\">"), *end = data != NULL ? strstr(data, "</script>") : NULL;
    assert_non_null(end);
    data += strlen("id=\"data\">");
    json_t *root = json_loadb(data, (size_t)(end - data), 0, NULL);
    assert_non_null(root);
    assert_int_equal(json_array_size(rows_of(root, "run")), 2);
    assert_int_equal(json_array_size(rows_of(root, "load")), 1); /* of the clean run */
    assert_true(json_integer_value(cell(root, "load", 0, 3)) == 40);
    assert_null(json_object_get(json_object_get(root, "tables"), "answer"));
    json_decref(root);
    free(text);
    mb_report_close(report);
}

static void csv_quotes_what_has_to_be(void **state)
{
    char *text;
    size_t nbytes, i = 0;
    (void)state;
    struct mb_report *report = open_report();
    while (strcmp(mb_report_table_name(i), "run") != 0)
        i++;
    assert_int_equal(mb_report_csv(report, i, &text, &nbytes, NULL), MB_OK);
    assert_true(strncmp(text, "id,label,target,selected,projection,error,bound,seed,", 53) == 0);
    assert_non_null(strstr(text, "\n0,\"a,\"\"b\"\"\n</script><b>\xef\xbf\xbd\xc3\xa4\",,,all,none,,0,"));
    free(text);
    assert_int_equal(mb_report_csv(report, mb_report_n_tables(), &text, &nbytes, NULL), MB_USAGE);
    assert_null(mb_report_table_name(mb_report_n_tables()));
    mb_report_close(report);
}

static void what_is_no_results_file_is_refused(void **state)
{
    struct mb_report *report;
    struct mb_error err;
    (void)state;
    FILE *file = fopen(test_path("text.db"), "w");
    assert_non_null(file);
    fputs(
        "this is a text and no database, whatever its name says; it is long enough for a header of SQLite\n",
        file);
    fclose(file);
    assert_int_equal(mb_report_open(test_path("text.db"), &report, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "text.db"));
    assert_int_not_equal(mb_report_open(test_path("none.db"), &report, &err), MB_OK);
    assert_non_null(strstr(err.msg, "none.db"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_has_all_rows_with_their_values),
        cmocka_unit_test(a_file_without_a_later_table_is_read),
        cmocka_unit_test(a_page_contains_its_data_once_and_as_data),
        cmocka_unit_test(csv_quotes_what_has_to_be),
        cmocka_unit_test(what_is_no_results_file_is_refused),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
