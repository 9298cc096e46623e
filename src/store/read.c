/*
 * read.c - direct reads of stored tensors, and cached ones where direct reads do not work.
 */
#include "read.h"
#include "base/error.h"
#include "base/file.h"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct mb_reader {
    const struct mb_checkpoint *ckpt;
    size_t n_shards;
    struct shard {
        int fd; /* -1: it could not be opened again */
        bool is_direct;
    } shards[];
};

static void open_shard(const struct mb_checkpoint *ckpt, size_t i, struct shard *shard)
{
    char path[MB_PATH_MAX];
    shard->fd = -1;
    if (mb_join_path(path, mb_checkpoint_path(ckpt), mb_checkpoint_shard_name(ckpt, i), NULL) != MB_OK)
        return;
    shard->fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    shard->is_direct = shard->fd >= 0;
    if (!shard->is_direct)
        shard->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

enum mb_status mb_reader_open(const struct mb_checkpoint *ckpt, struct mb_reader **reader,
                              struct mb_error *err)
{
    size_t n = mb_checkpoint_n_shards(ckpt);
    struct mb_reader *r = malloc(sizeof *r + n * sizeof r->shards[0]);
    if (r == NULL)
        return mb_fail_memory(err, "the list of open files");
    r->ckpt = ckpt;
    r->n_shards = n;
    for (size_t i = 0; i < n; i++)
        open_shard(ckpt, i, &r->shards[i]);
    *reader = r;
    return MB_OK;
}

void mb_reader_close(struct mb_reader *reader)
{
    if (reader == NULL)
        return;
    for (size_t i = 0; i < reader->n_shards; i++) {
        if (reader->shards[i].fd < 0)
            continue;
        posix_fadvise(reader->shards[i].fd, 0, 0, POSIX_FADV_DONTNEED);
        close(reader->shards[i].fd);
    }
    free(reader);
}

enum mb_status mb_reader_read(const struct mb_reader *reader, const struct mb_tensor *tensor, uint64_t pos,
                              void *out, uint64_t nbytes, struct mb_error *err)
{
    const struct shard *shard = &reader->shards[tensor->shard];
    uint64_t file_pos = tensor->file_pos + pos;
    bool is_aligned = (file_pos | nbytes | (uintptr_t)out) % MB_READ_PAGE_NBYTES == 0;
    bool is_inside = pos <= tensor->nbytes && nbytes <= tensor->nbytes - pos;
    if (shard->is_direct && is_aligned && is_inside &&
        mb_read_at(shard->fd, mb_checkpoint_shard_name(reader->ckpt, tensor->shard), file_pos, out, nbytes,
                   NULL) == MB_OK)
        return MB_OK;
    return mb_checkpoint_read(reader->ckpt, tensor, pos, out, nbytes, err);
}

int mb_reader_fd(const struct mb_reader *reader, size_t shard)
{
    return reader->shards[shard].fd;
}
