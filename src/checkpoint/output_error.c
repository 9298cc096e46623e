/*
 * output_error.c - output errors of matrices as text in the headers of shards.
 */
#include "output_error.h"
#include "base/number.h"
#include "checkpoint.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Nine digits are off by half of 1e-8 at most. */
static double rounded_up(double x)
{
    return x * (1 + 1e-8);
}

void mb_output_error_format(const struct mb_output_error *error, char text[MB_OUTPUT_ERROR_NBYTES])
{
    mb_number_format(text, MB_OUTPUT_ERROR_NBYTES, "%.9g %.9g %llu", rounded_up(error->rms),
                     rounded_up(error->max), (unsigned long long)error->n_rows_clipped);
}

/* The number at the text's beginning, and what follows it. */
static bool take_number(const char **text, double *value)
{
    size_t n = strcspn(*text, " ");
    if (!mb_number_parse(*text, n, value) || !(*value >= 0))
        return false;
    *text += n + ((*text)[n] == ' ');
    return true;
}

bool mb_output_error_parse(const char *text, struct mb_output_error *error)
{
    double n_clipped;
    *error = (struct mb_output_error){0};
    if (!take_number(&text, &error->rms) || !take_number(&text, &error->max) ||
        !take_number(&text, &n_clipped) || *text != '\0')
        return false;
    if (n_clipped != floor(n_clipped) || n_clipped >= 0x1p53 || error->rms > error->max * (1 + 1e-6))
        return false;
    error->n_rows_clipped = (uint64_t)n_clipped;
    return true;
}

const char *mb_output_error_text(const struct mb_checkpoint *ckpt, const struct mb_tensor *blob,
                                 const char *name)
{
    char key[600];
    struct mb_output_error error;
    if (snprintf(key, sizeof key, MB_OUTPUT_ERROR_KEY, name) >= (int)sizeof key)
        return NULL;
    const char *text = json_string_value(json_object_get(ckpt->shards[blob->shard].header.metadata, key));
    return text != NULL && mb_output_error_parse(text, &error) ? text : NULL;
}

bool mb_output_error_of(const struct mb_checkpoint *ckpt, const struct mb_tensor *blob, const char *name,
                        struct mb_output_error *error)
{
    const char *text = mb_output_error_text(ckpt, blob, name);
    return text != NULL && mb_output_error_parse(text, error);
}
