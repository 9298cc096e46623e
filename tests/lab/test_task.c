/*
 * test_task.c - reading task files: what is taken, and the error for what is not.
 */
#include "cmocka_all.h"
#include <moebius/lab.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A temporary file with this text; the name is the caller's to unlink and free. */
static char *write_file(const char *text, size_t nbytes)
{
    char name[256];
    const char *tmp = getenv("TMPDIR");
    snprintf(name, sizeof name, "%s/moebius-task-XXXXXX", tmp != NULL ? tmp : P_tmpdir);
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    assert_true(write(fd, text, nbytes) == (ssize_t)nbytes);
    close(fd);
    return strdup(name);
}

static enum mb_status open_text(const char *text, size_t nbytes, size_t limit, struct mb_task *task,
                                struct mb_error *err)
{
    char *name = write_file(text, nbytes);
    enum mb_status status = mb_task_open(name, limit, task, err);
    unlink(name);
    free(name);
    return status;
}

static void reference_questions_are_read(void **state)
{
    struct mb_task task;
    struct mb_error err;
    (void)state;
    assert_int_equal(mb_task_open(MB_REPO "/models/reference/eval.jsonl", 0, &task, &err), MB_OK);
    assert_int_equal(task.n_items, 2000);
    assert_string_equal(task.items[0].number, "20");
    assert_int_equal(task.items[0].format, MB_ANSWER_PLAIN);
    assert_int_equal(task.items[1].format, MB_ANSWER_BOXED);
    assert_int_equal(task.items[2].format, MB_ANSWER_HASH);
    assert_int_equal(task.items[3].format, MB_ANSWER_JSON);
    assert_non_null(strstr(task.items[2].question, "End with #### and the answer."));
    mb_task_close(&task);
}

static void request_is_appended_without_format(void **state)
{
    static const char text[] =
        "{\"question\": \"Q?\", \"answer\": \"#### 9\\n#### $1,450,000.\", \"x\": [1]}\r\n"
        "  \n"
        "{\"question\": \"caf\\u00e9\", \"answer\": \"####-3\", \"format\": null}";
    struct mb_task task;
    struct mb_error err;
    (void)state;
    assert_int_equal(open_text(text, sizeof text - 1, 0, &task, &err), MB_OK);
    assert_int_equal(task.n_items, 2);
    assert_string_equal(task.items[0].question, "Q? End with #### and the answer.");
    assert_string_equal(task.items[0].number, "1450000");
    assert_string_equal(task.items[1].question, "caf\xc3\xa9 End with #### and the answer.");
    assert_string_equal(task.items[1].number, "-3");
    assert_int_equal(task.items[1].format, MB_ANSWER_HASH);
    mb_task_close(&task);
}

static void limit_stops_before_bad_lines(void **state)
{
    static const char text[] = "{\"question\": \"Q\", \"answer\": \"#### 1\"}\nnonsense\n";
    struct mb_task task;
    struct mb_error err;
    (void)state;
    assert_int_equal(open_text(text, sizeof text - 1, 1, &task, &err), MB_OK);
    assert_int_equal(task.n_items, 1);
    mb_task_close(&task);
}

#define GOOD "{\"question\": \"Q\", \"answer\": \"#### 1\"}\n"

static void bad_files_are_named_with_their_line(void **state)
{
    static const struct {
        const char *text;
        size_t nbytes; /* 0: strlen */
        const char *message;
    } bad[] = {
        {"", 0, "no questions"},
        {"\n \n", 0, "no questions"},
        {GOOD "\nnonsense\n", 0, "line 3: byte 47: "},
        {GOOD "[1, 2]\n", 0, "line 2: no text 'question'"},
        {GOOD "{\"answer\": \"#### 1\"}", 0, "line 2: no text 'question'"},
        {GOOD "{\"question\": 5, \"answer\": \"#### 1\"}", 0, "line 2: no text 'question'"},
        {GOOD "{\"question\": \"Q\"}", 0, "line 2: no text 'answer'"},
        {GOOD "{\"question\": \"Q\", \"answer\": 5}", 0, "line 2: no text 'answer'"},
        {"{\"question\": \"Q\", \"answer\": \"5\"}", 0, "line 1: 'answer' does not end with ####"},
        {"{\"question\": \"Q\", \"answer\": \"#### five\"}", 0, "line 1: 'answer' does not end with ####"},
        {"{\"question\": \"Q\", \"answer\": \"#### 5 apples\"}", 0,
         "line 1: 'answer' does not end with ####"},
        {GOOD GOOD "{\"question\": \"Q\", \"answer\": \"#### 5\", \"format\": \"xml\"}", 0,
         "line 3: format is not"},
        {GOOD "{\"question\": \"Q\", \"answer\": \"#### 5\", \"format\": 1}", 0, "line 2: format is not"},
        {GOOD "{\"question\": \"Q\", \"answer\": \"#### 5\"", 0, "line 2: byte "},
        {GOOD "{\"question\": \"Q\", \"answer\": \"#### 5\"} x", 0, "line 2: byte "},
        {GOOD "{\"question\": \"\xff\", \"answer\": \"#### 5\"}", 0, "line 2: byte "},
        {GOOD "{\"question\": \"\0\", \"answer\": \"#### 5\"}", sizeof GOOD - 1 + 35, "line 2: byte "},
        {GOOD "{\"question\": \"\\u0000\", \"answer\": \"#### 5\"}", 0, "line 2: byte "},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct mb_task task;
        struct mb_error err;
        size_t nbytes = bad[i].nbytes != 0 ? bad[i].nbytes : strlen(bad[i].text);
        assert_int_equal(open_text(bad[i].text, nbytes, 0, &task, &err), MB_BAD_DATA);
        if (strstr(err.msg, bad[i].message) == NULL || strstr(err.msg, "moebius-task-") == NULL)
            fail_msg("file %zu: '%s' does not say '%s'", i, err.msg, bad[i].message);
        assert_true(task.n_items == 0 && task.items == NULL);
    }
}

/* ESC [ would be a command to the terminal that shows the message. */
static void no_control_character_of_a_file_is_in_a_message(void **state)
{
    static const char *const texts[] = {"{\"\x1b[2J\": 1, \"\x1b[2J\": 2}\n", "{\x1b[2J}\n",
                                        "{\"a\xc2\x9b[2J\": x}\n", "nonsense\x1b[2J\n"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct mb_task task;
        struct mb_error err;
        assert_int_equal(open_text(texts[i], strlen(texts[i]), 0, &task, &err), MB_BAD_DATA);
        if (strchr(err.msg, '\x1b') != NULL || strstr(err.msg, "\xc2\x9b") != NULL)
            fail_msg("file %zu: a control character in '%s'", i, err.msg);
    }
}

static void missing_files_are_errors(void **state)
{
    struct mb_task task;
    struct mb_error err;
    (void)state;
    assert_int_equal(mb_task_open("/no/such/file.jsonl", 0, &task, &err), MB_BAD_DATA);
    assert_int_equal(mb_task_open(MB_REPO, 0, &task, &err), MB_BAD_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_questions_are_read),
        cmocka_unit_test(request_is_appended_without_format),
        cmocka_unit_test(limit_stops_before_bad_lines),
        cmocka_unit_test(bad_files_are_named_with_their_line),
        cmocka_unit_test(no_control_character_of_a_file_is_in_a_message),
        cmocka_unit_test(missing_files_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
