/*
 * notes.h - what a checkpoint says of itself once: mb_checkpoint_notes.
 */
#ifndef MB_CHECKPOINT_NOTES_H
#define MB_CHECKPOINT_NOTES_H

#include "checkpoint.h"

/* Adds a line. MB_NO_MEMORY is the only failure. */
enum mb_status mb_checkpoint_note(struct mb_checkpoint *ckpt, struct mb_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
