/*
 * stream.h - the text of a reply while its tokens come: valid UTF-8, whole characters.
 */
#ifndef MOEBIUS_CLI_STREAM_H
#define MOEBIUS_CLI_STREAM_H

#include <moebius/tokenizer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed but for the tokenizer: nothing said yet. */
struct cli_stream {
    const struct mb_tokenizer *tokenizer;
    char *text;     /* terminated once something was added */
    size_t n;       /* bytes of whole characters: they stay as they are */
    size_t n_held;  /* bytes behind them that begin a character */
    size_t cap;     /* of 'text' */
    int32_t before; /* the last token that had text */
    bool has_before;
};

/*
 * Add a token; special ones, and ids that the tokenizer does not have (a padded vocabulary), have no text.
 * Bytes that are not UTF-8 become U+FFFD, as Python's errors="replace" does it.
 */
enum mb_status cli_stream_add(struct cli_stream *stream, int32_t token, struct mb_error *err);

/* No more tokens: what is held becomes U+FFFD. */
enum mb_status cli_stream_end(struct cli_stream *stream, struct mb_error *err);

void cli_stream_free(struct cli_stream *stream);

#endif
