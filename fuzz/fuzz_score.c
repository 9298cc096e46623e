/*
 * fuzz_score.c - any reply is scored in every format: a byte of the format and of the answer's kind, the
 * wanted answer, a newline, the reply.
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
    uint8_t kinds = fuzz_u8(&input);
    item.format = (enum mb_answer_format)((kinds & 3) + ((kinds & 12) == 12)); /* up to MB_ANSWER_MATH */
    item.kind = (enum mb_answer_kind)((kinds >> 4) % 3);
    char *answer = terminated(fuzz_until(&input, '\n')), *reply = terminated(input);
    item.answer = answer;
    struct mb_score score = mb_score_reply(&item, reply, (kinds & 128) != 0);
    REQUIRE(score.pia || !score.ica);
    REQUIRE(score.dead == MB_ALIVE || !score.pia);
    REQUIRE(mb_math_equal(answer, answer) && mb_math_equal(answer, reply) == mb_math_equal(reply, answer));
    free(answer);
    free(reply);
    return 0;
}
