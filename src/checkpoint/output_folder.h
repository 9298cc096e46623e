/*
 * output_folder.h - folders that appear finished or not at all, and work on them that resumes.
 *
 * Files are made in OUT.partial, which is locked while a process writes there.  OUT.partial.json notes what
 * is being made of what, and which shards are done.  It lies beside the folder, so that OUT is complete and
 * holds nothing else after the one rename at the end, whenever the program is killed.
 */
#ifndef MB_CHECKPOINT_OUTPUT_FOLDER_H
#define MB_CHECKPOINT_OUTPUT_FOLDER_H

#include "base/file.h"
#include "checkpoint.h"

struct mb_output {
    char path[MB_PATH_MAX], partial[MB_PATH_MAX], note_path[MB_PATH_MAX];
    int folder_fd; /* of the partial folder, locked */
    uint64_t folder_inode;
    bool is_inside; /* the partial folder is in OUT, which was there and empty */
    bool replaces;  /* a finished folder is there and will be removed */
    bool is_done;   /* an earlier call made all files, and was killed while it moved them or cleaned up */
    json_t *note;
    json_t *files; /* checksums by name of what is beside config.json; of shards that of the header */
};

/*
 * 'work' is {"input": ..., "options": ...}: what is made of what.  Work noted with an equal object goes on.
 * Without 'force' MB_USAGE when OUT exists or OUT.partial holds other work; with it shards of the same input
 * are kept for mb_output_report to judge.  MB_USAGE too when OUT is the input or a symbolic link, or when
 * files would go that no model folder has; MB_IO when another process is writing there.
 */
enum mb_status mb_output_open(const char *path, const struct mb_checkpoint *from, const json_t *work,
                              bool force, struct mb_output *output, struct mb_error *err);

/* Make the files last, then rename the folder. The output is closed, also after a failure. */
enum mb_status mb_output_finish(struct mb_output *output, struct mb_error *err);

/* After a failure: finished shards stay for the next call, unless the input is at fault. */
void mb_output_abandon(struct mb_output *output, enum mb_status status);

/* The report of a shard that an earlier call finished (borrowed), or NULL. 'plan': hash of what it holds. */
const json_t *mb_output_report(const struct mb_output *output, size_t shard, size_t n_shards, uint64_t plan);

/* Notes a shard that is finished but for its rename: if it is noted and not there, it is made again. */
enum mb_status mb_output_note_shard(struct mb_output *output, const char *file, uint64_t plan,
                                    const json_t *report, struct mb_error *err);

/*
 * What a folder has beside its shards: the index, which needs them all, and tokenizer and generation files as
 * in 'from'; then output->files is complete, and config.json can be written.
 */
enum mb_status mb_output_write_files(struct mb_output *output, const struct mb_checkpoint *from,
                                     size_t n_shards, struct mb_error *err);
enum mb_status mb_output_write_config(const struct mb_output *output, const char *text, struct mb_error *err);

/* The identity of an input: names, sizes, times, headers of its files. A new reference; NULL: no memory. */
json_t *mb_input_identity(const struct mb_checkpoint *ckpt);

#endif
