/*
 * test_published.c - DeepSeek-V3's and Qwen3's tokenizers against the `tokenizers` package.  They are too
 * large for the repository: without MOEBIUS_TEST_DATA (default ../shared/data) the test is skipped.
 */
#include "cmocka_all.h"
#include "goldens.h"
#include <stdio.h>
#include <unistd.h>

static char prose_path[600], paths[2][600];

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

int main(void)
{
    const char *folder = test_data_folder();
    snprintf(prose_path, sizeof prose_path, "%.500s/wikitext2/test.txt", folder);
    snprintf(paths[0], sizeof paths[0], "%.500s/tokenizers/deepseek_v3/tokenizer.json", folder);
    snprintf(paths[1], sizeof paths[1], "%.500s/tokenizers/qwen3/tokenizer.json", folder);
    const char *needed[] = {prose_path, paths[0], paths[1]};
    for (size_t i = 0; i < 3; i++)
        if (access(needed[i], R_OK) != 0) {
            printf("skipped: %s is not there (MOEBIUS_TEST_DATA names the folder)\n", needed[i]);
            return 77;
        }
    static const struct CMUnitTest tests[] = {cmocka_unit_test(deepseek_v3), cmocka_unit_test(qwen3)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
