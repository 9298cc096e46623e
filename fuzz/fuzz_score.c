/*
 * fuzz_score.c - any reply is scored in every format: a byte of the format, the wanted number, a newline, the
 * reply.
 */
#include "fuzz.h"
#include <moebius/lab.h>
#include <stdlib.h>
#include <string.h>

static char *terminated(struct fuzz_input part)
{
    char *text = malloc(part.n + 1);
    REQUIRE(text != NULL);
    if (part.n > 0)
        memcpy(text, part.p, part.n);
    text[part.n] = 0;
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct mb_task_item item = {.question = ""};
    item.format = (enum mb_answer_format)(fuzz_u8(&input) & 3);
    char *number = terminated(fuzz_until(&input, '\n')), *reply = terminated(input);
    item.number = number;
    struct mb_score score = mb_score_reply(&item, reply);
    REQUIRE(score.pia || !score.ica);
    free(number);
    free(reply);
    return 0;
}
