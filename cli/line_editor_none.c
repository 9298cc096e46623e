/*
 * line_editor_none.c - a build without libedit: lines are read as they come.
 */
#include "line_editor.h"
#include <stddef.h>

struct cli_line_editor *cli_line_editor_open(const char *history)
{
    (void)history;
    return NULL;
}

bool cli_line_editor_close(struct cli_line_editor *editor)
{
    (void)editor;
    return true;
}

char *cli_line_editor_read(struct cli_line_editor *editor, const char *prompt, bool *had_text)
{
    (void)editor;
    (void)prompt;
    (void)had_text;
    return NULL;
}
