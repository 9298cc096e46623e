/*
 * notes.c - what a checkpoint says of itself once.
 */
#include "notes.h"
#include "base/error.h"
#include <stdarg.h>
#include <stdio.h>

enum mb_status mb_checkpoint_note(struct mb_checkpoint *ckpt, struct mb_error *err, const char *format, ...)
{
    struct mb_bytes *notes = &ckpt->notes;
    char line[2 * 1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    mb_make_printable(line);
    /* All or nothing: what is there stays terminated. */
    if (!mb_bytes_reserve(notes, strlen(line) + 2))
        return mb_fail_memory(err, "the notes on a checkpoint");
    if (notes->n > 0)
        notes->p[notes->n++] = '\n';
    memcpy(notes->p + notes->n, line, strlen(line) + 1);
    notes->n += strlen(line);
    return MB_OK;
}
