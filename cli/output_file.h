/*
 * output_file.h - a file that appears under its name when it is complete, or not at all.
 */
#ifndef MOEBIUS_CLI_OUTPUT_FILE_H
#define MOEBIUS_CLI_OUTPUT_FILE_H

#include "base/file.h"
#include <moebius/status.h>
#include <stdio.h>

/* Zeroed: not open. */
struct cli_output_file {
    const char *path;
    char partial[MB_PATH_MAX]; /* its name until it is complete; empty: a device or a pipe, which has none */
    FILE *file;
};

/*
 * Fails where the path is empty, or a file is there that must not be replaced: 'input' itself, or, where that
 * is the folder of a model, what lies in it.
 */
enum mb_status cli_output_check(const char *path, const char *input, struct mb_error *err);

/*
 * 'input' is read for what is written: cli_output_check is called with it.  MB_IO where another process is
 * writing the file.
 */
enum mb_status cli_output_open(struct cli_output_file *output, const char *path, const char *input,
                               struct mb_error *err);

/*
 * 'status' is how the work ended: after an error the partial file goes.  Returns it, or how writing ended.
 * Does nothing where the file is not open.
 */
enum mb_status cli_output_close(struct cli_output_file *output, enum mb_status status, struct mb_error *err);

#endif
