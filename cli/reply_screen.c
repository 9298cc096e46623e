/*
 * reply_screen.c - the stream of a reply to standard output.
 *
 * Control characters become '?' (but line ends and tabs), so that no reply can command the terminal.
 */
#include "reply_screen.h"
#include "base/utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct cli_mark cli_marks[CLI_N_MARKS] = {
    {"<think>", "</think>"},
    {"\xe2\x97\x81think\xe2\x96\xb7", "\xe2\x97\x81/think\xe2\x96\xb7"}, /* Kimi, Moonlight */
    {"[THINK]", "[/THINK]"},
};

/* ---------------------------------------------------------------- writing */

static void write_bytes(struct cli_reply_screen *screen, const char *text, size_t n)
{
    if (n == 0)
        return;
    screen->has_failed |= fwrite(text, 1, n, stdout) != n;
    screen->is_line_open = text[n - 1] != '\n';
}

static void set_dim(const struct cli_reply_screen *screen, bool is_dim)
{
    if (screen->is_dim_shown)
        fputs(is_dim ? "\033[2m" : "\033[22m", stdout);
}

/* ---------------------------------------------------------------- marks */

static bool is_begin_of(const struct cli_reply_screen *screen, const char *mark)
{
    return strncmp(mark, screen->held, screen->n_held) == 0;
}

/* Whether what is held may become a mark that can come next: any opening one, or the closing one. */
static bool may_be_mark(const struct cli_reply_screen *screen)
{
    if (screen->mark != NULL)
        return is_begin_of(screen, screen->mark->close);
    for (size_t i = 0; i < CLI_N_MARKS; i++)
        if (is_begin_of(screen, cli_marks[i].open))
            return true;
    return false;
}

static bool is_held(const struct cli_reply_screen *screen, const char *mark)
{
    return strlen(mark) == screen->n_held && is_begin_of(screen, mark);
}

/* A mark that is complete is shown as it is, dim with what it encloses. */
static void take_mark(struct cli_reply_screen *screen)
{
    if (screen->mark != NULL && is_held(screen, screen->mark->close)) {
        write_bytes(screen, screen->held, screen->n_held);
        set_dim(screen, false);
        screen->mark = NULL;
        screen->n_held = 0;
    }
    for (size_t i = 0; i < CLI_N_MARKS && screen->n_held > 0 && screen->mark == NULL; i++)
        if (is_held(screen, cli_marks[i].open)) {
            set_dim(screen, true);
            write_bytes(screen, screen->held, screen->n_held);
            screen->mark = &cli_marks[i];
            screen->n_held = 0;
        }
}

static void add_byte(struct cli_reply_screen *screen, char c)
{
    screen->held[screen->n_held++] = c;
    while (screen->n_held > 0 && !may_be_mark(screen)) {
        write_bytes(screen, screen->held, 1);
        memmove(screen->held, screen->held + 1, --screen->n_held);
    }
    take_mark(screen);
}

/* ---------------------------------------------------------------- characters */

static bool is_control(uint32_t code)
{
    return (code < 0x20 && code != '\n' && code != '\t') || (code >= 0x7f && code < 0xa0);
}

void cli_reply_screen_add(struct cli_reply_screen *screen, const char *text, size_t nbytes)
{
    for (size_t i = 0, n; i < nbytes; i += n) {
        bool is_valid;
        n = mb_utf8_span(text + i, nbytes - i, &is_valid);
        if (!is_valid || is_control(mb_utf8_get(text + i)))
            add_byte(screen, '?');
        else
            for (size_t k = 0; k < n; k++)
                add_byte(screen, text[i + k]);
    }
    screen->has_failed |= fflush(stdout) != 0;
}

/* ---------------------------------------------------------------- begin and end */

static bool ends_with(const char *text, size_t n, const char *end)
{
    size_t n_end = strlen(end);
    return n >= n_end && memcmp(text + n - n_end, end, n_end) == 0;
}

void cli_reply_screen_begin(struct cli_reply_screen *screen, const char *prompt)
{
    const char *term = getenv("TERM");
    *screen = (struct cli_reply_screen){.is_dim_shown = isatty(STDOUT_FILENO) == 1 && term != NULL &&
                                                        strcmp(term, "dumb") != 0};
    size_t n = strlen(prompt);
    while (n > 0 && strchr(" \t\r\n", prompt[n - 1]) != NULL)
        n--;
    for (size_t i = 0; i < CLI_N_MARKS; i++)
        if (ends_with(prompt, n, cli_marks[i].open))
            screen->mark = &cli_marks[i];
    if (screen->mark != NULL)
        set_dim(screen, true);
}

void cli_reply_screen_end(struct cli_reply_screen *screen)
{
    write_bytes(screen, screen->held, screen->n_held);
    screen->n_held = 0;
    if (screen->mark != NULL)
        set_dim(screen, false);
    if (screen->is_line_open)
        write_bytes(screen, "\n", 1);
    screen->has_failed |= fflush(stdout) != 0;
}
