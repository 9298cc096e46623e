/*
 * test_published.c - DeepSeek-V3's and Qwen3's tokenizers against the `tokenizers` package, and o200k's ranks
 * as Kimi's against `tiktoken`.  They are too large for the repository: without MOEBIUS_TEST_DATA (default
 * ../shared/data) the test is skipped.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "goldens.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char prose_path[600], paths[3][600];

static void deepseek_v3(void **state)
{
    (void)state;
    check_goldens("deepseek_v3", paths[0], prose_path);
}

static void qwen3(void **state)
{
    (void)state;
    check_goldens("qwen3", paths[1], prose_path);
}

/* The ranks with a configuration like Kimi's beside them. */
static void o200k_as_kimi(void **state)
{
    (void)state;
    size_t nbytes;
    uint8_t *config = test_read(TOKENIZER_DATA "/kimi_o200k/tokenizer_config.json", &nbytes);
    test_write(test_path("tokenizer_config.json"), config, nbytes);
    free(config);
    assert_int_equal(symlink(paths[2], test_path("tiktoken.model")), 0);
    check_goldens("kimi_o200k", test_path("."), prose_path);
}

int main(void)
{
    const char *folder = test_data_folder();
    snprintf(prose_path, sizeof prose_path, "%.500s/wikitext2/test.txt", folder);
    snprintf(paths[0], sizeof paths[0], "%.500s/tokenizers/deepseek_v3/tokenizer.json", folder);
    snprintf(paths[1], sizeof paths[1], "%.500s/tokenizers/qwen3/tokenizer.json", folder);
    snprintf(paths[2], sizeof paths[2], "%.500s/tokenizers/o200k_base/o200k_base.tiktoken", folder);
    const char *needed[] = {prose_path, paths[0], paths[1], paths[2]};
    for (size_t i = 0; i < 4; i++)
        if (access(needed[i], R_OK) != 0) {
            printf("skipped: %s is not there (MOEBIUS_TEST_DATA names the folder)\n", needed[i]);
            return 77;
        }
    static const struct CMUnitTest tests[] = {cmocka_unit_test(deepseek_v3), cmocka_unit_test(qwen3),
                                              cmocka_unit_test(o200k_as_kimi)};
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
