/*
 * task.c - reads questions from a jsonl file in GSM8K form.
 */
#include "error.h"
#include "number.h"
#include <errno.h>
#include <jansson.h>
#include <moebius/lab.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* GSM8K's training part has 4 MB; a larger file than this is no task. */
enum { TASK_NBYTES_MAX = 1 << 30 };

static const char default_request[] = " End with #### and the answer.";
static const char *const format_names[] = {"hash", "boxed", "json", "plain"};

/* Where errors are: a line of a file. */
struct place {
    const char *path;
    size_t line;
};

static enum mb_status fail_no_memory(const char *path, struct mb_error *err)
{
    return mb_lab_fail(err, MB_NO_MEMORY, "%s: no memory for the questions", path);
}

static enum mb_status read_stream(FILE *file, const char *path, char **text, size_t *nbytes,
                                  struct mb_error *err)
{
    struct stat info;
    if (fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode))
        return mb_lab_fail(err, MB_BAD_DATA, "%s: not a file", path);
    if (info.st_size > TASK_NBYTES_MAX)
        return mb_lab_fail(err, MB_BAD_DATA, "%s: larger than %d bytes", path, TASK_NBYTES_MAX);
    *text = malloc((size_t)info.st_size + 1);
    if (*text == NULL)
        return fail_no_memory(path, err);
    *nbytes = fread(*text, 1, (size_t)info.st_size, file);
    (*text)[*nbytes] = '\0';
    if (ferror(file) == 0)
        return MB_OK;
    free(*text);
    *text = NULL;
    return mb_lab_fail(err, MB_IO, "%s: read: %s", path, strerror(errno));
}

static enum mb_status read_whole(const char *path, char **text, size_t *nbytes, struct mb_error *err)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return mb_lab_fail(err, errno == ENOENT || errno == ENOTDIR ? MB_BAD_DATA : MB_IO, "%s: open: %s",
                           path, strerror(errno));
    enum mb_status status = read_stream(file, path, text, nbytes, err);
    fclose(file);
    return status;
}

static enum mb_status read_format(const json_t *object, struct place place, struct mb_task_item *item,
                                  bool *is_given, struct mb_error *err)
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
    return mb_lab_fail(err, MB_BAD_DATA, "%s: line %zu: format is not one of hash, boxed, json, plain",
                       place.path, place.line);
}

static enum mb_status read_question(const json_t *object, struct place place, bool has_format,
                                    struct mb_task_item *item, struct mb_error *err)
{
    const char *question = json_string_value(json_object_get(object, "question"));
    if (question == NULL)
        return mb_lab_fail(err, MB_BAD_DATA, "%s: line %zu: no text 'question'", place.path, place.line);
    const char *request = has_format ? "" : default_request;
    char *text = malloc(strlen(question) + strlen(request) + 1);
    if (text == NULL)
        return fail_no_memory(place.path, err);
    strcpy(text, question); /* NOLINT(clang-analyzer-security.insecureAPI.strcpy): measured above */
    strcat(text, request);  /* NOLINT(clang-analyzer-security.insecureAPI.strcpy) */
    item->question = text;
    return MB_OK;
}

static const char *behind_last_hashes(const char *text)
{
    const char *found = NULL;
    for (const char *p = text; (p = strstr(p, "####")) != NULL; p++)
        found = p + 4;
    return found;
}

static enum mb_status read_answer(const json_t *object, struct place place, struct mb_task_item *item,
                                  struct mb_error *err)
{
    struct mb_lab_number number;
    const char *answer = json_string_value(json_object_get(object, "answer"));
    if (answer == NULL)
        return mb_lab_fail(err, MB_BAD_DATA, "%s: line %zu: no text 'answer'", place.path, place.line);
    const char *text = behind_last_hashes(answer);
    if (text == NULL || !mb_lab_number_only(text, text + strlen(text), &number))
        return mb_lab_fail(err, MB_BAD_DATA, "%s: line %zu: 'answer' does not end with #### and a number",
                           place.path, place.line);
    item->number = strdup(number.text);
    return item->number == NULL ? fail_no_memory(place.path, err) : MB_OK;
}

static void free_item(struct mb_task_item *item)
{
    free((char *)item->question);
    free((char *)item->number);
}

static enum mb_status read_item(const json_t *object, struct place place, struct mb_task_item *item,
                                struct mb_error *err)
{
    bool has_format;
    enum mb_status status = read_format(object, place, item, &has_format, err);
    if (status == MB_OK)
        status = read_question(object, place, has_format, item, err);
    if (status == MB_OK)
        status = read_answer(object, place, item, err);
    if (status != MB_OK)
        free_item(item);
    return status;
}

static enum mb_status add_line(struct mb_task *task, size_t *cap, const char *line, size_t nbytes,
                               struct place place, struct mb_error *err)
{
    if (task->n_items == *cap) {
        size_t new_cap = *cap == 0 ? 256 : 2 * *cap;
        struct mb_task_item *items = realloc(task->items, new_cap * sizeof *items);
        if (items == NULL)
            return fail_no_memory(place.path, err);
        task->items = items;
        *cap = new_cap;
    }
    json_error_t why;
    json_t *object = json_loadb(line, nbytes, 0, &why);
    if (object == NULL)
        return mb_lab_fail(err, MB_BAD_DATA, "%s: line %zu: column %d: %s", place.path, place.line,
                           why.column, why.text);
    struct mb_task_item item = {0};
    enum mb_status status = read_item(object, place, &item, err);
    json_decref(object);
    if (status == MB_OK)
        task->items[task->n_items++] = item;
    return status;
}

static bool is_blank(const char *line, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i++)
        if (!mb_lab_is_space(line[i]))
            return false;
    return true;
}

static enum mb_status read_lines(const char *path, const char *text, size_t nbytes, size_t limit,
                                 struct mb_task *task, struct mb_error *err)
{
    size_t cap = 0;
    struct place place = {path, 1};
    for (const char *line = text, *end = text + nbytes; line < end; place.line++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t line_nbytes = (size_t)((newline == NULL ? end : newline) - line);
        if (limit != 0 && task->n_items == limit)
            break;
        if (!is_blank(line, line_nbytes)) {
            enum mb_status status = add_line(task, &cap, line, line_nbytes, place, err);
            if (status != MB_OK)
                return status;
        }
        line += line_nbytes + 1;
    }
    return task->n_items > 0 ? MB_OK : mb_lab_fail(err, MB_BAD_DATA, "%s: no questions", path);
}

enum mb_status mb_task_open(const char *path, size_t limit, struct mb_task *task, struct mb_error *err)
{
    char *text = NULL;
    size_t nbytes = 0;
    *task = (struct mb_task){0};
    enum mb_status status = read_whole(path, &text, &nbytes, err);
    if (status != MB_OK)
        return status;
    status = read_lines(path, text, nbytes, limit, task, err);
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
