/*
 * eval_logits.c - eval --tokens: the logits of given tokens, as an .npy file.
 */
#include "base/error.h"
#include "eval.h"
#include "output_file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_PIECE_TOKENS = 64 }; /* whose logits are in memory at once */

struct ids {
    int32_t *ids;
    size_t n;
};

/* ids->ids has room for as many as the text can hold. The text is cut into words. */
static enum mb_status parse_ids(const char *path, char *text, struct ids *ids, struct mb_error *err)
{
    for (char *word, *rest = text; (word = strtok_r(rest, " \t\r\n", &rest)) != NULL;) {
        char *end;
        long id = strtol(word, &end, 10);
        if (*end != '\0' || id < 0 || id > INT32_MAX)
            return mb_fail(err, MB_BAD_DATA, "%s: token %zu, '%.32s', is not a token id", path, ids->n + 1,
                           word);
        ids->ids[ids->n++] = (int32_t)id;
    }
    return ids->n > 0 ? MB_OK : mb_fail(err, MB_BAD_DATA, "%s: no token ids", path);
}

/* Decimal ids with white space between; ids->ids is to be freed, after an error too. */
static enum mb_status read_ids(const char *path, struct ids *ids, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    enum mb_status status;
    MB_TRY(cli_read_text(path, &text, &nbytes, err));
    ids->ids = malloc((nbytes / 2 + 1) * sizeof *ids->ids);
    if (ids->ids == NULL)
        status = mb_fail_memory(err, "the token ids");
    else if (strlen(text) != nbytes)
        status = mb_fail(err, MB_BAD_DATA, "%s: not a text of token ids", path);
    else
        status = parse_ids(path, text, ids, err);
    free(text);
    return status;
}

/* Version 1.0: magic, length, then a Python literal padded so that the data begins at a multiple of 64. */
static bool write_npy_header(FILE *file, size_t n_rows, size_t n_cols)
{
    unsigned char head[10] = "\x93NUMPY\x01\x00";
    char text[118 + 1];
    int n = snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }",
                     n_rows, n_cols);
    memset(text + n, ' ', sizeof text - 2 - (size_t)n);
    text[sizeof text - 2] = '\n';
    head[8] = sizeof text - 1;
    return fwrite(head, 1, sizeof head, file) == sizeof head &&
           fwrite(text, 1, sizeof text - 1, file) == sizeof text - 1;
}

/* Feeds the tokens in pieces whose logits fit in little memory; how they are cut changes no bit. */
static enum mb_status feed(const struct eval *eval, struct mb_session *session, const struct ids *ids,
                           float *logits, FILE *file, struct mb_error *err)
{
    const char *path = eval->args->logits;
    size_t n_vocab = mb_model_info(eval->model)->n_vocab;
    struct cli_progress progress;
    cli_progress_begin(&progress, "tokens");
    for (size_t pos = 0; pos < ids->n; pos += N_PIECE_TOKENS) {
        size_t n = ids->n - pos < N_PIECE_TOKENS ? ids->n - pos : N_PIECE_TOKENS;
        struct mb_batch_item item = {.session = session,
                                     .tokens = ids->ids + pos,
                                     .n_tokens = n,
                                     .logits = logits,
                                     .all_logits = true};
        enum mb_status status = mb_decode(eval->model, &item, 1, err);
        if (status == MB_OK && fwrite(logits, n_vocab * sizeof *logits, n, file) != n)
            status = mb_fail_errno(err, path, "write");
        if (status == MB_OK && cli_progress_show(&progress, "reading", pos + n, ids->n))
            status = mb_fail(err, MB_CANCELLED, "%s: interrupted, not written", path);
        if (status != MB_OK) {
            cli_progress_end(&progress);
            return status;
        }
    }
    cli_progress_end(&progress);
    return MB_OK;
}

static enum mb_status write_logits(const struct eval *eval, struct mb_session *session, const struct ids *ids,
                                   FILE *file, struct mb_error *err)
{
    size_t n_vocab = mb_model_info(eval->model)->n_vocab;
    if (!write_npy_header(file, ids->n, n_vocab))
        return mb_fail_errno(err, eval->args->logits, "write");
    float *logits = malloc(N_PIECE_TOKENS * n_vocab * sizeof *logits);
    if (logits == NULL)
        return mb_fail_memory(err, "the logits");
    enum mb_status status = feed(eval, session, ids, logits, file, err);
    free(logits);
    return status;
}

static enum mb_status check_ids(const char *path, const struct ids *ids, size_t n_vocab, struct mb_error *err)
{
    for (size_t i = 0; i < ids->n; i++)
        if ((size_t)ids->ids[i] >= n_vocab)
            return mb_fail(err, MB_BAD_DATA, "%s: token %zu, %d, is not in the vocabulary of %zu", path,
                           i + 1, (int)ids->ids[i], n_vocab);
    return MB_OK;
}

static enum mb_status measure(const struct eval *eval, const struct ids *ids, struct mb_error *err)
{
    const struct eval_args *args = eval->args;
    struct mb_session *session;
    struct cli_output_file output = {0};
    struct mb_session_options options = {
        .size = sizeof options, .n_ctx = ids->n, .cache_type = eval->cache_type};
    MB_TRY(check_ids(args->tokens, ids, mb_model_info(eval->model)->n_vocab, err));
    MB_TRY(mb_session_open(eval->model, &options, &session, err));
    enum mb_status status = cli_output_open(&output, args->logits, args->tokens, err);
    if (status == MB_OK)
        status = write_logits(eval, session, ids, output.file, err);
    status = cli_output_close(&output, status, err);
    mb_session_close(session);
    return status;
}

enum mb_status eval_logits(const struct eval *eval, struct mb_error *err)
{
    struct ids ids = {0};
    enum mb_status status = read_ids(eval->args->tokens, &ids, err);
    if (status == MB_OK)
        status = measure(eval, &ids, err);
    if (status == MB_OK)
        fprintf(stderr, "%zu x %zu logits written to %s\n", ids.n, mb_model_info(eval->model)->n_vocab,
                eval->args->logits);
    free(ids.ids);
    return status;
}
