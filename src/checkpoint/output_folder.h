/*
 * output_folder.h - folders that appear finished or not at all, and work on them that resumes.
 *
 * Files are made in OUT.partial, which is locked while somebody writes there.  OUT.partial.json notes what is
 * being made of what, and which shards are done: it stands beside the folder, so that the one rename at the
 * end leaves nothing behind in OUT, at whatever moment the program is killed.
 */
#ifndef MB_CHECKPOINT_OUTPUT_FOLDER_H
#define MB_CHECKPOINT_OUTPUT_FOLDER_H

#include "base/file.h"
#include "checkpoint.h"

struct mb_output {
    char path[MB_PATH_MAX], partial[MB_PATH_MAX], note_path[MB_PATH_MAX];
    int folder_fd; /* of the partial folder, locked */
    uint64_t folder_inode;
    bool replaces; /* a finished folder is there, and goes */
    bool is_done;  /* an earlier call was killed after its last rename: only the note has to go */
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

/* fsync, rename. The output is closed whatever comes of it. */
enum mb_status mb_output_finish(struct mb_output *output, struct mb_error *err);

/* After a failure: what is finished stays for the next time, but nothing when the input is at fault. */
void mb_output_abandon(struct mb_output *output, enum mb_status status);

/* The report of a shard that an earlier call finished (borrowed), or NULL. 'plan': the hash of what it holds.
 */
const json_t *mb_output_report(const struct mb_output *output, size_t shard, size_t n_shards, uint64_t plan);

/*
 * What a folder has beside its shards: the index, which needs them all, and tokenizer and generation files as
 * in 'from'; then output->files is complete, and config.json can be written.
 */
enum mb_status mb_output_write_files(struct mb_output *output, const struct mb_checkpoint *from,
                                     size_t n_shards, struct mb_error *err);
enum mb_status mb_output_write_config(const struct mb_output *output, const char *text, struct mb_error *err);

/* The identity of an input: names, sizes, times and headers of its files. A new reference; NULL: no memory.
 */
json_t *mb_input_identity(const struct mb_checkpoint *ckpt);

/* ---------------------------------------------------------------- one shard */

struct mb_shard_writer {
    struct mb_output *output;
    char name[48];
    char path[MB_PATH_MAX], temporary[MB_PATH_MAX];
    int fd;
    struct mb_tensor *tensors; /* as planned; file_pos from the data section's beginning */
    size_t n_tensors, n_planned;
    json_t *metadata;
    uint64_t data_pos;
    uint64_t at; /* where the next byte goes, from the data section's beginning */
};

/* 'planned': the tensors to come, in order, names borrowed. The header has room for whatever sizes they get.
 */
enum mb_status mb_shard_begin(struct mb_output *output, size_t shard, size_t n_shards,
                              const struct mb_tensor *planned, size_t n_planned,
                              struct mb_shard_writer *writer, struct mb_error *err);
enum mb_status mb_shard_write(struct mb_shard_writer *writer, const void *bytes, uint64_t nbytes,
                              struct mb_error *err);
enum mb_status mb_shard_write_at(struct mb_shard_writer *writer, uint64_t at, const void *bytes,
                                 uint64_t nbytes, struct mb_error *err);

/* The next of the planned tensors begins at 'begin' and ends where writing stands. */
enum mb_status mb_shard_add(struct mb_shard_writer *writer, uint64_t begin, struct mb_error *err);

/* Keeps an exact tensor's checksum. */
enum mb_status mb_shard_add_xxh3(struct mb_shard_writer *writer, const char *name, uint64_t xxh3,
                                 struct mb_error *err);
/* Header, fsync, rename, and a note of the report. The writer is closed whatever comes of it. */
enum mb_status mb_shard_end(struct mb_shard_writer *writer, uint64_t plan, const json_t *report,
                            struct mb_error *err);
void mb_shard_cancel(struct mb_shard_writer *writer);

/* Bytes before the data section for these tensors. 0: no memory. */
uint64_t mb_shard_data_pos(const struct mb_tensor *planned, size_t n_planned);

#endif
