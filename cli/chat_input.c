/*
 * chat_input.c - lines put together to messages.
 */
#include "chat_input.h"
#include "base/error.h"
#include "cli.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char quotes[] = "\"\"\"";
enum { N_QUOTES = 3, N_READ = 1 << 16 };

/* ---------------------------------------------------------------- open and close */

/* The XDG folder for what a program remembers. false: there is none, and it cannot be made. */
static bool find_history(char path[MB_PATH_MAX])
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = state != NULL && state[0] == '/' ? snprintf(path, MB_PATH_MAX, "%s/moebius/", state)
            : home != NULL                   ? snprintf(path, MB_PATH_MAX, "%s/.local/state/moebius/", home)
                                             : -1;
    static const char name[] = "chat_history";
    if (n < 0 || (size_t)n + sizeof name > MB_PATH_MAX)
        return false;
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool is_there = mkdir(path, 0700) == 0 || errno == EEXIST;
        *slash = '/';
        if (!is_there)
            return false;
    }
    memcpy(path + n, name, sizeof name);
    return true;
}

void cli_chat_input_open(struct cli_chat_input *input, bool keeps_history)
{
    *input = (struct cli_chat_input){.is_terminal = isatty(STDIN_FILENO) == 1};
    if (!input->is_terminal || isatty(STDOUT_FILENO) != 1)
        return;
    if (!keeps_history || !find_history(input->history))
        input->history[0] = '\0';
    input->editor = cli_line_editor_open(input->history[0] == '\0' ? NULL : input->history);
}

void cli_chat_input_close(struct cli_chat_input *input)
{
    if (!cli_line_editor_close(input->editor))
        fprintf(stderr, "moebius: %s: the history of lines could not be saved\n", input->history);
    free(input->ahead.p);
}

/* ---------------------------------------------------------------- lines */

/* Takes the first n bytes of what was read, and the line end after them. */
static enum cli_input take_ahead(struct cli_chat_input *input, size_t n, char **line, struct mb_error *err)
{
    struct mb_bytes *ahead = &input->ahead;
    size_t n_taken = n + (n < ahead->n);
    if (memchr(ahead->p, '\0', n) != NULL) {
        mb_error_set(err, MB_BAD_DATA, "standard input: not a text: it has a zero byte");
        return CLI_INPUT_FAILED;
    }
    n -= n > 0 && ahead->p[n - 1] == '\r';
    *line = cli_check_memory(strndup(ahead->p, n));
    memmove(ahead->p, ahead->p + n_taken, ahead->n -= n_taken);
    return CLI_INPUT_MESSAGE;
}

static enum cli_input read_plain(struct cli_chat_input *input, const char *prompt, char **line,
                                 struct mb_error *err)
{
    struct mb_bytes *ahead = &input->ahead;
    if (input->is_terminal)
        fputs(prompt, stderr);
    for (size_t n_seen = 0;;) {
        const char *end = ahead->n == n_seen ? NULL : memchr(ahead->p + n_seen, '\n', ahead->n - n_seen);
        if (end != NULL)
            return take_ahead(input, (size_t)(end - ahead->p), line, err);
        n_seen = ahead->n;
        if (!cli_wait_for_input(STDIN_FILENO)) {
            if (cli_interrupted())
                return CLI_INPUT_INTERRUPT;
            continue;
        }
        cli_check_memory(mb_bytes_reserve(ahead, N_READ) ? ahead->p : NULL);
        ssize_t n = read(STDIN_FILENO, ahead->p + ahead->n, N_READ);
        if (n < 0) {
            mb_fail_errno(err, "standard input", "read");
            return CLI_INPUT_FAILED;
        }
        if (n == 0)
            return ahead->n == 0 ? CLI_INPUT_END : take_ahead(input, ahead->n, line, err);
        ahead->n += (size_t)n;
    }
}

/* *line is malloc'ed. */
static enum cli_input read_line(struct cli_chat_input *input, const char *prompt, char **line,
                                struct mb_error *err)
{
    if (input->editor == NULL)
        return read_plain(input, prompt, line, err);
    bool had_text;
    *line = cli_line_editor_read(input->editor, prompt, &had_text);
    if (*line != NULL)
        return CLI_INPUT_MESSAGE;
    return !cli_interrupted() ? CLI_INPUT_END : had_text ? CLI_INPUT_DROPPED : CLI_INPUT_INTERRUPT;
}

/* ---------------------------------------------------------------- messages */

static void put(struct mb_bytes *message, const char *text, size_t n)
{
    cli_check_memory(mb_bytes_put(message, text, n) && mb_bytes_reserve(message, 1) ? message->p : NULL);
}

/* Takes a line in. true: the message goes on. */
static bool take_line(struct mb_bytes *message, const char *line, bool is_first, bool *is_quoted)
{
    size_t n = strlen(line);
    if (is_first && strncmp(line, quotes, N_QUOTES) == 0) {
        *is_quoted = true;
        line += N_QUOTES;
        n -= N_QUOTES;
        if (n == 0)
            return true; /* no empty line at the beginning */
    }
    bool ends_quote = *is_quoted && n >= N_QUOTES && strcmp(line + n - N_QUOTES, quotes) == 0;
    bool goes_on = *is_quoted ? !ends_quote : n > 0 && line[n - 1] == '\\';
    n -= ends_quote ? N_QUOTES : goes_on && !*is_quoted;
    put(message, line, n);
    return goes_on;
}

static enum cli_input read_message(struct cli_chat_input *input, struct mb_bytes *message, bool *is_quoted,
                                   struct mb_error *err)
{
    char *line;
    enum cli_input got = read_line(input, ">>> ", &line, err);
    if (got != CLI_INPUT_MESSAGE)
        return got;
    bool goes_on = take_line(message, line, true, is_quoted);
    bool is_empty = *is_quoted && goes_on && strlen(line) == N_QUOTES;
    free(line);
    while (goes_on) {
        got = read_line(input, "... ", &line, err);
        if (got == CLI_INPUT_END) {
            if (*is_quoted)
                fprintf(stderr, "moebius: the input ended before the closing %s\n", quotes);
            return CLI_INPUT_MESSAGE;
        }
        if (got != CLI_INPUT_MESSAGE)
            return got == CLI_INPUT_INTERRUPT ? CLI_INPUT_DROPPED : got;
        if (!is_empty && !(*is_quoted && strcmp(line, quotes) == 0)) /* nor at the end */
            put(message, "\n", 1);
        is_empty = false;
        goes_on = take_line(message, line, false, is_quoted);
        free(line);
    }
    return CLI_INPUT_MESSAGE;
}

enum cli_input cli_chat_input_read(struct cli_chat_input *input, char **text, bool *is_quoted,
                                   struct mb_error *err)
{
    struct mb_bytes message = {0};
    *is_quoted = false;
    enum cli_input got = read_message(input, &message, is_quoted, err);
    if (got != CLI_INPUT_MESSAGE) {
        free(message.p);
        return got;
    }
    put(&message, "", 1);
    *text = message.p;
    return got;
}
