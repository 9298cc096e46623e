/*
 * stream.c - token by token to text. A character may be spread over tokens: its bytes are held until it is
 * whole.
 */
#include "stream.h"
#include "cli.h"
#include <stdlib.h>
#include <string.h>

static const char replacement[] = "\xef\xbf\xbd";

/* How many bytes a character has, by its first; 0: none begins like this. */
static size_t character_nbytes(unsigned char first)
{
    return first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
}

/* The second byte has narrower limits behind some first ones: no long forms, surrogates, or beyond U+10FFFF.
 */
static bool may_follow(unsigned char first, size_t at, unsigned char byte)
{
    unsigned char low = 0x80, high = 0xbf;
    if (at == 1) {
        low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : low;
        high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : high;
    }
    return byte >= low && byte <= high;
}

/* Bytes of the longest beginning of a character at s[0 .. n), at least 1; *is_whole: all of it. */
static size_t scan_character(const unsigned char *s, size_t n, bool *is_whole)
{
    size_t length = character_nbytes(s[0]), k = 1;
    while (k < length && k < n && may_follow(s[0], k, s[k]))
        k++;
    *is_whole = k == length;
    return k;
}

static bool reserve(struct cli_stream *stream, size_t nbytes)
{
    size_t needed = stream->n + stream->n_held + nbytes + 1;
    if (needed <= stream->cap)
        return true;
    size_t cap = needed < 1024 ? 1024 : 2 * needed;
    char *grown = realloc(stream->text, cap);
    if (grown == NULL)
        return false;
    stream->text = grown;
    stream->cap = cap;
    return true;
}

/* 'bytes' (held ones among them) go behind the whole characters; room for three bytes for each is there. */
static void put_bytes(struct cli_stream *stream, const unsigned char *bytes, size_t n, bool is_end)
{
    size_t i = 0;
    stream->n_held = 0;
    while (i < n) {
        bool is_whole;
        size_t k = scan_character(bytes + i, n - i, &is_whole);
        if (!is_whole && !is_end && i + k == n && character_nbytes(bytes[i]) > k) {
            memcpy(stream->text + stream->n, bytes + i, k);
            stream->n_held = k;
            break;
        }
        memcpy(stream->text + stream->n, is_whole ? (const char *)bytes + i : replacement, is_whole ? k : 3);
        stream->n += is_whole ? k : 3;
        i += k;
    }
    stream->text[stream->n + stream->n_held] = '\0';
}

static enum mb_status add_bytes(struct cli_stream *stream, const char *bytes, size_t n, bool is_end,
                                struct mb_error *err)
{
    size_t n_all = stream->n_held + n;
    unsigned char *all = malloc(n_all + 1);
    if (all == NULL || !reserve(stream, 3 * n_all)) {
        free(all);
        return cli_error(err, MB_NO_MEMORY, "reply", "no memory for its text");
    }
    if (stream->n_held > 0)
        memcpy(all, stream->text + stream->n, stream->n_held);
    memcpy(all + stream->n_held, bytes, n);
    put_bytes(stream, all, n_all, is_end);
    free(all);
    return MB_OK;
}

/*
 * A token's text may depend on whether it is the first (a space is dropped there): so it is decoded behind
 * the one before it, whose text is then taken off.
 */
enum mb_status cli_stream_add(struct cli_stream *stream, int32_t token, struct mb_error *err)
{
    char *both = NULL, *before = NULL;
    size_t n_both = 0, n_before = 0;
    int32_t ids[2] = {stream->before, token};
    if (!mb_tokenizer_has(stream->tokenizer, token))
        return MB_OK;
    enum mb_status status = MB_OK;
    if (stream->has_before)
        status = mb_tokenizer_decode(stream->tokenizer, ids, 1, true, &before, &n_before, err);
    if (status == MB_OK)
        status = mb_tokenizer_decode(stream->tokenizer, ids + !stream->has_before,
                                     1 + (size_t)stream->has_before, true, &both, &n_both, err);
    if (status == MB_OK && n_both > n_before) {
        status = add_bytes(stream, both + n_before, n_both - n_before, false, err);
        stream->before = token;
        stream->has_before = true;
    }
    free(both);
    free(before);
    return status;
}

enum mb_status cli_stream_end(struct cli_stream *stream, struct mb_error *err)
{
    return add_bytes(stream, "", 0, true, err);
}

void cli_stream_free(struct cli_stream *stream)
{
    free(stream->text);
    *stream = (struct cli_stream){0};
}
