/*
 * read.h - stored tensors read past the page cache: what is read once and kept need not be kept twice.
 */
#ifndef MB_STORE_READ_H
#define MB_STORE_READ_H

#include <moebius/checkpoint.h>

/* Positions, lengths and memory are multiples of this in a direct read. Blobs are stored so. */
enum { MB_READ_PAGE_NBYTES = 4096 };

struct mb_reader;

/* Opens all shards once more, for O_DIRECT. Where a file system has none, reads go through the page cache. */
enum mb_status mb_reader_open(const struct mb_checkpoint *ckpt, struct mb_reader **reader,
                              struct mb_error *err);

/* Lets the page cache forget the shards as well. NULL is fine. */
void mb_reader_close(struct mb_reader *reader);

/*
 * nbytes at 'pos' of a tensor: direct where all is aligned and the file takes it, else cached.  Allocates
 * nothing; any thread.
 */
enum mb_status mb_reader_read(const struct mb_reader *reader, const struct mb_tensor *tensor, uint64_t pos,
                              void *out, uint64_t nbytes, struct mb_error *err);

/* The file of a shard. -1: it could not be opened again. */
int mb_reader_fd(const struct mb_reader *reader, size_t shard);

#endif
