/*
 * task.c - reads files of questions: JSON lines, or one JSON array.
 */
#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "number.h"
#include "task_form.h"
#include <stdlib.h>
#include <string.h>

/* GSM8K's training part has 4 MB; a larger file than this is no task. */
enum { TASK_NBYTES_MAX = 1 << 30 };

/* The questions that are there, and the line (or element) that comes next. */
struct reading {
    const char *path;
    const struct mb_task_options *options;
    struct mb_task *task;
    const struct mb_task *examples; /* questions that are not asked */
    size_t items_cap, choices_cap, line;
    struct mb_error first; /* what was wrong with the first line that was left out */
};

static enum mb_status add_item(struct reading *r, const json_t *object, struct mb_error *err)
{
    struct mb_task_item item = {.line = r->line};
    void *items = r->task->items;
    if (!mb_grow(&items, &r->items_cap, r->task->n_items, 1, sizeof item))
        return mb_fail_memory(err, "the questions");
    r->task->items = items;
    enum mb_status status = mb_task_read_item(object, &item, err);
    if (status == MB_OK)
        r->task->items[r->task->n_items++] = item;
    else
        mb_task_free_item(&item);
    return status;
}

static enum mb_status add_choice(struct reading *r, const json_t *object, struct mb_error *err)
{
    struct mb_choice_item item = {.line = r->line};
    void *choices = r->task->choices;
    if (!mb_grow(&choices, &r->choices_cap, r->task->n_choices, 1, sizeof item))
        return mb_fail_memory(err, "the questions");
    r->task->choices = choices;
    enum mb_status status = mb_task_read_choice(object, &item, err);
    if (status == MB_OK)
        r->task->choices[r->task->n_choices++] = item;
    else
        mb_task_free_choice(&item);
    return status;
}

static enum mb_status add(struct reading *r, const json_t *object, struct mb_error *err)
{
    bool is_choice = mb_task_is_choice(object);
    if (is_choice ? r->task->n_items > 0 : r->task->n_choices > 0)
        return mb_fail(err, MB_BAD_DATA, "%s",
                       is_choice ? "multiple choice, where earlier questions are answered in words"
                                 : "no multiple choice, where earlier questions are");
    return is_choice ? add_choice(r, object, err) : add_item(r, object, err);
}

static void drop_last(struct mb_task *task)
{
    if (task->n_items > 0)
        mb_task_free_item(&task->items[--task->n_items]);
    else
        mb_task_free_choice(&task->choices[--task->n_choices]);
    task->n_shown++;
}

static enum mb_status add_unless_shown(struct reading *r, const json_t *object, struct mb_error *err)
{
    MB_TRY(add(r, object, err));
    if (mb_task_is_shown(r->task, r->examples))
        drop_last(r->task);
    return MB_OK;
}

/* A malformed line is an error, or is left out and counted. */
static enum mb_status judge(struct reading *r, enum mb_status status, const char *unit, struct mb_error *err)
{
    struct mb_error found;
    if (status == MB_OK)
        return MB_OK;
    status = mb_fail_in(err, status, "%s: %s %zu", r->path, unit, r->line);
    if (status != MB_BAD_DATA || !r->options->skips_malformed)
        return status;
    found = *err;
    if (r->task->n_malformed++ == 0)
        r->first = found;
    if (r->options->malformed != NULL)
        r->options->malformed(r->options->malformed_ctx, found.msg);
    return MB_OK;
}

static bool is_full(const struct reading *r)
{
    return r->options->limit != 0 && r->task->n_items + r->task->n_choices >= r->options->limit;
}

/* ---------------------------------------------------------------- lines and elements */

static bool is_blank(const char *line, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i++)
        if (!mb_lab_is_space(line[i]))
            return false;
    return true;
}

/* 'begin' is the line's position in the file. */
static enum mb_status read_line(struct reading *r, const char *line, size_t nbytes, size_t begin,
                                struct mb_error *err)
{
    json_t *object;
    MB_TRY(mb_json_parse(line, nbytes, begin, &object, err));
    enum mb_status status = add_unless_shown(r, object, err);
    json_decref(object);
    return status;
}

static enum mb_status read_lines(struct reading *r, const char *text, size_t nbytes, struct mb_error *err)
{
    for (const char *line = text, *end = text + nbytes; line < end && !is_full(r); r->line++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((newline == NULL ? end : newline) - line);
        if (!is_blank(line, n))
            MB_TRY(judge(r, read_line(r, line, n, (size_t)(line - text), err), "line", err));
        line += n + 1;
    }
    return MB_OK;
}

static enum mb_status read_elements(struct reading *r, const json_t *array, struct mb_error *err)
{
    for (size_t i = 0; i < json_array_size(array) && !is_full(r); i++, r->line++)
        MB_TRY(judge(r, add_unless_shown(r, json_array_get(array, i), err), "element", err));
    return MB_OK;
}

/* SVAMP's file is one array, over many lines. */
static bool begins_array(const char *text, size_t nbytes)
{
    size_t i = 0;
    while (i < nbytes && mb_lab_is_space(text[i]))
        i++;
    return i < nbytes && text[i] == '[';
}

static enum mb_status read_text(struct reading *r, const char *text, size_t nbytes, struct mb_error *err)
{
    json_t *array;
    if (!begins_array(text, nbytes))
        return read_lines(r, text, nbytes, err);
    enum mb_status status = mb_json_parse(text, nbytes, 0, &array, err);
    if (status != MB_OK)
        return mb_fail_in(err, status, "%s", r->path);
    status = read_elements(r, array, err);
    json_decref(array);
    return status;
}

static enum mb_status read_task(struct reading *r, const char *text, size_t nbytes, struct mb_error *err)
{
    MB_TRY(read_text(r, text, nbytes, err));
    if (r->task->n_items + r->task->n_choices > 0)
        return MB_OK;
    if (r->task->n_shown > 0)
        return mb_fail(err, MB_BAD_DATA, "%s: its %zu questions are all examples, and none is left to ask",
                       r->path, r->task->n_shown);
    if (r->task->n_malformed > 0)
        return mb_pass_on(err, MB_BAD_DATA, &r->first);
    return mb_fail(err, MB_BAD_DATA, "%s: no questions", r->path);
}

static enum mb_status read_file(struct reading *r, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    *r->task = (struct mb_task){0};
    MB_TRY(mb_read_file(r->path, TASK_NBYTES_MAX, &text, &nbytes, err));
    enum mb_status status = read_task(r, text, nbytes, err);
    free(text);
    if (status != MB_OK)
        mb_task_close(r->task);
    return status;
}

/* Malformed lines of the task's own file are reported when its questions are read. */
static enum mb_status read_examples(const struct reading *r, struct mb_task *examples, struct mb_error *err)
{
    static const struct mb_task none = {0};
    const char *own = r->options->examples;
    struct mb_task_options options = {.skips_malformed = own == NULL && r->options->skips_malformed};
    struct reading reading = {.path = own != NULL ? own : r->path,
                              .options = &options,
                              .task = examples,
                              .examples = &none,
                              .line = 1};
    MB_TRY(read_file(&reading, err));
    mb_task_keep_first(examples, r->options->n_examples);
    return MB_OK;
}

static enum mb_status read_with_examples(struct reading *r, struct mb_task *examples, struct mb_error *err)
{
    size_t n = r->options->n_examples;
    if (n > 0)
        MB_TRY(read_examples(r, examples, err));
    r->examples = examples;
    MB_TRY(read_file(r, err));
    if (n == 0)
        return MB_OK;
    enum mb_status status = mb_task_show(r->task, examples, n,
                                         r->options->examples != NULL ? r->options->examples : r->path, err);
    if (status != MB_OK)
        mb_task_close(r->task);
    return status;
}

enum mb_status mb_task_open(const char *path, const struct mb_task_options *options, struct mb_task *task,
                            struct mb_error *err)
{
    struct mb_error ours;
    struct mb_task_options chosen;
    struct mb_task examples = {0};
    struct reading r = {.path = path, .options = &chosen, .task = task, .line = 1};
    err = err != NULL ? err : &ours;
    *task = (struct mb_task){0};
    MB_TRY(MB_OPTIONS_TAKE(chosen, options, err));
    enum mb_status status = read_with_examples(&r, &examples, err);
    mb_task_close(&examples);
    return status;
}

void mb_task_close(struct mb_task *task)
{
    for (size_t i = 0; i < task->n_items; i++)
        mb_task_free_item(&task->items[i]);
    for (size_t i = 0; i < task->n_choices; i++)
        mb_task_free_choice(&task->choices[i]);
    for (size_t i = 0; i < task->n_examples; i++) {
        free((char *)task->examples[i].question);
        free((char *)task->examples[i].reply);
    }
    free(task->items);
    free(task->choices);
    free(task->examples);
    *task = (struct mb_task){0};
}
