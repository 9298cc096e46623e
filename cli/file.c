/*
 * file.c - small files that users name: read whole, with errors that name them.
 */
#include "cli.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_NBYTES_MAX = 1 << 30 };

enum mb_status cli_error(struct mb_error *err, enum mb_status status, const char *path, const char *what)
{
    err->status = status;
    snprintf(err->msg, sizeof err->msg, "%s: %s", path, what);
    return status;
}

enum mb_status cli_system_error(struct mb_error *err, const char *path)
{
    enum mb_status status = errno == ENOENT || errno == ENOTDIR || errno == EISDIR ? MB_BAD_DATA
                            : errno == ENOSPC || errno == EDQUOT                   ? MB_NO_SPACE
                                                                                   : MB_IO;
    return cli_error(err, status, path, strerror(errno));
}

/* Reads to the end of the file; *text is malloc'ed, with a 0 behind it, also after an error. */
static enum mb_status read_stream(FILE *file, const char *path, char **text, size_t *nbytes,
                                  struct mb_error *err)
{
    size_t cap = 0, n_read;
    do {
        if (*nbytes + 1 >= cap) {
            cap = cap == 0 ? 1 << 16 : 2 * cap;
            char *grown = realloc(*text, cap);
            if (grown == NULL)
                return cli_error(err, MB_NO_MEMORY, path, "no memory for this file");
            *text = grown;
        }
        n_read = fread(*text + *nbytes, 1, cap - 1 - *nbytes, file);
        *nbytes += n_read;
        (*text)[*nbytes] = '\0';
        if (*nbytes > TEXT_NBYTES_MAX)
            return cli_error(err, MB_BAD_DATA, path, "larger than 1 GiB");
    } while (n_read > 0);
    return ferror(file) ? cli_system_error(err, path) : MB_OK;
}

enum mb_status cli_read_text(const char *path, char **text, size_t *nbytes, struct mb_error *err)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    if (file == NULL)
        return cli_system_error(err, path);
    *text = NULL;
    *nbytes = 0;
    enum mb_status status = read_stream(file, is_stdin ? "standard input" : path, text, nbytes, err);
    if (!is_stdin)
        fclose(file);
    if (status != MB_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}
