/*
 * fuzz_task.c - task files: jsonl in GSM8K form.
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_file file;
    struct mb_task task;
    struct mb_error err = {0};
    fuzz_file_set(&file, data, size, 0);
    enum mb_status status = mb_task_open(file.path, 0, &task, &err);
    if (status != MB_OK) {
        REQUIRE(status == MB_BAD_DATA && strncmp(err.msg, file.path, strlen(file.path)) == 0);
        return 0;
    }
    REQUIRE(task.n_items > 0);
    for (size_t i = 0; i < task.n_items; i++) {
        /* The number itself is a right answer in every form of it. */
        char reply[4096];
        REQUIRE(task.items[i].question != NULL && task.items[i].number != NULL);
        if (strlen(task.items[i].number) > 1000)
            continue;
        snprintf(reply, sizeof reply, "#### %s", task.items[i].number);
        REQUIRE(mb_score_reply(&task.items[i], reply).pia);
        snprintf(reply, sizeof reply, "it is \\boxed{%s}", task.items[i].number);
        REQUIRE(mb_score_reply(&task.items[i], reply).pia);
    }
    mb_task_close(&task);
    return 0;
}
