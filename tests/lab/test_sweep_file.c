/*
 * test_sweep_file.c - sweep files: which runs they mean, and what is wrong with one.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "lab/sweep_file.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const struct mb_sweep_flags no_flags = {.size = sizeof no_flags};

static struct mb_sweep *read_well(const char *text, const struct mb_sweep_flags *flags)
{
    struct mb_sweep *sweep;
    struct mb_error err;
    if (text != NULL)
        test_write_text(test_path("."), "sweep.json", text);
    if (mb_sweep_read(text == NULL ? NULL : test_path("sweep.json"), flags, &sweep, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return sweep;
}

static void assert_item(const struct mb_sweep *sweep, size_t i, const char *target, const char *error,
                        const char *bound, uint64_t seed)
{
    const struct mb_sweep_item *item = &sweep->items[i];
    assert_true(i < sweep->n_items);
    assert_string_equal(item->target, target);
    assert_string_equal(item->error, error);
    if (bound == NULL)
        assert_null(item->bound);
    else
        assert_string_equal(item->bound, bound);
    assert_int_equal(item->seed, seed);
}

static void an_entry_is_all_its_combinations(void **state)
{
    (void)state;
    struct mb_sweep *sweep = read_well(
        "{\"sweep\": 1, \"task\": \"q.jsonl\", \"seeds\": [5, 9], \"runs\": ["
        "{\"label\": \"L\", \"target\": [\"a\", \"b\"], \"error\": [\"normal\", \"codec\", \"drop\"],"
        " \"bound\": [\"30%\", \"80%\"]}, {\"target\": \"a\", \"error\": \"drop\"}]}",
        &no_flags);
    assert_int_equal(sweep->n_items, 1 + 2 * (2 * 2 + 2 + 1)); /* the last entry is there already */
    assert_item(sweep, 0, "", "none", NULL, 0);
    assert_item(sweep, 1, "a", "normal", "30%", 5);
    assert_item(sweep, 2, "a", "normal", "30%", 9);
    assert_item(sweep, 4, "a", "normal", "80%", 9);
    assert_item(sweep, 5, "a", "codec", "30%", 0);
    assert_item(sweep, 7, "a", "drop", NULL, 0);
    assert_item(sweep, 14, "b", "drop", NULL, 0);
    assert_string_equal(sweep->items[14].label, "L");
    assert_string_equal(sweep->task, test_path("q.jsonl"));
    mb_sweep_close(sweep);
}

static void flags_take_the_place_of_what_the_file_says(void **state)
{
    const char *targets[] = {"layer=1 experts=0,3"};
    struct mb_sweep_flags flags = {.size = sizeof flags,
                                   .task = "other.jsonl",
                                   .limit = 3,
                                   .n_seeds = 2,
                                   .targets = targets,
                                   .n_targets = 1,
                                   .errors = "uniform,codec",
                                   .bounds = "10%,1e-3"};
    (void)state;
    struct mb_sweep *sweep = read_well("{\"sweep\": 1, \"task\": \"q.jsonl\", \"limit\": 10, \"runs\": "
                                       "[{\"target\": \"a\", \"error\": \"drop\"}]}",
                                       &flags);
    assert_string_equal(sweep->task, "other.jsonl");
    assert_int_equal(sweep->limit, 3);
    assert_int_equal(sweep->n_items, 1 + 2 * 2 + 2);
    assert_item(sweep, 2, "layer=1 experts=0,3", "uniform", "10%", 2);
    assert_item(sweep, 6, "layer=1 experts=0,3", "codec", "1e-3", 0);
    struct mb_sweep *same = read_well(NULL, &flags);
    assert_int_equal(same->n_items, sweep->n_items);
    mb_sweep_close(sweep);
    /* What the manifest keeps is a sweep file of the same runs. */
    sweep = read_well(same->form, &no_flags);
    assert_int_equal(same->n_items, sweep->n_items);
    mb_sweep_close(sweep);
    mb_sweep_close(same);
}

/* Paths are relative to the file; the same plan with another --dense-bound is another run. */
static void plans_are_runs_too(void **state)
{
    const char *plans[] = {"c.json", "c.json"};
    const struct mb_sweep_flags flags = {
        .size = sizeof flags, .text = "t", .plans = plans, .n_plans = 2, .dense_bound = "0"};
    (void)state;
    struct mb_sweep *sweep = read_well(
        "{\"sweep\": 1, \"text\": \"t\", \"runs\": [{\"label\": \"L\", \"plan\": [\"a.json\", \"/b.json\"]},"
        "{\"plan\": \"a.json\", \"dense_bound\": \"3%\"}, {\"plan\": \"a.json\"}]}",
        &no_flags);
    assert_int_equal(sweep->n_items, 4);
    assert_string_equal(sweep->items[1].plan, test_path("a.json"));
    assert_string_equal(sweep->items[1].label, "L");
    assert_null(sweep->items[1].dense_bound);
    assert_string_equal(sweep->items[2].plan, "/b.json");
    assert_item(sweep, 2, "plan=/b.json", "codec", NULL, 0);
    assert_string_equal(sweep->items[3].dense_bound, "3%");
    mb_sweep_close(sweep);
    sweep = read_well(NULL, &flags);
    assert_int_equal(sweep->n_items, 2);
    assert_item(sweep, 1, "plan=c.json dense-bound=0", "codec", NULL, 0);
    mb_sweep_close(sweep);
}

static void what_is_wrong_is_named(void **state)
{
    static const struct {
        const char *text, *words;
    } wrong[] = {
        {"{}", "\"sweep\": 1 is missing"},
        {"{\"sweep\": 2, \"task\": \"q\", \"runs\": []}", "\"sweep\": 1 is missing"},
        {"{\"sweep\": 1, \"task\": \"q\"}", "'runs' has to be a list"},
        {"{\"sweep\": 1, \"runs\": [{\"target\": \"a\", \"error\": \"drop\"}]}", "a task or a text"},
        {"{\"sweep\": 1, \"task\": \"q\", \"runs\": [], \"seed\": 1}", "unknown key 'seed'"},
        {"{\"sweep\": 1, \"task\": \"q\", \"runs\": [{\"target\": \"a\", \"eror\": \"drop\"}]}",
         "entry 1 of 'runs': unknown key 'eror'"},
        {"{\"sweep\": 1, \"task\": \"q\", \"runs\": [{\"target\": \"a\", \"error\": \"drop\"}, {\"error\": "
         "\"drop\"}]}",
         "entry 2 of 'runs': 'target' is missing"},
        {"{\"sweep\": 1, \"task\": \"q\", \"runs\": [{\"target\": [\"a\", 1], \"error\": \"drop\"}]}",
         "'target' has to be a text"},
        {"{\"sweep\": 1, \"task\": \"q\", \"runs\": [{\"target\": \"a\", \"error\": \"normal\"}]}",
         "'normal' needs a 'bound'"},
        {"{\"sweep\": 1, \"task\": \"q\", \"seeds\": [1, 1], \"runs\": []}", "'seeds' has 1 twice"},
        {"{\"sweep\": 1, \"task\": \"q\", \"seeds\": 0, \"runs\": []}", "'seeds' has to be"},
        {"{\"sweep\": 1, \"task\": \"q\", \"limit\": 0, \"runs\": []}", "'limit' has to be"},
        {"{\"sweep\": 1, \"task\": 7, \"runs\": []}", "'task' has to be a text"},
        {"{\"sweep\": 1, \"task\": \"q\", \"suite\": \"paper\", \"runs\": [{\"target\": \"a\", \"error\": "
         "\"drop\"}]}",
         "'runs' beside 'suite'"},
        {"{\"sweep\": 1, \"task\": \"q\", \"ctx_size\": 64, \"runs\": []}", "'ctx_size' is of a text"},
        {"{\"sweep\": 1, \"text\": \"t\", \"limit\": 64, \"runs\": []}",
         "'limit', 'predict' and 'few_shot' are of a task"},
        {"{\"sweep\": 1, \"task\": \"t\", \"examples\": \"e\", \"runs\": []}", "'examples' needs 'few_shot'"},
        {"{\"sweep\": 1, \"task\": \"t\", \"few_shot\": 0, \"runs\": []}", "'few_shot' has to be"},
        {"{\"sweep\": 1, \"task\": \"t\", \"runs\": [{\"plan\": \"p\", \"target\": \"a\"}]}",
         "entry 1 of 'runs': unknown key 'target'"},
        {"{\"sweep\": 1, \"task\": \"t\", \"runs\": [{\"plan\": []}]}", "'plan' is missing or empty"},
        {"{\"sweep\": 1, \"task\": \"t\", \"runs\": [{\"plan\": \"p\", \"dense_bound\": \"much\"}]}",
         "'dense_bound'"},
        {"{\"sweep\": 1, \"task\": \"t\", \"runs\": [{\"target\": \"a\", \"error\": \"zero\", "
         "\"dense_bound\": "
         "\"0\"}]}",
         "unknown key 'dense_bound'"},
        {"[1]", "sweep.json"},
        {"{\"sweep\": 1,", "sweep.json"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct mb_sweep *sweep;
        struct mb_error err = {0};
        test_write_text(test_path("."), "sweep.json", wrong[i].text);
        if (mb_sweep_read(test_path("sweep.json"), &no_flags, &sweep, &err) == MB_OK)
            fail_msg("%s is read", wrong[i].text);
        if (strstr(err.msg, wrong[i].words) == NULL || strstr(err.msg, "sweep.json") == NULL)
            fail_msg("%s: '%s' does not say '%s'", wrong[i].text, err.msg, wrong[i].words);
    }
}

/* The same run again and again is one run, and takes time all the same. */
static void a_sweep_without_end_is_refused(void **state)
{
    enum { N = 300 };
    char text[4 * N + 1], *sweep_file = NULL;
    struct mb_sweep *sweep;
    struct mb_error err = {0};
    (void)state;
    for (size_t i = 0; i < N; i++)
        memcpy(text + 4 * i, "\"a\",", 5);
    text[4 * N - 1] = '\0';
    assert_true(asprintf(&sweep_file,
                         "{\"sweep\": 1, \"task\": \"q\", \"runs\": [{\"target\": [%s], \"error\": [%s], "
                         "\"bound\": \"1\"}]}",
                         text, text) > 0);
    test_write_text(test_path("."), "sweep.json", sweep_file);
    free(sweep_file);
    assert_int_equal(mb_sweep_read(test_path("sweep.json"), &no_flags, &sweep, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "more than 20000 runs"));
}

/* The schema and the reader know the same keys. */
static void the_schema_has_the_keys_that_are_read(void **state)
{
    static const char *const keys[] = {"sweep",   "task",  "limit", "predict", "text",     "ctx_size",
                                       "windows", "seeds", "runs",  "suite",   "few_shot", "examples"};
    json_t *schema = json_load_file(MB_REPO "/docs/sweep.schema.json", 0, NULL);
    (void)state;
    const json_t *known = json_object_get(schema, "properties");
    assert_int_equal(json_object_size(known), sizeof keys / sizeof *keys);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_non_null(json_object_get(known, keys[i]));
    json_decref(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_is_all_its_combinations),
        cmocka_unit_test(flags_take_the_place_of_what_the_file_says),
        cmocka_unit_test(plans_are_runs_too),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(a_sweep_without_end_is_refused),
        cmocka_unit_test(the_schema_has_the_keys_that_are_read),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
