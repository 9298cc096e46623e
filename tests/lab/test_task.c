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
    struct mb_task_options options = {.size = sizeof options, .limit = limit};
    enum mb_status status = mb_task_open(name, &options, task, err);
    unlink(name);
    free(name);
    return status;
}

static void reference_questions_are_read(void **state)
{
    struct mb_task task;
    struct mb_error err;
    (void)state;
    assert_int_equal(mb_task_open(MB_REPO "/models/reference/eval.jsonl", NULL, &task, &err), MB_OK);
    assert_int_equal(task.n_items, 2000);
    assert_string_equal(task.items[0].answer, "20");
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
    assert_string_equal(task.items[0].answer, "1450000");
    assert_string_equal(task.items[1].question, "caf\xc3\xa9 End with #### and the answer.");
    assert_string_equal(task.items[1].answer, "-3");
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

#define CHOICES "{\"question\": \"Which?\", \"choices\": [\"a\", \"b c\"], \"answer\": 1}"

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
        {GOOD "{\"question\": \"Q\"}", 0, "line 2: no text or number 'answer'"},
        {GOOD "{\"question\": \"Q\", \"answer\": [5]}", 0, "line 2: no text or number 'answer'"},
        {GOOD "{\"question\": \"Q\", \"answer\": 1e300}", 0,
         "line 2: 'answer' is a number that is too large"},
        {"{\"question\": \"Q\", \"answer\": \" \"}", 0, "line 1: 'answer' is empty"},
        {"{\"question\": \"Q\", \"answer\": \"5 ####  \"}", 0, "line 1: 'answer' has nothing after"},
        {"{\"question\": \"Q\", \"answer\": \"\", \"format\": \"math\"}", 0, "line 1: 'answer' is empty"},
        {GOOD "{\"problem\": \"P\"}", 0, "line 2: no text 'solution'"},
        {GOOD "{\"problem\": 1, \"solution\": \"\"}", 0, "line 2: no text 'problem'"},
        {GOOD "{\"problem\": \"P\", \"solution\": \"5\"}", 0, "line 2: 'solution' has no \\boxed{}"},
        {GOOD "{\"problem\": \"P\", \"solution\": \"\\\\boxed{5\"}", 0, "line 2: 'solution' has no"},
        {GOOD "{\"Body\": \"B\", \"Answer\": 1}", 0, "line 2: no text 'Question'"},
        {GOOD "{\"Body\": 1, \"Question\": \"Q\"}", 0, "line 2: no text 'Body'"},
        {GOOD CHOICES, 0, "line 2: multiple choice, where earlier questions are answered in words"},
        {CHOICES "\n" GOOD, 0, "line 2: no multiple choice, where earlier questions are"},
        {"{\"question\": \"Q\", \"choices\": [\"a\"], \"answer\": 0}", 0,
         "line 1: 'choices' is not a list of 2"},
        {"{\"question\": \"Q\", \"choices\": [\"a\", 1], \"answer\": 0}", 0,
         "line 1: 'choices' is not a list of"},
        {"{\"question\": \"Q\", \"choices\": [\"a\", \"\"], \"answer\": 0}", 0, "texts that are not empty"},
        {"{\"choices\": [\"a\", \"b\"], \"answer\": 0}", 0, "line 1: no text 'question'"},
        {"{\"question\": \"Q\", \"choices\": [\"a\", \"b\"], \"answer\": 2}", 0,
         "line 1: 'answer' is neither"},
        {"{\"question\": \"Q\", \"choices\": [\"a\", \"b\"], \"answer\": \"C\"}", 0,
         "line 1: 'answer' is neither"},
        {"{\"question\": \"Q\", \"options\": [\"A)a\", \"B)b\"], \"correct\": -1}", 0,
         "line 1: 'correct' is neither"},
        {"{\"sentence\": \"no gap\"}", 0, "line 1: no text 'sentence' with a gap"},
        {"{\"sentence\": \"a _\", \"option1\": \"b\"}", 0, "line 1: no text 'option2'"},
        {"{\"sentence\": \"a _\", \"option1\": \"b\", \"option2\": \"c\", \"answer\": 1}", 0,
         "is not \"1\" or \"2\""},
        {"[\n" CHOICES ", {\"a\": 1}]", 0, "element 2: no multiple choice"},
        {"[1, 2", 0, "byte "},
        {"[]", 0, "no questions"},
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
        assert_true(task.n_items == 0 && task.items == NULL && task.choices == NULL);
    }
}

/* What the callback was told. */
struct told {
    size_t n;
    char messages[4][512];
};

static void note_malformed(void *ctx, const char *message)
{
    struct told *told = ctx;
    assert_true(told->n < 4);
    snprintf(told->messages[told->n++], sizeof told->messages[0], "%s", message);
}

static void malformed_lines_are_left_out_and_counted(void **state)
{
    static const char text[] = "nonsense\n" GOOD "{\"question\": 1}\n\n" GOOD "[1]\n" GOOD;
    struct told told = {0};
    struct mb_task_options options = {
        .size = sizeof options, .skips_malformed = true, .malformed = note_malformed, .malformed_ctx = &told};
    struct mb_task task;
    struct mb_error err;
    char *name = write_file(text, sizeof text - 1);
    (void)state;
    assert_int_equal(mb_task_open(name, &options, &task, &err), MB_OK);
    assert_true(task.n_items == 3 && task.n_malformed == 3 && told.n == 3);
    assert_non_null(strstr(told.messages[0], ": line 1: byte "));
    assert_non_null(strstr(told.messages[1], ": line 3: no text 'question'"));
    assert_non_null(strstr(told.messages[2], ": line 6: "));
    assert_true(task.items[0].line == 2 && task.items[1].line == 5 && task.items[2].line == 7);
    mb_task_close(&task);
    told.n = 0;
    options.limit = 2; /* good ones */
    assert_int_equal(mb_task_open(name, &options, &task, &err), MB_OK);
    assert_true(task.n_items == 2 && task.n_malformed == 2);
    mb_task_close(&task);
    unlink(name);
    free(name);
    name = write_file("a\nb\n", 4);
    told.n = 0;
    assert_int_equal(mb_task_open(name, &options, &task, &err), MB_BAD_DATA);
    assert_true(told.n == 2 && strcmp(err.msg, told.messages[0]) == 0);
    unlink(name);
    free(name);
}

static struct mb_task read_good(const char *text)
{
    struct mb_task task;
    struct mb_error err;
    if (open_text(text, strlen(text), 0, &task, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return task;
}

static void questions_of_every_form_are_read(void **state)
{
    static const struct {
        const char *text, *question, *answer;
        enum mb_answer_format format;
        enum mb_answer_kind kind;
    } forms[] = {
        {"{\"problem\": \"P?\", \"solution\": \"\\\\boxed{1} so $\\\\boxed{\\\\frac{1}{2}}$.\", \"level\": "
         "3}",
         "P? Put the final answer in \\boxed{}.", "\\frac{1}{2}", MB_ANSWER_MATH, MB_ANSWER_LATEX},
        {"{\"problem\": \"P?\", \"solution\": \"is $\\\\boxed 5.$\"}",
         "P? Put the final answer in \\boxed{}.", "5", MB_ANSWER_MATH, MB_ANSWER_LATEX},
        {"{\"question\": \"Q?\", \"answer\": \" x^2 \", \"format\": \"math\"}", "Q?", "x^2", MB_ANSWER_MATH,
         MB_ANSWER_LATEX},
        {"{\"question\": \"Q?\", \"answer\": -2.50}", "Q? End with #### and the answer.", "-2.5",
         MB_ANSWER_HASH, MB_ANSWER_NUMBER},
        {"{\"question\": \"Q?\", \"answer\": \" Paris. \", \"format\": \"plain\"}", "Q?", "Paris.",
         MB_ANSWER_PLAIN, MB_ANSWER_TEXT},
        {"[{\"Body\": \"Ann has 3\", \"Question\": \"How many?\", \"Answer\": 3.0}]",
         "Ann has 3. How many? End with #### and the answer.", "3", MB_ANSWER_HASH, MB_ANSWER_NUMBER},
        {"[{\"Body\": \"Ann has 3.\", \"Question\": \"How many?\", \"Answer\": 12}]",
         "Ann has 3. How many? End with #### and the answer.", "12", MB_ANSWER_HASH, MB_ANSWER_NUMBER},
    };
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct mb_task task = read_good(forms[i].text);
        assert_true(task.n_items == 1 && task.n_choices == 0);
        assert_string_equal(task.items[0].question, forms[i].question);
        assert_string_equal(task.items[0].answer, forms[i].answer);
        assert_true(task.items[0].format == forms[i].format && task.items[0].kind == forms[i].kind);
        mb_task_close(&task);
    }
}

static void prompts_of_choices_are_those_of_lm_evaluation_harness(void **state)
{
    static const struct {
        const char *text, *contexts[2], *continuations[2];
    } forms[] = {
        {CHOICES, {"Question: Which?\nAnswer:", "Question: Which?\nAnswer:"}, {" a", " b c"}},
        {"{\"subject\": \"high_school_physics\", \"question\": \" Which? \", \"choices\": [\"a\", \"b\"], "
         "\"answer\": \"B\"}",
         {"The following are multiple choice questions (with answers) about high school "
          "physics.\n\nWhich?\nA. a\nB. "
          "b\nAnswer:",
          "The following are multiple choice questions (with answers) about high school "
          "physics.\n\nWhich?\nA. a\nB. "
          "b\nAnswer:"},
         {" A", " B"}},
        {"{\"sentence\": \"The cup fell off _ and broke. \", \"option1\": \"it\", \"option2\": \"the "
         "shelf\", \"answer\": \"2\"}",
         {"The cup fell off it", "The cup fell off the shelf"},
         {" and broke.", " and broke."}},
        {"{\"question\": \"Q\", \"options\": [\"A)1\", \"B)2\"], \"correct\": \"B\"}",
         {"Question: Q\nA)1\nB)2\nAnswer:", "Question: Q\nA)1\nB)2\nAnswer:"},
         {" A", " B"}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct mb_task task = read_good(forms[i].text);
        assert_true(task.n_items == 0 && task.n_choices == 1);
        assert_true(task.choices[0].n_choices == 2 && task.choices[0].right == 1);
        for (size_t k = 0; k < 2; k++) {
            assert_string_equal(task.choices[0].contexts[k], forms[i].contexts[k]);
            assert_string_equal(task.choices[0].continuations[k], forms[i].continuations[k]);
        }
        mb_task_close(&task);
    }
}

/* The reply that an example shows, for questions of every form. */
static void the_reply_of_an_example_is_right_in_its_format(void **state)
{
    static const struct {
        const char *text, *reply;
    } forms[] = {
        {"{\"question\": \"Q\", \"answer\": \"2 + 3 = <<2+3=5>>5.\\nSo 1,450.\\n#### 1,450\"}",
         "2 + 3 = <<2+3=5>>5.\nSo 1,450.\n#### 1450"},
        {"{\"question\": \"Q\", \"answer\": \"Six.\\n#### 6\", \"format\": \"boxed\"}", "Six.\n\\boxed{6}"},
        {"{\"question\": \"Q\", \"answer\": \"Six.\\n#### 6\", \"format\": \"plain\"}", "Six.\nAnswer: 6"},
        {"{\"question\": \"Q\", \"answer\": \"Six.\\n#### 6\", \"format\": \"json\"}",
         "Six.\n{\"answer\": 6}"},
        {"{\"question\": \"Q\", \"answer\": \"a \\\"b\\\"\", \"format\": \"json\"}",
         "{\"answer\": \"a \\\"b\\\"\"}"},
        {"{\"question\": \"Q\", \"answer\": 12}", "#### 12"},
        {"[{\"Body\": \"B.\", \"Question\": \"Q\", \"Answer\": 12.0}]", "#### 12"},
        {"{\"problem\": \"P\", \"solution\": \"It is $\\\\boxed{5}$.\"}", "It is $\\boxed{5}$."},
        {"{\"question\": \"Q\", \"answer\": \"x^2\", \"format\": \"math\"}", "\\boxed{x^2}"},
    };
    struct mb_task task;
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        task = read_good(forms[i].text);
        assert_string_equal(task.items[0].reply, forms[i].reply);
        assert_true(mb_score_reply(&task.items[0], task.items[0].reply, false).ica);
        mb_task_close(&task);
    }
    assert_int_equal(mb_task_open(MB_REPO "/models/reference/eval.jsonl", NULL, &task, NULL), MB_OK);
    for (size_t i = 0; i < task.n_items; i++)
        assert_true(mb_score_reply(&task.items[i], task.items[i].reply, false).ica);
    mb_task_close(&task);
}

/* Opens 'text' with the first n questions of 'examples' before each; NULL: of itself. */
static enum mb_status open_with_examples(const char *text, const char *examples, size_t n, size_t limit,
                                         struct mb_task *task, struct mb_error *err)
{
    char *name = write_file(text, strlen(text));
    char *shown = examples != NULL ? write_file(examples, strlen(examples)) : NULL;
    struct mb_task_options options = {
        .size = sizeof options, .limit = limit, .n_examples = n, .examples = shown};
    enum mb_status status = mb_task_open(name, &options, task, err);
    unlink(name);
    if (shown != NULL)
        unlink(shown);
    free(name);
    free(shown);
    return status;
}

#define ASK(question, answer) \
    "{\"question\": \"" question "\", \"answer\": " answer ", \"format\": \"hash\"}\n"

static void questions_that_are_examples_are_not_asked(void **state)
{
    static const char text[] = ASK("A", "1") ASK("B", "2") ASK("C", "3") ASK("A", "1") ASK("D", "4");
    struct mb_task task;
    struct mb_error err;
    (void)state;
    assert_int_equal(open_with_examples(text, NULL, 2, 0, &task, &err), MB_OK);
    assert_true(task.n_items == 2 && task.n_examples == 2 && task.n_shown == 3);
    assert_string_equal(task.examples[0].question, "A");
    assert_string_equal(task.examples[1].reply, "#### 2");
    assert_string_equal(task.items[0].question, "C");
    assert_int_equal(task.items[1].line, 5);
    mb_task_close(&task);
    assert_int_equal(open_with_examples(text, NULL, 1, 2, &task, &err), MB_OK);
    assert_true(task.n_items == 2 && task.n_examples == 1 && task.n_shown == 1);
    mb_task_close(&task);
    assert_int_equal(open_with_examples(text, ASK("C", "3") ASK("E", "5"), 1, 0, &task, &err), MB_OK);
    assert_true(task.n_items == 4 && task.n_examples == 1 && task.n_shown == 1);
    assert_string_equal(task.examples[0].question, "C");
    mb_task_close(&task);
}

#define MMLU(subject, question)                                \
    "{\"subject\": \"" subject "\", \"question\": \"" question \
    "\", \"choices\": [\"a\", \"b\"], \"answer\": 1}\n"
#define ABOUT "The following are multiple choice questions (with answers) about "

/* One description, then the examples of its subject, an empty line after each. */
static void examples_of_choices_are_those_of_lm_evaluation_harness(void **state)
{
    struct mb_task task;
    struct mb_error err;
    (void)state;
    assert_int_equal(open_with_examples(MMLU("x", "Q1") MMLU("y", "Q2"),
                                        MMLU("x", "X1") MMLU("x", "X2") MMLU("y", "Y1"), 1, 0, &task, &err),
                     MB_OK);
    assert_string_equal(task.choices[0].contexts[1],
                        ABOUT "x.\n\nX1\nA. a\nB. b\nAnswer: B\n\nQ1\nA. a\nB. b\nAnswer:");
    assert_string_equal(task.choices[1].contexts[0],
                        ABOUT "y.\n\nY1\nA. a\nB. b\nAnswer: B\n\nQ2\nA. a\nB. b\nAnswer:");
    assert_string_equal(task.choices[1].continuations[0], " A");
    mb_task_close(&task);
    assert_int_equal(
        open_with_examples(
            "{\"sentence\": \"A _ is.\", \"option1\": \"b\", \"option2\": \"c\", \"answer\": \"2\"}\n"
            "{\"sentence\": \"D _ was. \", \"option1\": \"e\", \"option2\": \"f\", \"answer\": \"1\"}",
            NULL, 1, 0, &task, &err),
        MB_OK);
    assert_int_equal(task.n_choices, 1);
    assert_string_equal(task.choices[0].contexts[0], "A c is.\n\nD e");
    assert_string_equal(task.choices[0].contexts[1], "A c is.\n\nD f");
    mb_task_close(&task);
}

static void examples_that_do_not_do_are_refused(void **state)
{
    static const struct {
        const char *text, *examples;
        size_t n;
        const char *message;
    } bad[] = {
        {ASK("A", "1"), ASK("B", "1"), 2, ": 1 questions, and 2 are to be examples"},
        {ASK("A", "1") ASK("B", "1"), NULL, 2, ": its 2 questions are all examples"},
        {ASK("A", "1"), MMLU("x", "Q"), 1, "its examples are multiple choice, and the task's"},
        {MMLU("x", "Q"), ASK("A", "1"), 1, "its examples are answered in words, and the task's"},
        {MMLU("x", "Q"), MMLU("y", "Q"), 1, "0 examples of the subject for the question of line 1, and 1"},
        {ASK("A", "1"), ASK("B", "1") "nonsense\n", 1, "line 2: byte"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct mb_task task;
        struct mb_error err;
        assert_int_equal(open_with_examples(bad[i].text, bad[i].examples, bad[i].n, 0, &task, &err),
                         MB_BAD_DATA);
        if (strstr(err.msg, bad[i].message) == NULL || strstr(err.msg, "moebius-task-") == NULL)
            fail_msg("file %zu: '%s' does not say '%s'", i, err.msg, bad[i].message);
        assert_true(task.items == NULL && task.choices == NULL && task.examples == NULL);
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
    assert_int_equal(mb_task_open("/no/such/file.jsonl", NULL, &task, &err), MB_BAD_DATA);
    assert_int_equal(mb_task_open(MB_REPO, NULL, &task, &err), MB_BAD_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_questions_are_read),
        cmocka_unit_test(request_is_appended_without_format),
        cmocka_unit_test(limit_stops_before_bad_lines),
        cmocka_unit_test(bad_files_are_named_with_their_line),
        cmocka_unit_test(malformed_lines_are_left_out_and_counted),
        cmocka_unit_test(questions_of_every_form_are_read),
        cmocka_unit_test(prompts_of_choices_are_those_of_lm_evaluation_harness),
        cmocka_unit_test(the_reply_of_an_example_is_right_in_its_format),
        cmocka_unit_test(questions_that_are_examples_are_not_asked),
        cmocka_unit_test(examples_of_choices_are_those_of_lm_evaluation_harness),
        cmocka_unit_test(examples_that_do_not_do_are_refused),
        cmocka_unit_test(no_control_character_of_a_file_is_in_a_message),
        cmocka_unit_test(missing_files_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
