/*
 * line_editor_libedit.c - lines edited with libedit.
 *
 * libedit's own signal handling is off: it would send signals on to the whole process group.  Keys are read
 * here, so that an interrupt ends the line, and a window that changed or a program that was continued
 * (Ctrl-Z, fg) is drawn anew.
 */
#include "cli.h"
#include "line_editor.h"
#include <histedit.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

enum { N_HISTORY_MAX = 1000 };

struct cli_line_editor {
    EditLine *el;
    History *lines;
    HistEvent event;
    const char *history, *prompt;
    bool had_text; /* when an interrupt came */
};

static volatile sig_atomic_t is_resized, is_continued;

static void on_change(int number)
{
    *(number == SIGWINCH ? &is_resized : &is_continued) = 1;
}

/* ---------------------------------------------------------------- keys */

static void draw_anew(EditLine *el)
{
    if (is_resized)
        fputs("\r\033[J", stdout), el_resize(el); /* it forgets what it has drawn */
    if (is_continued)
        el_set(el, EL_PREP_TERM, 1);
    if (is_resized || is_continued)
        el_set(el, EL_REFRESH);
    is_resized = is_continued = 0;
}

static struct cli_line_editor *editor_of(EditLine *el)
{
    struct cli_line_editor *editor;
    el_get(el, EL_CLIENTDATA, &editor);
    return editor;
}

/* Returns -1, what get_character returns then. */
static int note_text(EditLine *el)
{
    const LineInfo *line = el_line(el);
    editor_of(el)->had_text = line->lastchar > line->buffer;
    return -1;
}

/* libedit's EL_GETCFN: 1 a character, 0 the end, -1 a failure or an interrupt. */
static int get_character(EditLine *el, wchar_t *character)
{
    mbstate_t state;
    memset(&state, 0, sizeof state);
    for (;;) {
        char c;
        bool is_ready = cli_wait_for_input(STDIN_FILENO);
        draw_anew(el);
        if (!is_ready && cli_interrupted())
            return note_text(el);
        if (!is_ready)
            continue;
        ssize_t n = read(STDIN_FILENO, &c, 1);
        if (n <= 0)
            return (int)n;
        size_t used = mbrtowc(character, &c, 1, &state);
        if (used == (size_t)-1) {
            *character = L'?';
            return 1;
        }
        if (used != (size_t)-2)
            return 1;
    }
}

static char *get_prompt(EditLine *el)
{
    return (char *)editor_of(el)->prompt;
}

/* ---------------------------------------------------------------- open and close */

static void open_history(struct cli_line_editor *editor)
{
    history(editor->lines, &editor->event, H_SETSIZE, N_HISTORY_MAX);
    history(editor->lines, &editor->event, H_SETUNIQUE, 1);
    if (editor->history != NULL)
        history(editor->lines, &editor->event, H_LOAD, editor->history);
    el_set(editor->el, EL_HIST, history, editor->lines);
}

struct cli_line_editor *cli_line_editor_open(const char *history_path)
{
    struct cli_line_editor *editor = cli_check_memory(calloc(1, sizeof *editor));
    struct sigaction action = {.sa_handler = on_change};
    if (setlocale(LC_CTYPE, "") == NULL || MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8"); /* messages are UTF-8 in any case */
    editor->history = history_path;
    editor->prompt = "";
    editor->lines = history_init();
    editor->el = el_init("moebius", stdin, stdout, stderr);
    if (editor->el == NULL || editor->lines == NULL) {
        cli_line_editor_close(editor);
        return NULL;
    }
    el_set(editor->el, EL_CLIENTDATA, editor);
    el_set(editor->el, EL_SIGNAL, 0);
    el_set(editor->el, EL_EDITOR, "emacs");
    el_set(editor->el, EL_PROMPT, get_prompt);
    el_set(editor->el, EL_GETCFN, get_character);
    open_history(editor);
    el_source(editor->el, NULL); /* ~/.editrc */
    sigemptyset(&action.sa_mask);
    sigaction(SIGWINCH, &action, NULL);
    sigaction(SIGCONT, &action, NULL);
    return editor;
}

bool cli_line_editor_close(struct cli_line_editor *editor)
{
    if (editor == NULL)
        return true;
    bool is_saved = editor->history == NULL || editor->lines == NULL ||
                    history(editor->lines, &editor->event, H_SAVE, editor->history) >= 0;
    if (editor->el != NULL)
        el_end(editor->el);
    if (editor->lines != NULL)
        history_end(editor->lines);
    free(editor);
    return is_saved;
}

char *cli_line_editor_read(struct cli_line_editor *editor, const char *prompt, bool *had_text)
{
    int n = 0;
    editor->had_text = false;
    editor->prompt = prompt;
    el_set(editor->el, EL_PREP_TERM, 1); /* before the prompt: a key after it is read as one */
    const char *got = el_gets(editor->el, &n);
    if (got == NULL || n <= 0) {
        *had_text = editor->had_text;
        fputs(cli_interrupted() ? "^C\n" : "\n", stdout);
        fflush(stdout);
        return NULL;
    }
    char *line = cli_check_memory(strndup(got, (size_t)n));
    line[strcspn(line, "\n")] = '\0';
    if (line[0] != '\0')
        history(editor->lines, &editor->event, H_ENTER, line);
    return line;
}
