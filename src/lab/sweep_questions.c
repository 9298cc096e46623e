/*
 * sweep_questions.c - reads the questions of a sweep, and notes which of them are not what they seem.
 */
#include "base/error.h"
#include "sweep_work.h"
#include <stdio.h>

enum { N_NAMED_MAX = 10 }; /* the rest is counted */

static void note(const struct mb_sweep_work *work, const char *text)
{
    if (work->options.note != NULL)
        work->options.note(work->options.ctx, text);
}

static const char *plural(size_t n)
{
    return n == 1 ? "" : "s";
}

/* ---------------------------------------------------------------- malformed lines */

struct naming {
    const struct mb_sweep_work *work;
    size_t n_named;
};

/* An mb_malformed_fn. */
static void name_malformed(void *ctx, const char *message)
{
    struct naming *naming = ctx;
    char text[sizeof(struct mb_error)];
    if (naming->n_named++ >= N_NAMED_MAX)
        return;
    snprintf(text, sizeof text, "left out: %s", message);
    note(naming->work, text);
}

enum mb_status mb_sweep_open_task(struct mb_sweep_work *work, struct mb_error *err)
{
    struct naming naming = {.work = work};
    char text[128];
    struct mb_task_options options = {.size = sizeof options,
                                      .limit = work->sweep->limit,
                                      .skips_malformed = !work->options.is_strict,
                                      .malformed = name_malformed,
                                      .malformed_ctx = &naming,
                                      .n_examples = work->sweep->n_examples,
                                      .examples = work->sweep->examples};
    MB_TRY(mb_task_open(work->sweep->task, &options, &work->task, err));
    size_t n_malformed = work->task.n_malformed, n = mb_sweep_n_questions(work);
    snprintf(text, sizeof text, "%zu malformed line%s left out, %zu question%s read (--strict stops instead)",
             n_malformed, plural(n_malformed), n, plural(n));
    if (n_malformed > 0)
        note(work, text);
    return MB_OK;
}

/* ---------------------------------------------------------------- questions without room */

static size_t line_of(const struct mb_task *task, size_t i)
{
    return i < task->n_items ? task->items[i].line : task->choices[i - task->n_items].line;
}

/* " 3, 17, ..." */
static size_t list_no_room(const struct mb_sweep_work *work, char *text, size_t nbytes)
{
    size_t n = 0, n_text = 0;
    text[0] = '\0';
    for (size_t i = 0; i < mb_sweep_n_questions(work); i++) {
        if (work->clean[i].dead != MB_DEAD_NO_ROOM || n++ > N_NAMED_MAX)
            continue;
        if (n > N_NAMED_MAX)
            n_text += (size_t)snprintf(text + n_text, nbytes - n_text, ", ...");
        else
            n_text += (size_t)snprintf(text + n_text, nbytes - n_text, "%s %zu", n == 1 ? "" : ",",
                                       line_of(&work->task, i));
    }
    return n;
}

void mb_sweep_note_no_room(const struct mb_sweep_work *work)
{
    char lines[320], text[480];
    size_t n = work->clean == NULL ? 0 : list_no_room(work, lines, sizeof lines);
    if (n == 0)
        return;
    snprintf(text, sizeof text,
             "%zu question%s not fit in the model's context of %zu tokens and %s as wrong: line%s", n,
             n == 1 ? " does" : "s do", (size_t)mb_model_info(work->model)->n_ctx_train,
             n == 1 ? "counts" : "count", lines);
    note(work, text);
}
