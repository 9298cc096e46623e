/*
 * file.c - small files that users name: read whole, with errors that name them.
 */
#include "base/error.h"
#include "cli.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_NBYTES_MAX = 1 << 30 };

/* Reads to the end of the file; *text is malloc'ed, with a 0 after it, also after an error. */
static enum mb_status read_stream(FILE *file, const char *path, char **text, size_t *nbytes,
                                  struct mb_error *err)
{
    size_t cap = 0, n_read;
    do {
        if (*nbytes + 1 >= cap) {
            cap = cap == 0 ? 1 << 16 : 2 * cap;
            char *grown = realloc(*text, cap);
            if (grown == NULL)
                return mb_fail(err, MB_NO_MEMORY, "%s: out of memory for this file", path);
            *text = grown;
        }
        n_read = fread(*text + *nbytes, 1, cap - 1 - *nbytes, file);
        *nbytes += n_read;
        (*text)[*nbytes] = '\0';
        if (*nbytes > TEXT_NBYTES_MAX)
            return mb_fail(err, MB_BAD_DATA, "%s: larger than 1 GiB", path);
    } while (n_read > 0);
    return ferror(file) ? mb_fail_errno(err, path, "read") : MB_OK;
}

enum mb_status cli_read_text(const char *path, char **text, size_t *nbytes, struct mb_error *err)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    if (file == NULL)
        return mb_fail_errno(err, path, "open");
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
