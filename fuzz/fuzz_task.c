/*
 * fuzz_task.c - task files: JSON lines or an array, in every form.
 */
#include "fuzz.h"
#include "json.h"
#include <moebius/lab.h>
#include <stdio.h>
#include <string.h>

struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    return fuzz_until(&input, '\n');
}

/* The answer itself is a right answer. */
static void look_at(const struct mb_task *task)
{
    REQUIRE((task->n_items > 0) != (task->n_choices > 0));
    for (size_t i = 0; i < task->n_items; i++) {
        char reply[4096];
        struct mb_task_item item = task->items[i];
        REQUIRE(item.question != NULL && item.answer != NULL && item.line > 0);
        if (strlen(item.answer) > 1000 || item.kind != MB_ANSWER_NUMBER)
            continue;
        snprintf(reply, sizeof reply, "#### %s", item.answer);
        REQUIRE(mb_score_reply(&item, reply, false).pia);
        snprintf(reply, sizeof reply, "it is \\boxed{%s}", item.answer);
        REQUIRE(mb_score_reply(&item, reply, false).pia);
    }
    for (size_t i = 0; i < task->n_choices; i++) {
        const struct mb_choice_item *item = &task->choices[i];
        REQUIRE(item->n_choices >= 2 && item->right < item->n_choices && item->line > 0);
        for (size_t k = 0; k < item->n_choices; k++)
            REQUIRE(item->contexts[k] != NULL && item->continuations[k][0] == ' ');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_file file;
    struct mb_task task;
    struct mb_error err = {0};
    fuzz_file_set(&file, data, size, 0);
    enum mb_status status = mb_task_open(file.path, NULL, &task, &err);
    if (status == MB_OK)
        look_at(&task);
    else
        REQUIRE(status == MB_BAD_DATA && strncmp(err.msg, file.path, strlen(file.path)) == 0);
    bool is_whole = status == MB_OK;
    mb_task_close(&task);
    struct mb_task_options options = {.size = sizeof options, .skips_malformed = true};
    status = mb_task_open(file.path, &options, &task, &err);
    REQUIRE(status == MB_OK || status == MB_BAD_DATA);
    REQUIRE(!is_whole || (status == MB_OK && task.n_malformed == 0));
    if (status == MB_OK)
        look_at(&task);
    mb_task_close(&task);
    options.n_examples = 2; /* of its own */
    status = mb_task_open(file.path, &options, &task, &err);
    REQUIRE(status == MB_OK || status == MB_BAD_DATA);
    if (status == MB_OK) {
        look_at(&task);
        REQUIRE(task.n_shown > 0 && (task.n_items == 0 || task.n_examples == 2));
    }
    mb_task_close(&task);
    return 0;
}
