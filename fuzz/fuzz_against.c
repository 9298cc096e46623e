/*
 * fuzz_against.c - eval --against: another run's replies, JSON lines, beside a run of three questions.
 */
#include "eval_against.h"
#include "fuzz.h"
#include <stdlib.h>
#include <string.h>

enum { N = 3 };
static const char *const questions[N] = {"a", "b", "c"};

static const char *question_of(const struct mb_task *task, size_t index)
{
    (void)task;
    REQUIRE(index < N);
    return questions[index];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_file file;
    struct eval_against against = {.path = file.path};
    struct eval_marks marks = {.keys = {"ica", "pia"}, .names = {"ICA", "PIA"}};
    struct mb_task task = {0};
    struct mb_error err = {0};
    fuzz_file_set(&file, data, size, 0);
    REQUIRE(eval_marks_open(&marks, N, &err) == MB_OK);
    marks.rights[0][1] = marks.rights[1][2] = true;
    enum mb_status status = eval_against(&against, &marks, &task, question_of, &err);
    if (status == MB_OK) {
        for (size_t i = 0; i < EVAL_N_MEASURES; i++) {
            const struct mb_paired *pair = &against.pairs[i];
            REQUIRE(pair->n >= 1 && pair->n <= N && pair->n_better + pair->n_worse <= pair->n);
        }
        json_t *report = eval_against_json(&against, &marks);
        REQUIRE(report != NULL);
        json_decref(report);
    } else {
        REQUIRE(status == MB_BAD_DATA && strncmp(err.msg, file.path, strlen(file.path)) == 0);
    }
    eval_marks_close(&marks);
    return 0;
}
