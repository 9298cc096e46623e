/*
 * chat_input.h - a user's messages, of one line or more, from a terminal or a pipe.
 */
#ifndef MOEBIUS_CLI_CHAT_INPUT_H
#define MOEBIUS_CLI_CHAT_INPUT_H

#include "base/buf.h"
#include "base/file.h"
#include "line_editor.h"
#include <moebius/status.h>
#include <stdbool.h>

enum cli_input {
    CLI_INPUT_MESSAGE,
    CLI_INPUT_END, /* of the input: Ctrl-D */
    CLI_INPUT_INTERRUPT,
    CLI_INPUT_DROPPED, /* an interrupt, and a message that was begun is dropped */
    CLI_INPUT_FAILED,  /* the file cannot be read, or a line has a zero byte: err */
};

struct cli_chat_input {
    bool is_terminal;
    struct cli_line_editor *editor; /* NULL: plain lines */
    char history[MB_PATH_MAX];      /* empty: none */
    struct mb_bytes ahead;          /* of plain lines: read, and not yet returned */
};

/* 'keeps_history': lines typed at a terminal go to a file in the user's state folder. */
void cli_chat_input_open(struct cli_chat_input *input, bool keeps_history);
void cli_chat_input_close(struct cli_chat_input *input);

/*
 * *text is malloc'ed.  A line that ends in a backslash goes on in the next one.  A message that begins with
 * three quotation marks goes to the next three, at the end of a line; 'is_quoted' then, and it is no command.
 */
enum cli_input cli_chat_input_read(struct cli_chat_input *input, char **text, bool *is_quoted,
                                   struct mb_error *err);

#endif
