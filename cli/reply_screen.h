/*
 * reply_screen.h - shows a model's reply while it comes: no control characters, thinking dim.
 */
#ifndef MOEBIUS_CLI_REPLY_SCREEN_H
#define MOEBIUS_CLI_REPLY_SCREEN_H

#include <moebius/tokenizer.h>
#include <stdbool.h>
#include <stddef.h>

enum { CLI_N_MARKS = 3, CLI_MARK_NBYTES_MAX = 16 };

/* What models write around their thinking. */
struct cli_mark {
    const char *open, *close;
};
extern const struct cli_mark cli_marks[CLI_N_MARKS];

struct cli_reply_screen {
    bool is_dim_shown;              /* stdout is a terminal that can */
    const struct cli_mark *mark;    /* of the thinking that is shown now; NULL: none */
    char held[CLI_MARK_NBYTES_MAX]; /* may become a mark */
    size_t n_held;
    bool is_line_open; /* what was shown does not end in a line end */
    bool has_failed;   /* to write */
};

/* 'prompt': where it ends with an opening mark, the reply begins with thinking. */
void cli_reply_screen_begin(struct cli_reply_screen *screen, const char *prompt);

/* Whole characters of UTF-8. */
void cli_reply_screen_add(struct cli_reply_screen *screen, const char *text, size_t nbytes);

/* Ends the line, and the thinking if it was cut. */
void cli_reply_screen_end(struct cli_reply_screen *screen);

#endif
