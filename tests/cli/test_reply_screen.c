/*
 * test_reply_screen.c - what a reply shows on a terminal: thinking dim, wherever its marks are cut.
 */
#include "../../cli/reply_screen.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Shows a text in pieces of n_piece bytes, after a prompt; compares what comes to standard output. */
static void assert_shown(const char *prompt, const char *text, bool is_dim_shown, const char *expected,
                         size_t n_piece)
{
    struct cli_reply_screen screen;
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    assert_true(kept >= 0 && freopen(test_path("shown.txt"), "w", stdout) != NULL);
    cli_reply_screen_begin(&screen, prompt);
    screen.is_dim_shown = is_dim_shown;
    for (size_t i = 0; i < strlen(text); i += n_piece)
        cli_reply_screen_add(&screen, text + i, strlen(text) - i < n_piece ? strlen(text) - i : n_piece);
    cli_reply_screen_end(&screen);
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    size_t nbytes;
    char *shown = (char *)test_read(test_path("shown.txt"), &nbytes);
    if (nbytes != strlen(expected) || memcmp(shown, expected, nbytes) != 0)
        fail_msg("pieces of %zu: '%.*s', expected '%s'", n_piece, (int)nbytes, shown, expected);
    free(shown);
}

static void thinking_is_dim_wherever_it_is_cut(void **state)
{
    (void)state;
    for (size_t n_piece = 1; n_piece < 20; n_piece++) {
        assert_shown("", "a<<think>b</thin</think>c", true, "a<\033[2m<think>b</thin</think>\033[22mc\n",
                     n_piece);
        assert_shown("", "a<think>b</think>c\n", false, "a<think>b</think>c\n", n_piece);
        assert_shown("<think>\n", "b</think>c<thi", false, "b</think>c<thi\n", n_piece);
        assert_shown("", "[THINK]b", true, "\033[2m[THINK]b\033[22m\n", n_piece);
        assert_shown("", "<think>[/THINK]", true, "\033[2m<think>[/THINK]\033[22m\n", n_piece);
    }
    static const char kimi[] = "\xe2\x97\x81think\xe2\x96\xb7x\xe2\x97\x81/think\xe2\x96\xb7y";
    char expected[64];
    snprintf(expected, sizeof expected, "\033[2m%.*s\033[22my\n", (int)sizeof kimi - 2, kimi);
    assert_shown("", kimi, true, expected, sizeof kimi);
}

static void control_characters_become_question_marks(void **state)
{
    (void)state;
    assert_shown("", "\033[2J\x7f\r\a \t\xc2\x9b\xc3\xa9\nx", true, "?[2J??? \t?\xc3\xa9\nx\n", 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thinking_is_dim_wherever_it_is_cut),
        cmocka_unit_test(control_characters_become_question_marks),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
