/*
 * shard_writer.h - a file of the output folder, written under a temporary name and noted when it is finished.
 */
#ifndef MB_CHECKPOINT_SHARD_WRITER_H
#define MB_CHECKPOINT_SHARD_WRITER_H

#include "output_folder.h"

struct mb_shard_writer {
    struct mb_output *output;
    char name[48];
    char path[MB_PATH_MAX], temporary[MB_PATH_MAX];
    int fd;
    struct mb_tensor *tensors; /* as planned; file_pos from the data section's beginning */
    size_t n_tensors, n_planned;
    json_t *metadata;
    json_t *output_errors; /* after it in the header, so that the order of keys does not depend on threads */
    uint64_t data_pos;
    uint64_t at; /* where the next byte goes, from the data section's beginning */
};

/* Matrices of which output errors may be kept: the header has room for them. NULL in its place: none. */
struct mb_shard_errors {
    const char *const *names; /* [n] full names */
    size_t n;
};

/* 'planned': the tensors to come, in order, names borrowed. The header has room for any sizes of them. */
enum mb_status mb_shard_begin(struct mb_output *output, size_t shard, size_t n_shards,
                              const struct mb_tensor *planned, size_t n_planned,
                              const struct mb_shard_errors *errors, struct mb_shard_writer *writer,
                              struct mb_error *err);
enum mb_status mb_shard_write(struct mb_shard_writer *writer, const void *bytes, uint64_t nbytes,
                              struct mb_error *err);
enum mb_status mb_shard_write_at(struct mb_shard_writer *writer, uint64_t at, const void *bytes,
                                 uint64_t nbytes, struct mb_error *err);

/* Makes the data section so long, with zeros where nothing was written. All of it can be read back. */
enum mb_status mb_shard_extend(struct mb_shard_writer *writer, uint64_t nbytes, struct mb_error *err);
enum mb_status mb_shard_read_at(struct mb_shard_writer *writer, uint64_t at, void *bytes, uint64_t nbytes,
                                struct mb_error *err);

/* The next of the planned tensors begins at 'begin' and ends where the next byte will go. */
enum mb_status mb_shard_add(struct mb_shard_writer *writer, uint64_t begin, struct mb_error *err);

/* Keeps an exact tensor's checksum. */
enum mb_status mb_shard_add_xxh3(struct mb_shard_writer *writer, const char *name, uint64_t xxh3,
                                 struct mb_error *err);

/* Keeps what the blob that was added last was coded from (reuse.h). */
enum mb_status mb_shard_add_origin(struct mb_shard_writer *writer, uint64_t origin, struct mb_error *err);

/* Keeps a matrix's output error as its text. */
enum mb_status mb_shard_add_output_error_text(struct mb_shard_writer *writer, const char *name,
                                              const char *text, struct mb_error *err);

/* Keeps a matrix's output error, rounded up. */
enum mb_status mb_shard_add_output_error(struct mb_shard_writer *writer, const char *name,
                                         const struct mb_output_error *error, struct mb_error *err);

/* Header, fsync, note of the report, rename. The writer is closed, also after a failure. */
enum mb_status mb_shard_end(struct mb_shard_writer *writer, uint64_t plan, const json_t *report,
                            struct mb_error *err);
void mb_shard_cancel(struct mb_shard_writer *writer);

/* Bytes before the data section for these tensors. 0: no memory. */
uint64_t mb_shard_data_pos(const struct mb_tensor *planned, size_t n_planned,
                           const struct mb_shard_errors *errors);

#endif
