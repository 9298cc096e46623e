/*
 * file.h - whole reads, whole writes, and files that appear finished or not at all.
 */
#ifndef MB_BASE_FILE_H
#define MB_BASE_FILE_H

#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/*
 * What is at a path: *info is filled where *is_there; 'info' may be NULL.  Nothing there is
 * no failure; a path that cannot be looked at is one.
 */
enum mb_status mb_look_at(const char *path, bool *is_there, struct stat *info, struct mb_error *err);

/*
 * Whether there is a file that a model may lack.  MB_BAD_DATA: there is a link to nothing, as half a download
 * leaves it.
 */
enum mb_status mb_look_for(const char *path, bool *is_there, struct mb_error *err);

/* Reads exactly nbytes at pos; a short file is MB_BAD_DATA ("truncated"). 'path' is for messages. */
enum mb_status mb_read_at(int fd, const char *path, uint64_t pos, void *out, uint64_t nbytes,
                          struct mb_error *err);
enum mb_status mb_write_at(int fd, const char *path, uint64_t pos, const void *bytes, uint64_t nbytes,
                           struct mb_error *err);

/* A regular file of at most max_nbytes, malloc'ed, with a 0 byte after it. */
enum mb_status mb_read_file(const char *path, uint64_t max_nbytes, char **bytes, size_t *nbytes,
                            struct mb_error *err);

/*
 * Creates the file that is renamed when it is complete, empty, and locks it until *fd is closed: rename it
 * before, so that nobody else begins to write it first.  MB_IO: another process is writing it.
 */
enum mb_status mb_create_partial(const char *path, int *fd, struct mb_error *err);

/* Writes PATH.tmp, fsyncs it, renames it to PATH and fsyncs the folder. MB_IO as mb_create_partial. */
enum mb_status mb_write_file(const char *path, const void *bytes, size_t nbytes, struct mb_error *err);

/* fsync of a folder, or of the folder that holds a path, so that renames in it survive a power cut. */
enum mb_status mb_sync_folder(const char *path, struct mb_error *err);
enum mb_status mb_sync_folder_of(const char *path, struct mb_error *err);

/* Longest path that we build; mb_join_path fails (MB_BAD_DATA) where it would not fit. */
enum { MB_PATH_MAX = 4096 };
enum mb_status mb_join_path(char out[MB_PATH_MAX], const char *folder, const char *name,
                            struct mb_error *err);

#endif
