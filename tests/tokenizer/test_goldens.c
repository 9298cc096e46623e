/*
 * test_goldens.c - the reference model's tokenizer, and small ones with other pipelines, against the
 * `tokenizers` package.
 */
#include "cmocka_all.h"
#include "goldens.h"
#include <stdio.h>

static void reference(void **state)
{
    (void)state;
    check_goldens("reference", MB_REPO "/models/reference/tokenizer.json",
                  MB_REPO "/models/reference/eval.jsonl");
}

static void small(void **state)
{
    char path[512];
    snprintf(path, sizeof path, TOKENIZER_DATA "/small/%s.json", (const char *)*state);
    check_goldens(*state, path, NULL);
}

int main(void)
{
    static char names[][16] = {"gpt2", "llama", "metaspace", "unknown", "neox", "llama3", "splits"};
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference),
        {"gpt2", small, NULL, NULL, names[0]},
        {"llama", small, NULL, NULL, names[1]},
        {"metaspace", small, NULL, NULL, names[2]},
        {"unknown", small, NULL, NULL, names[3]},
        {"neox", small, NULL, NULL, names[4]},
        {"llama3", small, NULL, NULL, names[5]},
        {"splits", small, NULL, NULL, names[6]},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
