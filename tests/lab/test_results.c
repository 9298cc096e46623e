/*
 * test_results.c - results files: whole runs or none, refusals, one writer.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <math.h>
#include <moebius/results.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct mb_manifest_row manifest[] = {
    {"version", "1", true, "the version of Moebius"},
    {"model_hash", "abc", true, "the model"},
    {"command", "moebius sweep", false, NULL},
};
enum { N_MANIFEST = sizeof manifest / sizeof *manifest };

static enum mb_status open_file(const char *name, bool resume, struct mb_results **results,
                                struct mb_error *err)
{
    return mb_results_open(test_path(name), manifest, N_MANIFEST, resume, results, err);
}

static struct mb_results *open_well(const char *name, bool resume)
{
    struct mb_results *results;
    struct mb_error err;
    if (open_file(name, resume, &results, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return results;
}

static void put_run(struct mb_results *results, int64_t id, enum mb_status expected)
{
    struct mb_error err;
    struct mb_result_value values[] = {{"pia", 0.5, 0.25, 0.75, 4}, {"kl", NAN, NAN, NAN, 0}};
    struct mb_result_answer answers[] = {{true, true, 0, 10, -5}, {false, true, 3, 256, 1LL << 62}};
    struct mb_result_routing routing = {1, 100, 1, 0.5, 0.25, 2, NAN, NAN};
    struct mb_result_load load = {1, 3, 70, 0.25};
    struct mb_result_percentile percentile = {"kl", 99.9, 1e-3};
    struct mb_result_run run = {.id = id,
                                .label = "T4",
                                .target = "layer=1 experts=top1",
                                .selected = "1.3",
                                .projection = "all",
                                .error = "normal",
                                .bound = "80%",
                                .seed = UINT64_MAX,
                                .n_matrices = 3,
                                .n_weights = 98304,
                                .has_task = true,
                                .values = values,
                                .n_values = 2,
                                .answers = answers,
                                .n_answers = 2,
                                .routing = &routing,
                                .n_routing = 1,
                                .loads = &load,
                                .n_loads = 1,
                                .percentiles = &percentile,
                                .n_percentiles = 1,
                                .begun = "2026-01-01T00:00:00Z",
                                .seconds = 1.5,
                                .n_threads = 2};
    enum mb_status status = mb_results_put_run(results, &run, &err);
    if (status != expected)
        fail_msg("status %d: %s", (int)status, err.msg);
}

static long long number(struct mb_results *results, const char *sql)
{
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_prepare_v2(mb_results_sqlite(results), sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    long long value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

static void a_run_is_there_with_all_that_belongs_to_it(void **state)
{
    struct mb_result_answer *answers;
    struct mb_result_value value;
    size_t n;
    bool has;
    (void)state;
    struct mb_results *results = open_well("whole.db", false);
    put_run(results, 7, MB_OK);
    mb_results_close(results);
    assert_int_equal(mb_results_read(test_path("whole.db"), &results, NULL), MB_OK);
    assert_int_equal(mb_results_has_run(results, 7, &has, NULL), MB_OK);
    assert_true(has);
    assert_int_equal(mb_results_has_run(results, 6, &has, NULL), MB_OK);
    assert_false(has);
    assert_int_equal(mb_results_get_answers(results, 7, &answers, &n, NULL), MB_OK);
    assert_int_equal(n, 2);
    assert_true(answers[0].ica && !answers[1].ica && answers[1].dead == 3 && answers[1].n_tokens == 256);
    assert_true(answers[0].reply_hash == -5 && answers[1].reply_hash == 1LL << 62);
    free(answers);
    assert_int_equal(mb_results_get_value(results, 7, "pia", &value, NULL), MB_OK);
    assert_true(value.value == 0.5 && value.low == 0.25 && value.high == 0.75 && value.n == 4);
    assert_int_equal(mb_results_get_value(results, 7, "kl", &value, NULL), MB_OK);
    assert_true(isnan(value.value));
    assert_int_equal(mb_results_get_value(results, 7, "no", &value, NULL), MB_OK);
    assert_true(isnan(value.value));
    assert_int_equal(number(results, "SELECT count(*) FROM routing WHERE changed IS NULL AND run = 7"), 1);
    assert_int_equal(number(results, "SELECT n FROM load WHERE layer = 1 AND expert = 3"), 70);
    assert_int_equal(number(results, "SELECT count(*) FROM percentile WHERE percent = 99.9"), 1);
    assert_int_equal(number(results, "SELECT count(*) FROM result WHERE pia_low = 0.25 AND kl IS NULL"), 1);
    assert_int_equal(number(results, "SELECT count(*) FROM timing"), 1);
    mb_results_close(results);
}

static void assert_refused(const char *name, bool resume, enum mb_status status, const char *words)
{
    struct mb_results *results;
    struct mb_error err = {0};
    assert_int_equal(open_file(name, resume, &results, &err), status);
    if (strstr(err.msg, words) == NULL)
        fail_msg("'%s' does not say '%s'", err.msg, words);
}

static void what_is_of_something_else_is_refused(void **state)
{
    (void)state;
    mb_results_close(open_well("mine.db", false));
    assert_refused("mine.db", false, MB_USAGE, "--resume");
    mb_results_close(open_well("mine.db", true));
    manifest[1].value = "other";
    assert_refused("mine.db", true, MB_BAD_DATA,
                   "the model is another one (model_hash: abc there, other here)");
    manifest[1].value = "abc";
    manifest[0].value = "2";
    assert_refused("mine.db", true, MB_BAD_DATA, "the version of Moebius");
    manifest[0].value = "1";
    manifest[2].value = "another command";
    mb_results_close(open_well("mine.db", true));
    test_write_text(test_path("."), "text.db",
                    "no database, but long enough to be looked at as one. ..........."
                    "....................................................");
    assert_refused("text.db", true, MB_BAD_DATA, "no results file");
    sqlite3 *db;
    assert_int_equal(sqlite3_open(test_path("foreign.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE t(x)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_refused("foreign.db", true, MB_BAD_DATA, "not the results of a sweep");
    assert_refused("no/folder.db", false, MB_BAD_DATA, "No such file");
    test_write(test_path("empty.db"), "", 0);
    mb_results_close(open_well("empty.db", true));
    struct mb_results *results;
    assert_int_equal(mb_results_read(test_path("text.db"), &results, NULL), MB_BAD_DATA);
    assert_int_equal(mb_results_read(test_path("nowhere.db"), &results, NULL), MB_BAD_DATA);
    assert_false(test_exists(test_path("nowhere.db")));
}

static void add_trigger(const char *name, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(test_path(name), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* A file may be anybody's: what its triggers would do to rows is not done. */
static void triggers_of_a_file_do_nothing(void **state)
{
    (void)state;
    struct mb_results *results = open_well("trigger.db", false);
    put_run(results, 1, MB_OK);
    mb_results_close(results);
    add_trigger("trigger.db", "CREATE TRIGGER t AFTER INSERT ON value BEGIN DELETE FROM answer; END");
    results = open_well("trigger.db", true);
    put_run(results, 2, MB_OK);
    assert_int_equal(number(results, "SELECT count(*) FROM answer"), 4);
    mb_results_close(results);
}

static void read_all(struct mb_results *results)
{
    for (int64_t run = 0; run < 5; run++) {
        struct mb_result_answer *answers;
        char **replies;
        size_t n;
        if (mb_results_get_answers(results, run, &answers, &n, NULL) == MB_OK)
            free(answers);
        if (mb_results_get_replies(results, run, &replies, &n, NULL) == MB_OK)
            free(replies);
    }
}

/* Bytes all over the file, one after another: it is refused, or it is sound and goes on. */
static void a_damaged_file_is_refused_or_read(void **state)
{
    size_t nbytes, n_refused = 0, n_said = 0;
    (void)state;
    struct mb_results *results = open_well("sound.db", false);
    for (int64_t run = 1; run < 5; run++)
        put_run(results, run, MB_OK);
    mb_results_close(results);
    uint8_t *bytes = test_read(test_path("sound.db"), &nbytes);
    for (size_t at = 0; at < nbytes; at += at < 100 ? 7 : 409) {
        struct mb_error err = {.msg = ""};
        bytes[at] ^= 0xff;
        test_write(test_path("damaged.db"), bytes, nbytes);
        bytes[at] ^= 0xff;
        if (mb_results_read(test_path("damaged.db"), &results, NULL) == MB_OK) {
            read_all(results);
            mb_results_close(results);
        }
        enum mb_status status = open_file("damaged.db", true, &results, &err);
        n_refused += status != MB_OK;
        n_said += strstr(err.msg, "damaged") != NULL;
        if (status == MB_OK) {
            read_all(results);
            mb_results_close(results);
        } else if (status != MB_BAD_DATA && status != MB_UNSUPPORTED && status != MB_IO) {
            fail_msg("byte %zu: %s", at, err.msg);
        }
    }
    free(bytes);
    assert_true(n_refused > 10 && n_said > 5);
    mb_results_close(open_well("sound.db", true));
}

static void one_writes_and_others_read(void **state)
{
    struct mb_results *reader;
    (void)state;
    struct mb_results *writer = open_well("busy.db", false);
    assert_refused("busy.db", true, MB_IO, "another sweep is writing");
    put_run(writer, 1, MB_OK);
    assert_int_equal(mb_results_read(test_path("busy.db"), &reader, NULL), MB_OK);
    assert_int_equal(number(reader, "SELECT count(*) FROM run"), 1);
    put_run(writer, 2, MB_OK);
    mb_results_close(reader);
    assert_refused("busy.db", true, MB_IO, "another sweep is writing");
    mb_results_close(writer);
    mb_results_close(open_well("busy.db", true));
}

/* A run that is there already breaks its key in the first table: nothing of it may stay. */
static void a_failed_run_leaves_nothing(void **state)
{
    (void)state;
    struct mb_results *results = open_well("failed.db", false);
    put_run(results, 1, MB_OK);
    assert_int_equal(
        sqlite3_exec(mb_results_sqlite(results), "DELETE FROM run; DELETE FROM value", NULL, NULL, NULL),
        SQLITE_OK);
    put_run(results, 1, MB_IO); /* its answers are there */
    assert_int_equal(number(results, "SELECT count(*) FROM run"), 0);
    assert_int_equal(number(results, "SELECT count(*) FROM value"), 0);
    put_run(results, 2, MB_OK);
    mb_results_close(results);
}

/* SQLite's own limit of pages takes the place of a disk's end. */
static void a_full_disk_keeps_what_is_finished(void **state)
{
    (void)state;
    struct mb_results *results = open_well("full.db", false);
    put_run(results, 1, MB_OK);
    assert_int_equal(sqlite3_exec(mb_results_sqlite(results), "PRAGMA max_page_count = 1", NULL, NULL, NULL),
                     SQLITE_OK); /* as many as there are */
    struct mb_result_answer *many = calloc(100000, sizeof *many);
    struct mb_result_run run = {.id = 2, .label = "", .error = "zero", .answers = many, .n_answers = 100000};
    struct mb_error err;
    assert_int_equal(mb_results_put_run(results, &run, &err), MB_NO_SPACE);
    assert_non_null(strstr(err.msg, "full.db: the disk is full"));
    free(many);
    assert_int_equal(number(results, "SELECT count(*) FROM run"), 1);
    assert_int_equal(number(results, "SELECT count(*) FROM answer"), 2);
    mb_results_close(results);
    results = open_well("full.db", true);
    put_run(results, 2, MB_OK);
    mb_results_close(results);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_is_there_with_all_that_belongs_to_it),
        cmocka_unit_test(what_is_of_something_else_is_refused),
        cmocka_unit_test(triggers_of_a_file_do_nothing),
        cmocka_unit_test(a_damaged_file_is_refused_or_read),
        cmocka_unit_test(one_writes_and_others_read),
        cmocka_unit_test(a_failed_run_leaves_nothing),
        cmocka_unit_test(a_full_disk_keeps_what_is_finished),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
