/*
 * task_examples.c - questions with their answers, shown before each question of a task.
 */
#include "base/buf.h"
#include "base/error.h"
#include "task_form.h"
#include <stdlib.h>
#include <string.h>

/* Choices share their examples with those of the same header alone: MMLU's of a subject. */
static bool same_header(const struct mb_choice_item *a, const struct mb_choice_item *b)
{
    return a->n_header == b->n_header && memcmp(a->contexts[0], b->contexts[0], a->n_header) == 0;
}

static size_t count_same(const struct mb_task *task, size_t n_choices, const struct mb_choice_item *item)
{
    size_t n = 0;
    for (size_t i = 0; i < n_choices; i++)
        n += same_header(&task->choices[i], item);
    return n;
}

void mb_task_keep_first(struct mb_task *from, size_t n)
{
    size_t n_kept = 0;
    while (from->n_items > n)
        mb_task_free_item(&from->items[--from->n_items]);
    for (size_t i = 0; i < from->n_choices; i++) {
        struct mb_choice_item item = from->choices[i];
        if (count_same(from, n_kept, &item) < n)
            from->choices[n_kept++] = item;
        else
            mb_task_free_choice(&item);
    }
    from->n_choices = n_kept;
}

static bool same_choice(const struct mb_choice_item *a, const struct mb_choice_item *b)
{
    bool is_same = a->n_choices == b->n_choices;
    for (size_t i = 0; is_same && i < a->n_choices; i++)
        is_same = strcmp(a->contexts[i], b->contexts[i]) == 0 &&
                  strcmp(a->continuations[i], b->continuations[i]) == 0;
    return is_same;
}

bool mb_task_is_shown(const struct mb_task *task, const struct mb_task *examples)
{
    for (size_t i = 0; task->n_items > 0 && i < examples->n_items; i++)
        if (strcmp(task->items[task->n_items - 1].question, examples->items[i].question) == 0)
            return true;
    for (size_t i = 0; task->n_choices > 0 && i < examples->n_choices; i++)
        if (same_choice(&task->choices[task->n_choices - 1], &examples->choices[i]))
            return true;
    return false;
}

/* ---------------------------------------------------------------- replies */

static enum mb_status show_turns(struct mb_task *task, const struct mb_task *examples, struct mb_error *err)
{
    task->examples = calloc(examples->n_items, sizeof *task->examples);
    if (task->examples == NULL)
        return mb_fail_memory(err, "the examples");
    for (size_t i = 0; i < examples->n_items; i++) {
        struct mb_task_example *example = &task->examples[task->n_examples++];
        example->question = strdup(examples->items[i].question);
        example->reply = strdup(examples->items[i].reply);
        if (example->question == NULL || example->reply == NULL)
            return mb_fail_memory(err, "the examples");
    }
    return MB_OK;
}

struct mb_chat_message *mb_task_turns(const struct mb_task *task, size_t *n_turns)
{
    *n_turns = 2 * task->n_examples + 1;
    struct mb_chat_message *turns = calloc(*n_turns, sizeof *turns);
    for (size_t i = 0; turns != NULL && i < task->n_examples; i++) {
        turns[2 * i] = (struct mb_chat_message){"user", task->examples[i].question};
        turns[2 * i + 1] = (struct mb_chat_message){"assistant", task->examples[i].reply};
    }
    return turns;
}

/* ---------------------------------------------------------------- choices */

static bool put(struct mb_bytes *text, const char *part)
{
    return mb_bytes_put(text, part, strlen(part));
}

/* Each example as it is asked, with its right choice; an empty line after it. */
static bool put_examples(struct mb_bytes *text, const struct mb_task *examples,
                         const struct mb_choice_item *item)
{
    bool ok = true;
    for (size_t i = 0; ok && i < examples->n_choices; i++) {
        const struct mb_choice_item *example = &examples->choices[i];
        if (same_header(example, item))
            ok = put(text, example->contexts[example->right] + example->n_header) &&
                 put(text, example->continuations[example->right]) && put(text, "\n\n");
    }
    return ok;
}

static enum mb_status show_before(struct mb_choice_item *item, const struct mb_task *examples,
                                  struct mb_error *err)
{
    struct mb_bytes shown = {0};
    bool ok = put_examples(&shown, examples, item);
    for (size_t i = 0; ok && i < item->n_choices; i++) {
        struct mb_bytes text = {0};
        const char *context = item->contexts[i];
        ok = mb_bytes_put(&text, context, item->n_header) && mb_bytes_put(&text, shown.p, shown.n) &&
             mb_bytes_put(&text, context + item->n_header, strlen(context + item->n_header) + 1);
        if (ok) {
            free(item->contexts[i]);
            item->contexts[i] = text.p;
        } else {
            free(text.p);
        }
    }
    free(shown.p);
    return ok ? MB_OK : mb_fail_memory(err, "the examples");
}

enum mb_status mb_task_show(struct mb_task *task, const struct mb_task *examples, size_t n, const char *path,
                            struct mb_error *err)
{
    if ((task->n_items > 0) != (examples->n_items > 0))
        return mb_fail(err, MB_BAD_DATA, "%s: %s, and the task's questions are %s", path,
                       task->n_items > 0 ? "its examples are multiple choice"
                                         : "its examples are answered in words",
                       task->n_items > 0 ? "answered in words" : "multiple choice");
    if (task->n_items > 0 && examples->n_items < n)
        return mb_fail(err, MB_BAD_DATA, "%s: %zu questions, and %zu are to be examples", path,
                       examples->n_items, n);
    for (size_t i = 0; i < task->n_choices; i++) {
        struct mb_choice_item *item = &task->choices[i];
        size_t n_same = count_same(examples, examples->n_choices, item);
        if (n_same < n)
            return mb_fail(err, MB_BAD_DATA,
                           "%s: %zu examples%s for the question of line %zu, and %zu are wanted", path,
                           n_same, item->n_header > 0 ? " of the subject" : "", item->line, n);
        MB_TRY(show_before(item, examples, err));
    }
    return task->n_items > 0 ? show_turns(task, examples, err) : MB_OK;
}
