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

/* Notes safetensors files that neither are read nor belong to what is read, and links to what is not there.
 */
enum mb_status mb_note_other_files(struct mb_checkpoint *ckpt, struct mb_error *err);

/* MB_BAD_DATA: a file that is needed is not there, or a link to nothing.  'why': "the index names it". */
enum mb_status mb_fail_no_file(const char *path, const char *why, struct mb_error *err);

/* Files beside the weights that coded and decoded folders take over: tokenizers, templates, licences. */
bool mb_is_side_file(const char *name);

#endif
