/*
 * task_item.c - questions that are answered in words: GSM8K, MATH, SVAMP, or any question with its answer.
 */
#include "base/buf.h"
#include "base/error.h"
#include "base/number.h"
#include "math_answer.h"
#include "number.h"
#include "task_form.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char hash_request[] = " End with #### and the answer.";
static const char math_request[] = " Put the final answer in \\boxed{}.";

static const char *const format_names[] = {"hash", "boxed", "json", "plain", "math"};
enum { N_FORMATS = sizeof format_names / sizeof *format_names };

const char *mb_answer_format_name(enum mb_answer_format format)
{
    return (size_t)format < N_FORMATS ? format_names[format] : "";
}

/* *text: the texts put together. */
static enum mb_status join(const char *const *parts, size_t n, const char **text, struct mb_error *err)
{
    struct mb_bytes bytes = {0};
    for (size_t i = 0; i < n; i++)
        if (!mb_bytes_put(&bytes, parts[i], strlen(parts[i]))) {
            free(bytes.p);
            return mb_fail_memory(err, "the questions");
        }
    if (!mb_bytes_put(&bytes, "", 1)) {
        free(bytes.p);
        return mb_fail_memory(err, "the questions");
    }
    *text = bytes.p;
    return MB_OK;
}

static enum mb_status keep_answer(const char *begin, size_t n, enum mb_answer_kind kind,
                                  struct mb_task_item *item, struct mb_error *err)
{
    item->answer = strndup(begin, n);
    item->kind = kind;
    return item->answer == NULL ? mb_fail_memory(err, "the answers") : MB_OK;
}

static enum mb_status read_format(const json_t *object, struct mb_task_item *item, bool *is_given,
                                  struct mb_error *err)
{
    const json_t *value = json_object_get(object, "format");
    *is_given = value != NULL && !json_is_null(value);
    if (!*is_given)
        return MB_OK;
    const char *name = json_string_value(value);
    for (size_t i = 0; name != NULL && i < N_FORMATS; i++)
        if (strcmp(name, format_names[i]) == 0) {
            item->format = (enum mb_answer_format)i;
            return MB_OK;
        }
    return mb_fail(err, MB_BAD_DATA, "format is not one of hash, boxed, json, plain, math");
}

/* ---------------------------------------------------------------- the right reply */

/* The answer in the format that the question asks for. */
static enum mb_status in_format(const struct mb_task_item *item, const char **text, struct mb_error *err)
{
    const char *answer = item->answer;
    const char *forms[][3] = {
        [MB_ANSWER_HASH] = {"#### ", answer, ""},          [MB_ANSWER_BOXED] = {"\\boxed{", answer, "}"},
        [MB_ANSWER_JSON] = {"{\"answer\": ", answer, "}"}, [MB_ANSWER_PLAIN] = {"Answer: ", answer, ""},
        [MB_ANSWER_MATH] = {"\\boxed{", answer, "}"},
    };
    char *quoted = NULL;
    if (item->format == MB_ANSWER_JSON && item->kind != MB_ANSWER_NUMBER) {
        json_t *value = json_string(answer);
        quoted = mb_json_text(value, JSON_ENCODE_ANY, NULL);
        json_decref(value);
        if (quoted == NULL)
            return mb_fail_memory(err, "the answers");
        forms[MB_ANSWER_JSON][1] = quoted;
    }
    enum mb_status status = join(forms[item->format], 3, text, err);
    free(quoted);
    return status;
}

/* The first n bytes of 'work', how the answer is found, and the answer in its format on a line of its own. */
static enum mb_status set_reply(struct mb_task_item *item, const char *work, size_t n, struct mb_error *err)
{
    const char *last;
    while (n > 0 && mb_lab_is_space(work[n - 1]))
        n--;
    MB_TRY(in_format(item, &last, err));
    char *before = strndup(work, n);
    const char *parts[] = {before, n > 0 ? "\n" : "", last};
    enum mb_status status =
        before != NULL ? join(parts, 3, &item->reply, err) : mb_fail_memory(err, "the answers");
    free(before);
    free((char *)last);
    return status;
}

static enum mb_status copy_reply(struct mb_task_item *item, const char *text, struct mb_error *err)
{
    return join(&text, 1, &item->reply, err);
}

/* ---------------------------------------------------------------- question, answer */

static const char *after_last_hashes(const char *text)
{
    const char *found = NULL;
    for (const char *p = text; (p = strstr(p, "####")) != NULL; p++)
        found = p + 4;
    return found;
}

/* The text without white space around it. */
static const char *trim(const char *text, size_t *n)
{
    const char *end = text + strlen(text);
    text = mb_lab_skip_space(text, end);
    while (end > text && mb_lab_is_space(end[-1]))
        end--;
    *n = (size_t)(end - text);
    return text;
}

/* Of format math: what is in the text's box, or the text itself. */
static enum mb_status read_latex(const char *text, struct mb_task_item *item, struct mb_error *err)
{
    struct mb_lab_span box;
    size_t n;
    if (mb_lab_last_box(text, &box)) {
        MB_TRY(keep_answer(box.begin, (size_t)(box.end - box.begin), MB_ANSWER_LATEX, item, err));
        return copy_reply(item, text, err);
    }
    text = trim(text, &n);
    if (n == 0)
        return mb_fail(err, MB_BAD_DATA, "'answer' is empty");
    MB_TRY(keep_answer(text, n, MB_ANSWER_LATEX, item, err));
    return set_reply(item, "", 0, err);
}

/* What follows the last ####, or all of the answer: a number where it is one, else a text. */
static enum mb_status read_words(const char *answer, struct mb_task_item *item, struct mb_error *err)
{
    struct mb_lab_number number;
    size_t n;
    const char *after = after_last_hashes(answer), *text = trim(after != NULL ? after : answer, &n);
    if (n == 0)
        return mb_fail(err, MB_BAD_DATA,
                       after != NULL ? "'answer' has nothing after its last ####" : "'answer' is empty");
    if (mb_lab_number_only(text, text + n, &number))
        MB_TRY(keep_answer(number.text, strlen(number.text), MB_ANSWER_NUMBER, item, err));
    else
        MB_TRY(keep_answer(text, n, MB_ANSWER_TEXT, item, err));
    return set_reply(item, answer, after != NULL ? (size_t)(after - answer) - strlen("####") : 0, err);
}

static enum mb_status read_json_number(const json_t *value, const char *key, struct mb_task_item *item,
                                       struct mb_error *err)
{
    char text[64];
    struct mb_lab_number number;
    if (json_is_integer(value))
        snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else
        mb_number_format(text, sizeof text, "%.15g", json_real_value(value));
    if (!mb_lab_number_only(text, text + strlen(text), &number))
        return mb_fail(err, MB_BAD_DATA, "'%s' is a number that is too large or too small", key);
    MB_TRY(keep_answer(number.text, strlen(number.text), MB_ANSWER_NUMBER, item, err));
    return set_reply(item, "", 0, err);
}

static enum mb_status read_answer(const json_t *object, const char *key, struct mb_task_item *item,
                                  struct mb_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (json_is_number(value))
        return read_json_number(value, key, item, err);
    if (!json_is_string(value))
        return mb_fail(err, MB_BAD_DATA, "no text or number '%s'", key);
    return item->format == MB_ANSWER_MATH ? read_latex(json_string_value(value), item, err)
                                          : read_words(json_string_value(value), item, err);
}

static enum mb_status read_plain(const json_t *object, struct mb_task_item *item, struct mb_error *err)
{
    bool has_format;
    MB_TRY(read_format(object, item, &has_format, err));
    const char *question = json_string_value(json_object_get(object, "question"));
    if (question == NULL)
        return mb_fail(err, MB_BAD_DATA, "no text 'question'");
    const char *parts[] = {question, has_format ? "" : hash_request};
    MB_TRY(join(parts, 2, &item->question, err));
    return read_answer(object, "answer", item, err);
}

/* ---------------------------------------------------------------- MATH */

static enum mb_status read_math(const json_t *object, struct mb_task_item *item, struct mb_error *err)
{
    struct mb_lab_span box;
    const char *problem = json_string_value(json_object_get(object, "problem"));
    const char *solution = json_string_value(json_object_get(object, "solution"));
    if (problem == NULL || solution == NULL)
        return mb_fail(err, MB_BAD_DATA, "no text '%s'", problem == NULL ? "problem" : "solution");
    if (!mb_lab_last_box(solution, &box))
        return mb_fail(err, MB_BAD_DATA, "'solution' has no \\boxed{} with an answer");
    const char *parts[] = {problem, math_request};
    item->format = MB_ANSWER_MATH;
    MB_TRY(join(parts, 2, &item->question, err));
    MB_TRY(keep_answer(box.begin, (size_t)(box.end - box.begin), MB_ANSWER_LATEX, item, err));
    return copy_reply(item, solution, err);
}

/* ---------------------------------------------------------------- SVAMP */

static enum mb_status read_svamp(const json_t *object, struct mb_task_item *item, struct mb_error *err)
{
    const char *body = json_string_value(json_object_get(object, "Body"));
    const char *question = json_string_value(json_object_get(object, "Question"));
    if (body == NULL || question == NULL)
        return mb_fail(err, MB_BAD_DATA, "no text '%s'", body == NULL ? "Body" : "Question");
    size_t n;
    const char *text = trim(body, &n);
    /* Many bodies end without their full stop. */
    const char *between = n > 0 && strchr(".!?", text[n - 1]) == NULL ? ". " : " ";
    const char *parts[] = {body, between, question, hash_request};
    MB_TRY(join(parts, 4, &item->question, err));
    return read_answer(object, "Answer", item, err);
}

enum mb_status mb_task_read_item(const json_t *object, struct mb_task_item *item, struct mb_error *err)
{
    if (json_object_get(object, "Body") != NULL)
        return read_svamp(object, item, err);
    if (json_object_get(object, "problem") != NULL)
        return read_math(object, item, err);
    return read_plain(object, item, err);
}

void mb_task_free_item(struct mb_task_item *item)
{
    free((char *)item->question);
    free((char *)item->answer);
    free((char *)item->reply);
}
