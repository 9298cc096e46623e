/*
 * folder_files.h - what a folder holds beside the weights that are read, or in their place.
 */
#ifndef MB_CHECKPOINT_FOLDER_FILES_H
#define MB_CHECKPOINT_FOLDER_FILES_H

#include "checkpoint.h"

#define MB_SINGLE_NAME "model.safetensors"
#define MB_INDEX_NAME "model.safetensors.index.json"

/*
 * Calls fn for each entry of a folder but "." and ".." until one fails.  Not reading the folder to its end is
 * a failure.
 */
typedef enum mb_status (*mb_file_fn)(void *ctx, const char *folder, const char *name, struct mb_error *err);
enum mb_status mb_for_each_file(const char *path, mb_file_fn fn, void *ctx, struct mb_error *err);

/* Notes safetensors files that neither are read nor belong to what is read. */
enum mb_status mb_note_other_weights(struct mb_checkpoint *ckpt, struct mb_error *err);

#endif
