/*
 * tokenize.c - the verb "tokenize": text to token ids, or ids to text.
 */
#include "base/error.h"
#include "base/file.h"
#include "cli.h"
#include <errno.h>
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    bool decode, no_bos, config_bos, skip_special;
} args;

static const struct cli_option options[] = {
    CLI_ROW_FLAG('d', "decode", args.decode,
                 "the other way: ids on stdin, their text on stdout, nothing added to it"),
    CLI_ROW_FLAG(0, "no-bos", args.no_bos,
                 "without the special tokens that tokenizer.json puts around a text"),
    CLI_ROW_FLAG(0, "config-bos", args.config_bos,
                 "of earlier versions: tokenizer_config.json is always read now"),
    CLI_ROW_FLAG(0, "skip-special", args.skip_special, "with --decode: leave special tokens out"),
};

static const struct cli_command command = {
    .name = "tokenize",
    .args = "MODEL [--decode] < TEXT",
    .summary = "Print the token ids of the text on standard input, white space between.",
    .details =
        "MODEL is a folder with tokenizer.json or tiktoken.model, or a tokenizer.json. Of a folder, what\n"
        "tokenizer_config.json and the like add to it is read too; nothing else of the model is needed. "
        "Special tokens in the text (<|end|>) are recognised. Bytes that are not UTF-8\n"
        "count as U+FFFD.\n\n"
        "  echo -n 'Hello there' | moebius tokenize models/reference\n"
        "  moebius tokenize models/reference < book.txt | moebius tokenize models/reference --decode",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

static int fail(enum mb_status status, const char *what)
{
    struct mb_error err;
    mb_error_set(&err, status, "standard input: %s", what);
    return cli_fail(&err);
}

static int encode(const struct mb_tokenizer *tokenizer, const char *text, size_t nbytes)
{
    struct mb_error err;
    int32_t *ids;
    size_t n_ids;
    if (mb_tokenizer_encode(tokenizer, text, nbytes, !args.no_bos, &ids, &n_ids, &err) != MB_OK)
        return cli_fail(&err);
    for (size_t i = 0; i < n_ids; i++)
        printf("%d%c", ids[i], i + 1 == n_ids ? '\n' : ' ');
    free(ids);
    return 0;
}

/* The ids of a text, one after the other. Returns the exit status. */
static int parse_ids(const char *text, size_t nbytes, int32_t *ids, size_t *n_ids)
{
    static const char spaces[] = " \t\r\n\f\v";
    char what[80];
    if (memchr(text, '\0', nbytes) != NULL)
        return fail(MB_BAD_DATA, "a zero byte among token ids");
    for (const char *p = text + strspn(text, spaces); *p != '\0'; p += strspn(p, spaces)) {
        size_t n = strcspn(p, spaces);
        char *end;
        errno = 0;
        long id = strtol(p, &end, 10);
        if (strspn(p, "0123456789") != n || errno != 0 || id > INT32_MAX) {
            snprintf(what, sizeof what, "byte %zu: '%.*s' is not a token id", (size_t)(p - text),
                     n < 32 ? (int)n : 32, p);
            return fail(MB_BAD_DATA, what);
        }
        ids[(*n_ids)++] = (int32_t)id;
        p = end;
    }
    return 0;
}

static int decode(const struct mb_tokenizer *tokenizer, const char *text, size_t nbytes)
{
    struct mb_error err;
    char *decoded;
    size_t n_ids = 0, decoded_nbytes;
    int32_t *ids = malloc((nbytes / 2 + 1) * sizeof *ids);
    if (ids == NULL)
        return fail(MB_NO_MEMORY, "out of memory for the token ids");
    int exit_status = parse_ids(text, nbytes, ids, &n_ids);
    if (exit_status == 0 && mb_tokenizer_decode(tokenizer, ids, n_ids, args.skip_special, &decoded,
                                                &decoded_nbytes, &err) != MB_OK)
        exit_status = cli_fail(&err);
    else if (exit_status == 0) {
        fwrite(decoded, 1, decoded_nbytes, stdout);
        free(decoded);
    }
    free(ids);
    return exit_status;
}

int cli_tokenize(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args, nbytes;
    int exit_status;
    struct mb_error err;
    struct mb_tokenizer *tokenizer = NULL;
    char *text = NULL;
    if (!cli_parse(&command, argc, argv, positional, &n_args, &exit_status))
        return exit_status;
    if (args.decode && (args.no_bos || args.config_bos))
        return cli_usage_error(&command, "--decode takes the ids as they are: no --no-bos, no --config-bos");
    if (args.skip_special && !args.decode)
        return cli_usage_error(&command, "--skip-special goes with --decode");
    if (args.no_bos && args.config_bos)
        return cli_usage_error(&command, "--no-bos and --config-bos exclude each other");
    if (mb_tokenizer_open(positional[0], &tokenizer, &err) != MB_OK)
        return cli_fail(&err);
    if (cli_read_text("-", &text, &nbytes, &err) != MB_OK) {
        exit_status = cli_fail(&err);
    } else {
        exit_status = args.decode ? decode(tokenizer, text, nbytes) : encode(tokenizer, text, nbytes);
        free(text);
    }
    mb_tokenizer_close(tokenizer);
    return exit_status;
}
