/*
 * test_sweep.c - `moebius sweep` as a user calls it: killed and resumed, on any number of threads, refused.
 */
#include "base/buf.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REFERENCE MB_REPO "/models/reference"
static const char reference[] = REFERENCE;

static const char sweep_file[] =
    "{\"sweep\": 1, \"task\": \"" REFERENCE
    "/eval.jsonl\", \"limit\": 4, \"predict\": 96, \"seeds\": 2, \"runs\": ["
    "{\"label\": \"one\", \"target\": \"layer=1 experts=top1\", \"error\": [\"normal\", \"codec\"], "
    "\"bound\": \"80%\"},"
    "{\"target\": \"layer=4 experts=all\", \"error\": [\"zero\", \"random\"]},"
    "{\"target\": \"layer=8 experts=cold1\", \"error\": \"drop\"},"
    "{\"target\": \"layer=2 experts=0 proj=down\", \"error\": \"uniform\", \"bound\": [\"30%\", \"400%\"]},"
    "{\"label\": \"planned\", \"plan\": \"plan.json\", \"dense_bound\": \"0\"}]}";
enum { N_RUNS = 1 + 2 + 1 + 1 + 2 + 1 + 4 + 1, N_KILLS = 6 };

/* Bounds of several kinds, in one expert too. */
static const char plan_file[] =
    "{\"bounds\": [\n{\"pattern\": \"[.]experts[.][0-7][.]\", \"bound\": \"120%\"},\n"
    "{\"tensor\": \"model.layers.2.mlp.experts.3.down_proj.weight\", \"bound\": \"0\"},\n"
    "{\"tensor\": \"model.layers.2.mlp.experts.3.up_proj.weight\", \"bound\": \"abs:0.02\"}]}";

static const char *const tables[] = {"run",  "value", "question",   "answer",     "reply", "routing",
                                     "load", "flow",  "percentile", "comparison", "pooled"};

static int group_begin(void **state)
{
    if (test_folder_begin(state) != 0)
        return -1;
    test_write_text(test_path("."), "sweep.json", sweep_file);
    test_write_text(test_path("."), "plan.json", plan_file);
    return 0;
}

static sqlite3 *open_db(const char *name)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(test_path(name), &db), SQLITE_OK);
    return db;
}

static int add_row(void *ctx, int n, char **cells, char **names)
{
    struct mb_bytes *text = ctx;
    (void)names;
    for (int i = 0; i < n; i++) {
        const char *cell = cells[i] == NULL ? "NULL" : cells[i];
        mb_bytes_put(text, cell, strlen(cell));
        mb_bytes_put(text, "|", 1);
    }
    mb_bytes_put(text, "\n", 1);
    return 0;
}

/* All that has to be the same in two sweeps of the same plan, as text. */
static char *rows_of(const char *name)
{
    struct mb_bytes text = {0};
    sqlite3 *db = open_db(name);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        char sql[128];
        snprintf(sql, sizeof sql, "SELECT '%s', * FROM %s ORDER BY 2, 3, 4", tables[i], tables[i]);
        if (sqlite3_exec(db, sql, add_row, &text, NULL) != SQLITE_OK)
            fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    }
    sqlite3_close(db);
    mb_bytes_put(&text, "", 1);
    return text.p;
}

static long long number(const char *name, const char *sql)
{
    sqlite3_stmt *statement;
    sqlite3 *db = open_db(name);
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    long long value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return value;
}

static void change(const char *name, const char *sql)
{
    sqlite3 *db = open_db(name);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void assert_same_rows(const char *a, const char *b)
{
    char *rows_a = rows_of(a), *rows_b = rows_of(b);
    if (strcmp(rows_a, rows_b) != 0) {
        size_t i = 0;
        while (rows_a[i] == rows_b[i])
            i++;
        fail_msg("%s: '%.80s' differs from %s: '%.80s'", a, rows_a + (i > 40 ? i - 40 : 0), b,
                 rows_b + (i > 40 ? i - 40 : 0));
    }
    free(rows_a);
    free(rows_b);
}

/* whole.db: what the other tests compare with. */
static void a_sweep_has_a_row_for_each_run(void **state)
{
    (void)state;
    run_well("sweep '" REFERENCE "' --file sweep.json -o whole.db");
    assert_false(test_exists(test_path("whole.db-wal")) || test_exists(test_path("whole.db-shm")));
    assert_int_equal(number("whole.db", "SELECT count(*) FROM run"), N_RUNS);
    assert_int_equal(number("whole.db", "SELECT count(*) FROM answer"), 4 * N_RUNS);
    assert_int_equal(number("whole.db", "SELECT count(*) FROM run WHERE error = 'none' AND id = 0"), 1);
    assert_int_equal(
        number("whole.db", "SELECT count(*) FROM value WHERE run = 0 AND name = 'kl' AND value = 0"), 1);
    assert_int_equal(
        number("whole.db", "SELECT count(*) FROM value WHERE run > 0 AND name = 'kl' AND value > 0"),
        N_RUNS - 1);
    assert_int_equal(number("whole.db", "SELECT count(*) FROM routing"), 8 * N_RUNS);
    assert_int_equal(number("whole.db", "SELECT count(*) FROM load"), 8 * 16 * N_RUNS);
    /* The target of a run is what it says: one expert of layer 1, the one that is used most. */
    assert_int_equal(number("whole.db", "SELECT count(*) FROM run WHERE label = 'one' AND n_matrices = 3"),
                     3);
    assert_int_equal(number("whole.db",
                            "SELECT (SELECT selected FROM run WHERE id = 1) = '1.' || expert FROM load"
                            " WHERE run = 0 AND layer = 1 ORDER BY n DESC, expert LIMIT 1"),
                     1);
    assert_int_equal(number("whole.db",
                            "SELECT sum(n) FROM load WHERE run = (SELECT id FROM run WHERE error = 'drop')"
                            " AND layer = 8 AND '8.' || expert = (SELECT selected FROM run WHERE error ="
                            " 'drop')"),
                     0);
    /* All tokens that left the dropped expert went to others of its layer; an error in weights moves none in
     * its own. */
    assert_int_equal(number("whole.db",
                            "SELECT (SELECT sum(n_left) FROM flow WHERE run = id AND is_changed) > 0 AND"
                            " round((SELECT sum(n_got) FROM flow WHERE run = id), 6) ="
                            " (SELECT sum(n_left) FROM flow WHERE run = id AND is_changed) AND"
                            " (SELECT count(*) FROM flow WHERE run = id) = 16 FROM run WHERE error = 'drop'"),
                     1);
    assert_int_equal(number("whole.db", "SELECT sum(n_left) + sum(n_got) FROM flow JOIN run ON run = id"
                                        " WHERE error <> 'drop' AND label <> 'planned'"),
                     0);
    assert_int_equal(number("whole.db", "SELECT count(*) FROM flow"),
                     16 * (N_RUNS - 2 + 8)); /* a plan is of all layers */
    /* Every run is compared, and every figure of it has an interval. */
    assert_int_equal(number("whole.db",
                            "SELECT count(*) FROM comparison WHERE name = 'pia' AND p_adjusted >= p AND"
                            " verdict <> ''"),
                     N_RUNS - 1);
    assert_int_equal(number("whole.db",
                            "SELECT count(*) FROM value WHERE name IN ('ica', 'pia', 'flips', 'kl', 'nll',"
                            " 'reply_tokens') AND NOT low <= value AND value <= high"),
                     0);
    assert_int_equal(number("whole.db", "SELECT count(*) FROM pooled WHERE name = 'pia'"),
                     1 + 2 + 2 + 1 + 2 + 1);
    assert_int_equal(
        number("whole.db", "SELECT count(*) FROM manifest WHERE key IN ('model_hash', 'task_hash', 'command',"
                           " 'version', 'ended')"),
        5);
}

static void rows_do_not_depend_on_threads_and_batches(void **state)
{
    (void)state;
    run_well("sweep '" REFERENCE "' --file sweep.json -o one.db -t 1 --parallel 1");
    assert_same_rows("one.db", "whole.db");
    run_well("sweep '" REFERENCE "' --file sweep.json -o three.db -t 3 --parallel 5");
    assert_same_rows("three.db", "whole.db");
    run_well("sweep '" REFERENCE "' --file sweep.json -o jobs.db -t 2 --jobs 3");
    assert_same_rows("jobs.db", "whole.db");
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int run_and_signal(const char *const *argv, double seconds, int signal_number)
{
    int status;
    pid_t child = start(argv);
    usleep((useconds_t)(seconds * 1e6));
    kill(child, signal_number);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* Killed again and again, each time at another moment of what is left. */
static void a_killed_sweep_goes_on(void **state)
{
    static const char *const argv[] = {"moebius", "sweep",     reference,  "--file", "sweep.json",
                                       "-o",      "killed.db", "--resume", NULL};
    static const double moments[N_KILLS] = {0.05, 0.3, 0.15, 0.2, 0.1, 0.25};
    int n_killed = 0;
    (void)state;
    double begun = now();
    run_well("sweep '" REFERENCE "' --file sweep.json -o timed.db");
    double whole = now() - begun;
    for (int i = 0; i < N_KILLS; i++)
        n_killed += WIFSIGNALED(run_and_signal(argv, whole * moments[i], SIGKILL));
    assert_true(n_killed >= 2);
    run_well("sweep '" REFERENCE "' --file sweep.json -o killed.db --resume");
    assert_same_rows("killed.db", "whole.db");
    /* Once more: nothing is left to do, and nothing changes. */
    json_t *report = run_json("sweep '" REFERENCE "' --file sweep.json -o killed.db --resume --format json");
    assert_int_equal(json_integer_value(json_object_get(report, "n_done")), 0);
    assert_int_equal(json_integer_value(json_object_get(report, "n_done_before")), N_RUNS);
    json_decref(report);
    assert_same_rows("killed.db", "whole.db");
}

static void an_interrupt_ends_between_two_tokens(void **state)
{
    static const char *const argv[] = {"moebius",    "sweep", reference,        "--file",
                                       "sweep.json", "-o",    "interrupted.db", NULL};
    (void)state;
    int status = run_and_signal(argv, 1.0, SIGINT);
    size_t nbytes;
    char *words = (char *)test_read(test_path("stderr.txt"), &nbytes);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 4)
        assert_non_null(strstr(words, "--resume goes on"));
    free(words);
    run_well("sweep '" REFERENCE "' --file sweep.json -o interrupted.db --resume");
    assert_same_rows("interrupted.db", "whole.db");
}

static void assert_refused(int exit_status, const char *words, const char *arguments)
{
    const struct ran *ran = run("sweep '" REFERENCE "' %s", arguments);
    if (ran->exit_status != exit_status || strstr(ran->err, words) == NULL)
        fail_msg("sweep %s: exit status %d, expected %d and '%s': %s", arguments, ran->exit_status,
                 exit_status, words, ran->err);
}

static void what_does_not_belong_together_is_refused(void **state)
{
    (void)state;
    char *before = rows_of("whole.db");
    assert_refused(2, "whole.db: exists; --resume goes on", "--file sweep.json -o whole.db");
    assert_refused(3, "the task, or what is used of it, is another one",
                   "--file sweep.json -o whole.db --resume --limit 3");
    assert_refused(3, "the task, or what is used of it, is another one",
                   "--file sweep.json -o whole.db --resume --few-shot 1 --examples '" REFERENCE
                   "/eval.jsonl'");
    assert_refused(3, "the plan of runs is another one", "--file sweep.json -o whole.db --resume --seeds 3");
    assert_refused(3, "the plan of runs is another one",
                   "--file sweep.json -o whole.db --resume --predict 95");
    assert_refused(3, "the text is another one",
                   "--file sweep.json -o whole.db --resume --kl '" REFERENCE "/README.md'");
    assert_refused(3, "No such file", "--file sweep.json -o no/folder/x.db");
    assert_refused(3, "sweep.json", "--file sweep.json -o sweep.json --resume");
    char *after = rows_of("whole.db");
    assert_string_equal(before, after);
    free(before);
    free(after);
    change("killed.db", "UPDATE manifest SET value = '0.0.9' WHERE key = 'version'");
    assert_refused(3, "the version of Moebius is another one (version: 0.0.9 there",
                   "--file sweep.json -o killed.db --resume");
    /* A model that differs in one file. */
    run_after("mkdir other && cp '" REFERENCE
              "'/* other && echo '{\"eos_token_id\": 3, \"x\": 1}' >other/generation_config.json;",
              "--version");
    const struct ran *ran = run("sweep other --file sweep.json -o whole.db --resume");
    assert_int_equal(ran->exit_status, 3);
    assert_non_null(
        strstr(ran->err, "the tokenizer, chat template or generation_config.json is another one"));
    run_after("sed -i s/10000/20000/ other/config.json;", "--version");
    ran = run("sweep other --file sweep.json -o whole.db --resume");
    assert_int_equal(ran->exit_status, 3);
    assert_non_null(strstr(ran->err, "the model is another one (model_hash: "));
}

/* The hash that profiles have too, and what was used in place of a default. */
static void the_manifest_says_what_was_used(void **state)
{
    (void)state;
    run_well("eval '" REFERENCE "' --task '" REFERENCE
             "/eval.jsonl' --limit 1 -n 2 --profile-out profile.json");
    run_well("sweep '" REFERENCE "' -o used.db --target 'layer=1 experts=0' --error zero --kl '" REFERENCE
             "/README.md' --windows 1");
    size_t nbytes;
    char sql[256], *text = (char *)test_read(test_path("profile.json"), &nbytes);
    json_t *profile = json_loads(text, 0, NULL);
    snprintf(sql, sizeof sql, "SELECT count(*) FROM manifest WHERE key = 'model_hash' AND value = '%s'",
             json_string_value(json_object_get(profile, "model_hash")));
    assert_int_equal(number("used.db", sql), 1);
    json_decref(profile);
    free(text);
    assert_int_equal(number("used.db", "SELECT value FROM manifest WHERE key = 'ctx_size'"), 256);
    assert_int_equal(number("used.db", "SELECT value IS NULL FROM manifest WHERE key = 'detectable'"), 1);
    assert_int_equal(number("whole.db", "SELECT value IS NULL FROM manifest WHERE key = 'ctx_size'"), 1);
}

static double kl_of(const char *name, int run)
{
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT round(value * 1e15) FROM value WHERE run = %d AND name = 'kl'", run);
    return (double)number(name, sql) * 1e-15;
}

/* What a plan does not name has the default of its class in both. */
static void a_plan_is_swept_as_compress_codes_it(void **state)
{
    (void)state;
    static const char *const options[] = {"--dense-bound 0", ""};
    for (int i = 0; i < 2; i++) {
        run_well("sweep '" REFERENCE "' -o plan-%d.db --plan plan.json %s --kl '" REFERENCE
                 "/README.md' --windows 2",
                 i, options[i]);
        run_well("compress '" REFERENCE "' planned --force --plan plan.json %s", options[i]);
        json_t *json = run_json("eval planned --kl-divergence '" REFERENCE "' --perplexity '" REFERENCE
                                "/README.md' --limit 2 -o json");
        const json_t *kl = json_object_get(json_object_get(json, "kl"), "mean");
        char sql[64], name[16];
        snprintf(name, sizeof name, "plan-%d.db", i);
        double swept = kl_of(name, 1), coded = json_number_value(kl);
        if (!(coded > 0 && fabs(swept / coded - 1) < 1e-8))
            fail_msg("KL %.12g, of the folder %.12g", swept, coded);
        json_decref(json);
        snprintf(sql, sizeof sql, "SELECT n_matrices FROM run WHERE id = 1");
        if (i == 0) /* the other experts are 30 %; one matrix is exact */
            assert_int_equal(number(name, sql), 3 * (8 * 16 + 8) - 1);
    }
    assert_true(kl_of("plan-0.db", 1) < kl_of("plan-1.db", 1));
    run_well("report plan-0.db -o report.html");
}

/* With replies at hand none is generated: what is scored is them. The folder is that of the test before. */
static void replies_of_a_file_are_a_text(void **state)
{
    (void)state;
    run_well("sweep '" REFERENCE "' -o lines.db --plan plan.json --kl '" REFERENCE
             "/eval.jsonl' --windows 4");
    json_t *json = run_json("eval planned --kl-divergence '" REFERENCE "' --task '" REFERENCE
                            "/eval.jsonl' --limit 4 -o json");
    double coded = json_number_value(json_object_get(json_object_get(json, "kl"), "mean"));
    assert_true(coded > 0 && fabs(kl_of("lines.db", 1) / coded - 1) < 1e-8);
    assert_int_equal(number("lines.db", "SELECT value IS NULL FROM manifest WHERE key = 'ctx_size'"), 1);
    json_decref(json);
    assert_refused(2, "eval.jsonl: has replies",
                   "-o x.db --plan plan.json --kl '" REFERENCE "/eval.jsonl' -c 64");
}

static void a_plan_that_compress_refuses_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bounds, *words;
    } bad[] = {
        {"[\n{\"tensor\": \"lm_head.weight\", \"bound\": \"nan\"}]", "bad.json: line 2: bounds[0]: "},
        {"[\n{\"tensor\": \"lm_head.wait\", \"bound\": \"1%\"}]",
         "bad.json: line 2: bounds[0]: tensor lm_head.wait: is not in"},
        {"[\n{\"pattern\": \"expats\", \"bound\": \"1%\"}]",
         "bad.json: line 2: bounds[0]: pattern 'expats': matches the name of no tensor"},
        {"[\n{\"pattern\": \"gate_proj\", \"bound\": \"1%\"},\n{\"pattern\": \"experts\", \"bound\": "
         "\"2%\"}]",
         "bad.json: line 3: bounds[1]: pattern 'experts': gives tensor"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[400];
        snprintf(text, sizeof text, "{\"bounds\": %s}", bad[i].bounds);
        test_write_text(test_path("."), "bad.json", text);
        assert_refused(3, bad[i].words,
                       "-o x.db --plan plan.json --plan bad.json --task '" REFERENCE
                       "/eval.jsonl' --limit 1");
    }
    assert_refused(3, "none.json", "-o x.db --plan none.json --task '" REFERENCE "/eval.jsonl' --limit 1");
    assert_refused(3, "bound 'much': not a bound",
                   "-o x.db --plan plan.json --dense-bound much --task '" REFERENCE "/eval.jsonl' --limit 1");
    assert_false(test_exists(test_path("x.db")));
    assert_int_equal(run("sweep planned -o x.db --plan plan.json --task '" REFERENCE "/eval.jsonl' --limit 1")
                         ->exit_status,
                     3);
}

/* An edit is another plan, with the same name. A plan for feedback is measured without, which is said. */
static void a_plan_is_known_by_what_it_says(void **state)
{
    (void)state;
    static const char sweep[] = "-o known.db --plan fed.json --kl '" REFERENCE "/README.md' --windows 1";
    test_write_text(test_path("."), "fed.json",
                    "{\"feedback\": 1.0, \"bounds\": [{\"pattern\": \"experts\", \"bound\": \"90%\"}]}");
    const struct ran *ran = run("sweep '" REFERENCE "' %s", sweep);
    assert_int_equal(ran->exit_status, 0);
    assert_non_null(strstr(ran->err, "fed.json: made for rounding with feedback"));
    assert_int_equal(number("known.db", "SELECT count(*) FROM run WHERE target = 'plan=fed.json' AND error = "
                                        "'codec' AND bound LIKE 'plan:%' AND length(bound) = 37"),
                     1);
    run_well("sweep '" REFERENCE "' %s --resume", sweep);
    test_write_text(test_path("."), "fed.json",
                    "{\"bounds\": [{\"pattern\": \"experts\", \"bound\": \"91%\"}]}");
    char resume[200];
    snprintf(resume, sizeof resume, "%s --resume", sweep);
    assert_refused(3, "the plan of runs is another one", resume);
}

static void one_sweep_at_a_time_writes_a_file(void **state)
{
    (void)state;
    int file = open(test_path("whole.db"), O_RDWR);
    assert_int_equal(flock(file, LOCK_EX), 0);
    assert_refused(4, "another sweep is writing this file", "--file sweep.json -o whole.db --resume");
    close(file);
}

/* A file that may not grow takes the place of a full disk. */
static void a_full_disk_is_told_and_a_larger_one_goes_on(void **state)
{
    (void)state;
    const struct ran *ran = run_after("ulimit -f 120;", "sweep '" REFERENCE "' --file sweep.json -o full.db");
    if (ran->exit_status != 4 || strstr(ran->err, "full.db: ") == NULL)
        fail_msg("exit status %d: %s", ran->exit_status, ran->err);
    run_well("sweep '" REFERENCE "' --file sweep.json -o full.db --resume");
    assert_same_rows("full.db", "whole.db");
}

static void wrong_usage_is_told(void **state)
{
    (void)state;
    assert_refused(2, "-o FILE.db is missing", "--file sweep.json");
    assert_refused(2, "give one of --file, --suite, and --target", "-o x.db --task q");
    assert_refused(2, "give one of --file, --suite, and --target", "-o x.db --file sweep.json --suite paper");
    assert_refused(2, "--dense-bound goes with --plan",
                   "-o x.db --target 'layer=1' --error drop --dense-bound 0 --task q");
    assert_refused(2, "nothing to measure", "-o x.db --target 'layer=1' --error drop");
    assert_refused(2, "--suite is paper", "-o x.db --suite papers --task q");
    assert_refused(3, "'normal' needs a 'bound'", "-o x.db --target 'layer=1' --error normal --task q");
    assert_refused(2, "norml",
                   "-o x.db --target 'layer=1' --error norml --bound 3% --task '" REFERENCE
                   "/eval.jsonl' --limit 2");
    assert_refused(2, "layer=99",
                   "-o y.db --target 'layer=99 experts=0' --error zero --task '" REFERENCE
                   "/eval.jsonl' --limit 2");
    assert_false(test_exists(test_path("x.db")) || test_exists(test_path("y.db")));
}

static void assert_said(const char *words)
{
    size_t nbytes;
    char *said = (char *)test_read(test_path("stderr.txt"), &nbytes);
    if (strstr(said, words) == NULL)
        fail_msg("no '%s' in: %s", words, said);
    free(said);
}

#define SMALL                                                                                    \
    " --target 'layer=1 experts=0' --error zero -n 8 --windows 2 --kl '" REFERENCE "/README.md'" \
    " --task "

static void malformed_lines_are_named_and_counted(void **state)
{
    (void)state;
    test_write_text(test_path("."), "bad.jsonl",
                    "{\"question\": \"What is 2 + 2?\", \"answer\": 4}\n{\"question\": \"What is\n"
                    "{\"question\": \"What is 2 + 3?\", \"answer\": 5}\n{\"question\": \"no answer\"}\n");
    test_write_text(test_path("."), "good.jsonl",
                    "{\"question\": \"What is 2 + 2?\", \"answer\": 4}\n"
                    "{\"question\": \"What is 2 + 3?\", \"answer\": 5}\n");
    assert_refused(3, "bad.jsonl: line 2", "-o bad.db --strict" SMALL "bad.jsonl");
    assert_false(test_exists(test_path("bad.db")));
    run_well("sweep '" REFERENCE "' -o bad.db" SMALL "bad.jsonl");
    assert_said("moebius: left out: bad.jsonl: line 2");
    assert_said("moebius: left out: bad.jsonl: line 4");
    assert_said("moebius: 2 malformed lines left out, 2 questions read (--strict stops instead)\n");
    assert_int_equal(number("bad.db", "SELECT value FROM manifest WHERE key = 'n_malformed'"), 2);
    assert_int_equal(number("bad.db", "SELECT count(*) FROM answer"), 4);
    run_well("sweep '" REFERENCE "' -o good.db" SMALL "good.jsonl");
    assert_same_rows("bad.db", "good.db");
}

static void questions_without_room_count_as_wrong_and_are_named(void **state)
{
    char text[8192] = "{\"question\": \"What is 2 + 2?\", \"answer\": 4}\n{\"question\": \"";
    (void)state;
    for (size_t i = 0; i < 300; i++)
        strcat(text, "pears and ");       /* NOLINT(clang-analyzer-security.insecureAPI.strcpy): 3000 bytes */
    strcat(text, "\", \"answer\": 2}\n"); /* NOLINT(clang-analyzer-security.insecureAPI.strcpy) */
    test_write_text(test_path("."), "long.jsonl", text);
    for (int again = 0; again < 2; again++) {
        run_well("sweep '" REFERENCE "' -o long.db --resume" SMALL "long.jsonl");
        assert_said(
            "moebius: 1 question does not fit in the model's context of 256 tokens and counts as wrong: "
            "line 2\n");
    }
    assert_int_equal(
        number("long.db", "SELECT count(*) FROM answer WHERE question = 1 AND NOT pia AND dead = 4"), 2);
}

/* Before a model has computed anything, or, where usage has to be known, before any error is put in. */
static void a_selection_of_nothing_ends_a_sweep(void **state)
{
    (void)state;
    assert_refused(2, "'expert=99', at '99': experts of layer 1 are 0 to 15",
                   "-o none.db --target 'layer=1 expert=99' --error zero --task good.jsonl");
    assert_refused(2, "the selected layers have no routed experts",
                   "-o none.db --target 'layer=0 experts=all' --error zero --task good.jsonl");
    assert_refused(2, "the model's layers are 0 to 8",
                   "-o none.db --target 'layer=9 experts=all' --error zero --task good.jsonl");
    assert_false(test_exists(test_path("none.db")));
    assert_refused(2, "selects nothing: by the profile every expert of these layers was used",
                   "-o none.db --target 'layer=1 experts=unused' --error zero --kl '" REFERENCE
                   "/README.md' --task '" REFERENCE "/eval.jsonl' --limit 4 -n 8");
    assert_int_equal(number("none.db", "SELECT count(*) FROM run"), 1); /* the clean run is kept */
}

/* What a codec does not take, or cannot be dropped, is found before the runs that would come before it. */
static void what_cannot_be_done_is_found_after_the_clean_run(void **state)
{
    static const char *const cases[][3] = {
        {"layer=1 experts=all", "q4_k: 128 columns are no multiple of 256", "zero,codec:q4_k"},
        {"layer=1 experts=all", "layer=1 experts=all, drop: ", "zero,drop"},
        {"layer=1 experts=0 proj=down", "'drop' is for whole experts", "zero,drop"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char arguments[512];
        snprintf(arguments, sizeof arguments,
                 "-o not%zu.db --target '%s' --error %s --kl '%s/README.md' --windows 1", i, cases[i][0],
                 cases[i][2], REFERENCE);
        const struct ran *ran = run("sweep '" REFERENCE "' %s", arguments);
        if (ran->exit_status < 2 || strstr(ran->err, cases[i][1]) == NULL)
            fail_msg("%s: exit status %d: %s", arguments, ran->exit_status, ran->err);
        snprintf(arguments, sizeof arguments, "not%zu.db", i);
        assert_int_equal(number(arguments, "SELECT count(*) FROM run"), 1);
    }
}

/* A test over two seeds that differ shows nothing, and both have lost all but one answer. */
static void each_of_two_seeds_may_be_worse(void **state)
{
    (void)state;
    run_well("sweep '" REFERENCE "' -o seeds.db --target 'layer=4 expert=3' --error uniform"
             " --bound 1000%%,1%%,2%%,3%%,4%% --seeds 2 --task '" REFERENCE
             "/eval.jsonl' --limit 12 --windows 1 -n 96");
    assert_int_equal(
        number("seeds.db", "SELECT count(*) FROM comparison WHERE name = 'pia' AND verdict = 'worse'"), 2);
    assert_int_equal(number("seeds.db",
                            "SELECT count(*) FROM pooled WHERE name = 'pia' AND bound = '1000%' AND"
                            " verdict = 'worse with each of 2 seeds' AND p_adjusted > 0.05 AND"
                            " difference_low = -1"),
                     1);
    assert_int_equal(number("seeds.db",
                            "SELECT count(*) FROM pooled WHERE verdict = 'no difference seen (n = 12)'"
                            " AND name = 'pia'"),
                     4);
}

/* Weights of 1e37 make products infinite, and these NaN: a result like any other, and the sweep goes on. */
static void a_model_that_gives_nan_is_dead(void **state)
{
    (void)state;
    run_well("sweep '" REFERENCE
             "' -o nan.db --target 'layer=1 experts=all' --error uniform,zero --bound abs:1e37"
             " --task '" REFERENCE "/eval.jsonl' --limit 3");
    assert_int_equal(number("nan.db", "SELECT count(*) FROM answer WHERE run = 1 AND dead = 1 AND NOT pia"),
                     3);
    assert_int_equal(
        number("nan.db", "SELECT count(*) FROM value WHERE run = 1 AND name = 'dead' AND value = 1"), 1);
    assert_int_equal(number("nan.db", "SELECT value > 0 FROM value WHERE run = 1 AND name = 'not_finite'"),
                     1);
    assert_int_equal(
        number("nan.db", "SELECT count(*) FROM value WHERE run = 1 AND name = 'kl' AND value IS NULL"), 1);
    assert_int_equal(
        number("nan.db", "SELECT count(*) FROM value WHERE run = 2 AND name = 'kl' AND value > 0"), 1);
}

static void multiple_choice_and_other_codecs_are_swept(void **state)
{
    static const char task[] =
        "{\"question\": \"2 + 2 is\", \"choices\": [\"4\", \"11\"], \"answer\": \"A\"}\n"
        "{\"question\": \"Ali has 3 pears and eats one. He has\", \"choices\": [\"9\", \"2\"], \"answer\": "
        "1}\n";
    (void)state;
    test_write_text(test_path("."), "choices.jsonl", task);
    assert_refused(2, "give a text, too",
                   "-o c.db --target 'layer=1 experts=all' --error zero --task choices.jsonl");
    run_well("sweep '" REFERENCE "' -o c.db --target 'layer=1 experts=all' --error codec:nf4,codec:ours,zero"
             " --bound 80%% --task choices.jsonl --kl '" REFERENCE "/README.md' -c 64 --windows 3");
    assert_int_equal(number("c.db", "SELECT count(*) FROM answer"), 8);
    assert_int_equal(number("c.db", "SELECT count(*) FROM reply"), 0);
    assert_int_equal(number("c.db", "SELECT count(*) FROM value WHERE name = 'acc_norm'"), 4);
    assert_int_equal(number("c.db", "SELECT count(*) FROM run WHERE error = 'codec:nf4' AND bound IS NULL"),
                     1);
    assert_int_equal(number("c.db", "SELECT count(*) FROM run WHERE error = 'codec:ours' AND bound = '80%'"),
                     1);
    assert_int_equal(number("c.db", "SELECT count(*) FROM comparison WHERE name = 'nll'"), 3);
    assert_int_equal(number("c.db",
                            "SELECT 1000 * value FROM value JOIN run ON run = id WHERE name = 'bits' AND "
                            "error = 'codec:nf4'"),
                     4500);
    assert_int_equal(number("c.db", "SELECT count(*) FROM value WHERE name = 'bits'"), 2);
    run_well("sweep '" REFERENCE "' -o c.db --target 'layer=1 experts=all' --error codec:nf4,codec:ours,zero"
             " --bound 80%% --task choices.jsonl --kl '" REFERENCE "/README.md' -c 64 --windows 3 --resume");
}

static void tables_csv_and_json_say_the_same(void **state)
{
    (void)state;
    json_t *report = run_json("sweep '" REFERENCE "' --file sweep.json -o whole.db --resume --format json");
    json_t *pooled = json_object_get(report, "pooled");
    size_t n_rows = json_array_size(pooled), n_lines = 0;
    assert_int_equal(n_rows, (size_t)number("whole.db", "SELECT count(*) FROM pooled"));
    const char *csv = run_well("sweep '" REFERENCE "' --file sweep.json -o whole.db --resume --format csv");
    assert_memory_equal(csv, "label,target,error,bound,name,", 30);
    for (const char *p = csv; *p != '\0'; p++)
        n_lines += *p == '\n';
    assert_int_equal(n_lines, n_rows + 1);
    const char *md = run_well("sweep '" REFERENCE "' --file sweep.json -o whole.db --resume");
    assert_non_null(strstr(md, "| layer=8 experts=cold1"));
    assert_non_null(strstr(md, "no difference seen (n = 4)"));
    json_decref(report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sweep_has_a_row_for_each_run),
        cmocka_unit_test(rows_do_not_depend_on_threads_and_batches),
        cmocka_unit_test(a_killed_sweep_goes_on),
        cmocka_unit_test(an_interrupt_ends_between_two_tokens),
        cmocka_unit_test(what_does_not_belong_together_is_refused),
        cmocka_unit_test(the_manifest_says_what_was_used),
        cmocka_unit_test(a_plan_is_swept_as_compress_codes_it),
        cmocka_unit_test(replies_of_a_file_are_a_text),
        cmocka_unit_test(a_plan_that_compress_refuses_is_refused),
        cmocka_unit_test(a_plan_is_known_by_what_it_says),
        cmocka_unit_test(one_sweep_at_a_time_writes_a_file),
        cmocka_unit_test(a_full_disk_is_told_and_a_larger_one_goes_on),
        cmocka_unit_test(wrong_usage_is_told),
        cmocka_unit_test(malformed_lines_are_named_and_counted),
        cmocka_unit_test(questions_without_room_count_as_wrong_and_are_named),
        cmocka_unit_test(a_selection_of_nothing_ends_a_sweep),
        cmocka_unit_test(what_cannot_be_done_is_found_after_the_clean_run),
        cmocka_unit_test(each_of_two_seeds_may_be_worse),
        cmocka_unit_test(a_model_that_gives_nan_is_dead),
        cmocka_unit_test(multiple_choice_and_other_codecs_are_swept),
        cmocka_unit_test(tables_csv_and_json_say_the_same),
    };
    return cmocka_run_group_tests(tests, group_begin, test_folder_end);
}
