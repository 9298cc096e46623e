/*
 * task.c - reads questions from a jsonl file in GSM8K form.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "number.h"
#include <moebius/lab.h>
#include <stdlib.h>
#include <string.h>

/* GSM8K's training part has 4 MB; a larger file than this is no task. */
enum { TASK_NBYTES_MAX = 1 << 30 };

static const char default_request[] = " End with #### and the answer.";
static const char *const format_names[] = {"hash", "boxed", "json", "plain"};

static enum mb_status read_format(const json_t *object, struct mb_task_item *item, bool *is_given,
                                  struct mb_error *err)
{
    const json_t *value = json_object_get(object, "format");
    *is_given = value != NULL && !json_is_null(value);
    item->format = MB_ANSWER_HASH;
    if (!*is_given)
        return MB_OK;
    const char *name = json_string_value(value);
    for (size_t i = 0; name != NULL && i < sizeof format_names / sizeof *format_names; i++)
        if (strcmp(name, format_names[i]) == 0) {
            item->format = (enum mb_answer_format)i;
            return MB_OK;
        }
    return mb_fail(err, MB_BAD_DATA, "format is not one of hash, boxed, json, plain");
}

static enum mb_status read_question(const json_t *object, bool has_format, struct mb_task_item *item,
                                    struct mb_error *err)
{
    const char *question = json_string_value(json_object_get(object, "question"));
    if (question == NULL)
        return mb_fail(err, MB_BAD_DATA, "no text 'question'");
    const char *request = has_format ? "" : default_request;
    char *text = malloc(strlen(question) + strlen(request) + 1);
    if (text == NULL)
        return mb_fail_memory(err, "the questions");
    strcpy(text, question); /* NOLINT(clang-analyzer-security.insecureAPI.strcpy): measured above */
    strcat(text, request);  /* NOLINT(clang-analyzer-security.insecureAPI.strcpy) */
    item->question = text;
    return MB_OK;
}

static const char *after_last_hashes(const char *text)
{
    const char *found = NULL;
    for (const char *p = text; (p = strstr(p, "####")) != NULL; p++)
        found = p + 4;
    return found;
}

static enum mb_status read_answer(const json_t *object, struct mb_task_item *item, struct mb_error *err)
{
    struct mb_lab_number number;
    const char *answer = json_string_value(json_object_get(object, "answer"));
    if (answer == NULL)
        return mb_fail(err, MB_BAD_DATA, "no text 'answer'");
    const char *text = after_last_hashes(answer);
    if (text == NULL || !mb_lab_number_only(text, text + strlen(text), &number))
        return mb_fail(err, MB_BAD_DATA, "'answer' does not end with #### and a number");
    item->number = strdup(number.text);
    return item->number == NULL ? mb_fail_memory(err, "the answers") : MB_OK;
}

static void free_item(struct mb_task_item *item)
{
    free((char *)item->question);
    free((char *)item->number);
}

static enum mb_status read_item(const json_t *object, struct mb_task_item *item, struct mb_error *err)
{
    bool has_format;
    MB_TRY(read_format(object, item, &has_format, err));
    MB_TRY(read_question(object, has_format, item, err));
    return read_answer(object, item, err);
}

/* The items that are there, and the line that comes next. */
struct reading {
    struct mb_task *task;
    size_t cap, line;
};

static enum mb_status reserve(struct reading *r, struct mb_error *err)
{
    if (r->task->n_items < r->cap)
        return MB_OK;
    size_t cap = r->cap == 0 ? 256 : 2 * r->cap;
    struct mb_task_item *items = realloc(r->task->items, cap * sizeof *items);
    if (items == NULL)
        return mb_fail_memory(err, "the questions");
    r->task->items = items;
    r->cap = cap;
    return MB_OK;
}

/* 'begin' is the line's position in the file. */
static enum mb_status read_line(struct reading *r, const char *line, size_t nbytes, size_t begin,
                                struct mb_error *err)
{
    json_t *object;
    struct mb_task_item item = {0};
    MB_TRY(reserve(r, err));
    MB_TRY(mb_json_parse(line, nbytes, begin, &object, err));
    enum mb_status status = read_item(object, &item, err);
    json_decref(object);
    if (status == MB_OK)
        r->task->items[r->task->n_items++] = item;
    else
        free_item(&item);
    return status;
}

static bool is_blank(const char *line, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i++)
        if (!mb_lab_is_space(line[i]))
            return false;
    return true;
}

/* After a failure r->line is the line that is wrong. */
static enum mb_status read_lines(struct reading *r, const char *text, size_t nbytes, size_t limit,
                                 struct mb_error *err)
{
    for (const char *line = text, *end = text + nbytes; line < end; r->line++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((newline == NULL ? end : newline) - line);
        if (limit != 0 && r->task->n_items == limit)
            return MB_OK;
        if (!is_blank(line, n))
            MB_TRY(read_line(r, line, n, (size_t)(line - text), err));
        line += n + 1;
    }
    return MB_OK;
}

static enum mb_status read_task(const char *path, const char *text, size_t nbytes, size_t limit,
                                struct mb_task *task, struct mb_error *err)
{
    struct reading r = {.task = task, .line = 1};
    enum mb_status status = read_lines(&r, text, nbytes, limit, err);
    if (status != MB_OK)
        return mb_fail_in(err, status, "%s: line %zu", path, r.line);
    return task->n_items > 0 ? MB_OK : mb_fail(err, MB_BAD_DATA, "%s: no questions", path);
}

enum mb_status mb_task_open(const char *path, size_t limit, struct mb_task *task, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    *task = (struct mb_task){0};
    MB_TRY(mb_read_file(path, TASK_NBYTES_MAX, &text, &nbytes, err));
    enum mb_status status = read_task(path, text, nbytes, limit, task, err);
    free(text);
    if (status != MB_OK)
        mb_task_close(task);
    return status;
}

void mb_task_close(struct mb_task *task)
{
    for (size_t i = 0; i < task->n_items; i++)
        free_item(&task->items[i]);
    free(task->items);
    *task = (struct mb_task){0};
}
