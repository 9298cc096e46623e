/*
 * line_editor.h - lines of a terminal, edited with libedit; a build without it has no editor.
 */
#ifndef MOEBIUS_CLI_LINE_EDITOR_H
#define MOEBIUS_CLI_LINE_EDITOR_H

#include <stdbool.h>

struct cli_line_editor;

/* 'history': a file that earlier lines come from and lines go to at the end; NULL: none. NULL: no editor. */
struct cli_line_editor *cli_line_editor_open(const char *history);

/* NULL: nothing to do. false: the history could not be saved. */
bool cli_line_editor_close(struct cli_line_editor *editor);

/*
 * A line without its line end, malloc'ed.  NULL: the end of the input (Ctrl-D), or an interrupt, which
 * cli_interrupted tells; *had_text then says whether a line was begun.
 */
char *cli_line_editor_read(struct cli_line_editor *editor, const char *prompt, bool *had_text);

#endif
