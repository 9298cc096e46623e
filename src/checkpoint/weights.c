/*
 * weights.c - all weights of a folder in memory, looked up by their original names.
 *
 * Blobs and exact tensors of coded folders are read into one arena of 2 MiB pages, packed at 4096, and
 * checked there: kernels never read a mapping that somebody may change.  Tensors of plain folders stay
 * mapped.
 */
#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/pool.h"
#include "checkpoint.h"
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* A named matrix or vector. */
struct entry {
    char *name;
    const struct mb_tensor *tensor; /* that it is, or is inside of */
    const struct mb_coded_matrix *coded;
    const void *bytes; /* of exact tensors */
};

struct mb_weights {
    uint8_t *arena;
    uint64_t arena_nbytes;
    struct mb_blob *blobs; /* one for each tensor of the checkpoint; unused ones are zero */
    size_t n_tensors;
    struct entry *entries;
    size_t n_entries;
    const struct mb_checkpoint *ckpt;
    struct mb_weights_memory memory;
};

/* Reading and checking, a tensor a task. The first error by tensor number is kept. */
struct loading {
    const struct mb_checkpoint *ckpt;
    struct mb_weights *weights;
    uint64_t *places; /* of each tensor in the arena */
    int *direct_fds;  /* of each shard; -1: read with the page cache */
    pthread_mutex_t lock;
    size_t failed;
    struct mb_error err;
};

static bool is_aligned(const struct mb_tensor *tensor)
{
    return tensor->file_pos % MB_ST_PAGE_NBYTES == 0 && tensor->nbytes % MB_ST_PAGE_NBYTES == 0;
}

static enum mb_status read_tensor(struct loading *loading, const struct mb_tensor *tensor, uint8_t *to,
                                  struct mb_error *err)
{
    const struct mb_shard *shard = &loading->ckpt->shards[tensor->shard];
    int fd = loading->direct_fds[tensor->shard];
    if (fd >= 0 && is_aligned(tensor) &&
        mb_read_at(fd, shard->path, tensor->file_pos, to, tensor->nbytes, NULL) == MB_OK)
        return MB_OK;
    return mb_read_at(shard->fd, shard->path, tensor->file_pos, to, tensor->nbytes, err);
}

static enum mb_status check_exact(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                  const uint8_t *bytes, struct mb_error *err)
{
    uint64_t xxh3;
    if (!mb_exact_xxh3(ckpt, tensor, &xxh3))
        return mb_fail(err, MB_BAD_DATA, "no checksum in __metadata__");
    if (XXH3_64bits(bytes, tensor->nbytes) != xxh3)
        return mb_fail(err, MB_BAD_DATA, "the checksum does not match");
    return MB_OK;
}

static enum mb_status load_tensor(struct loading *loading, size_t i, struct mb_error *err)
{
    const struct mb_tensor *tensor = loading->ckpt->tensors[i];
    uint8_t *bytes = loading->weights->arena + loading->places[i];
    enum mb_status status = read_tensor(loading, tensor, bytes, err);
    if (status != MB_OK)
        return status;
    status = mb_tensor_is_blob(loading->ckpt, tensor)
                 ? mb_blob_open(bytes, tensor->nbytes, &loading->weights->blobs[i], err)
                 : check_exact(loading->ckpt, tensor, bytes, err);
    if (status != MB_OK)
        mb_fail_in(err, status, "%s: tensor %s", mb_tensor_path(loading->ckpt, tensor), tensor->name);
    return status;
}

static void load_task(void *ctx, size_t task, int thread)
{
    (void)thread;
    struct loading *loading = ctx;
    struct mb_error err;
    if (load_tensor(loading, task, &err) == MB_OK)
        return;
    pthread_mutex_lock(&loading->lock);
    if (task < loading->failed) {
        loading->failed = task;
        loading->err = err;
    }
    pthread_mutex_unlock(&loading->lock);
}

static enum mb_status place_arena(struct loading *loading, struct mb_error *err)
{
    const struct mb_checkpoint *ckpt = loading->ckpt;
    struct mb_weights *weights = loading->weights;
    uint64_t at = 0;
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        loading->places[i] = at;
        uint64_t nbytes = mb_round_up(ckpt->tensors[i]->nbytes, MB_ST_PAGE_NBYTES);
        if (!mb_add_u64(at, nbytes, &at))
            return mb_fail(err, MB_BAD_DATA, "%s: tensors of impossible sizes", ckpt->path);
        *(mb_tensor_is_blob(ckpt, ckpt->tensors[i]) ? &weights->memory.blob_nbytes
                                                    : &weights->memory.exact_nbytes) += nbytes;
    }
    weights->arena_nbytes = at + MB_ST_PAGE_NBYTES; /* kernels read a little behind the last one */
    weights->arena = mb_pages_alloc(weights->arena_nbytes);
    return weights->arena == NULL ? mb_fail_memory(err, "the weights") : MB_OK;
}

static void open_direct(struct loading *loading)
{
    for (size_t i = 0; i < loading->ckpt->n_shards; i++)
        loading->direct_fds[i] = open(loading->ckpt->shards[i].path, O_RDONLY | O_CLOEXEC | O_DIRECT);
}

/* What was read with the page cache need not stay there: the arena has it. */
static void close_direct(struct loading *loading)
{
    for (size_t i = 0; i < loading->ckpt->n_shards; i++) {
        if (loading->direct_fds[i] >= 0)
            close(loading->direct_fds[i]);
        posix_fadvise(loading->ckpt->shards[i].fd, 0, 0, POSIX_FADV_DONTNEED);
    }
}

static enum mb_status run_loading(struct loading *loading, int n_threads, struct mb_error *err)
{
    struct mb_pool *pool;
    enum mb_status status = place_arena(loading, err);
    if (status == MB_OK)
        status = mb_pool_create(n_threads, &pool, err);
    if (status != MB_OK)
        return status;
    open_direct(loading);
    loading->failed = SIZE_MAX;
    mb_pool_run(pool, loading->ckpt->n_tensors, load_task, loading);
    close_direct(loading);
    mb_pool_destroy(pool);
    if (loading->failed == SIZE_MAX)
        return MB_OK;
    if (err != NULL)
        *err = loading->err;
    return loading->err.status;
}

static enum mb_status load_coded(const struct mb_checkpoint *ckpt, int n_threads, struct mb_weights *weights,
                                 struct mb_error *err)
{
    struct loading loading = {
        .ckpt = ckpt,
        .weights = weights,
        .places = calloc(ckpt->n_tensors + 1, sizeof(uint64_t)),
        .direct_fds = calloc(ckpt->n_shards + 1, sizeof(int)),
        .lock = PTHREAD_MUTEX_INITIALIZER,
    };
    weights->blobs = calloc(ckpt->n_tensors + 1, sizeof *weights->blobs);
    weights->n_tensors = ckpt->n_tensors;
    enum mb_status status = MB_OK;
    if (loading.places == NULL || loading.direct_fds == NULL || weights->blobs == NULL)
        status = mb_fail_memory(err, "the list of blobs");
    if (status == MB_OK)
        status = run_loading(&loading, n_threads, err);
    for (size_t i = 0; i < ckpt->n_tensors && status == MB_OK; i++) {
        if (mb_tensor_is_blob(ckpt, ckpt->tensors[i])) {
            weights->n_entries += weights->blobs[i].n_matrices;
            weights->memory.table_nbytes += weights->blobs[i].tables_nbytes;
        } else {
            weights->n_entries++;
        }
    }
    if (status == MB_OK) {
        weights->entries = calloc(weights->n_entries + 1, sizeof *weights->entries);
        status = weights->entries == NULL ? mb_fail_memory(err, "the list of weights") : MB_OK;
    }
    size_t n = 0;
    for (size_t i = 0; i < ckpt->n_tensors && status == MB_OK; i++) {
        const struct mb_tensor *tensor = ckpt->tensors[i];
        const struct mb_blob *blob = &weights->blobs[i];
        if (blob->n_matrices == 0)
            weights->entries[n++] =
                (struct entry){strdup(tensor->name), tensor, NULL, weights->arena + loading.places[i]};
        for (size_t m = 0; m < blob->n_matrices; m++)
            weights->entries[n++] =
                (struct entry){mb_blob_full_name(tensor, &blob->info[m]), tensor, &blob->matrix[m], NULL};
    }
    weights->memory.table_nbytes += weights->n_entries * sizeof *weights->entries;
    free(loading.places);
    free(loading.direct_fds);
    return status;
}

static enum mb_status load_plain(const struct mb_checkpoint *ckpt, struct mb_weights *weights,
                                 struct mb_error *err)
{
    weights->entries = calloc(ckpt->n_tensors + 1, sizeof *weights->entries);
    if (weights->entries == NULL)
        return mb_fail_memory(err, "the list of weights");
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        const struct mb_tensor *tensor = ckpt->tensors[i];
        const uint8_t *map = ckpt->shards[tensor->shard].map;
        weights->entries[weights->n_entries++] =
            (struct entry){strdup(tensor->name), tensor, NULL, map + tensor->file_pos};
        weights->memory.mapped_nbytes += tensor->nbytes;
    }
    return MB_OK;
}

static int entry_by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static enum mb_status sort_entries(struct mb_weights *weights, struct mb_error *err)
{
    for (size_t i = 0; i < weights->n_entries; i++)
        if (weights->entries[i].name == NULL)
            return mb_fail_memory(err, "the list of weights");
    qsort(weights->entries, weights->n_entries, sizeof *weights->entries, entry_by_name);
    for (size_t i = 1; i < weights->n_entries; i++)
        if (strcmp(weights->entries[i].name, weights->entries[i - 1].name) == 0)
            return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: %s is there twice",
                           mb_tensor_path(weights->ckpt, weights->entries[i].tensor),
                           weights->entries[i].tensor->name, weights->entries[i].name);
    return MB_OK;
}

enum mb_status mb_weights_load(const struct mb_checkpoint *ckpt, int n_threads, struct mb_weights **weights,
                               struct mb_error *err)
{
    struct mb_weights *w = calloc(1, sizeof *w);
    if (w == NULL)
        return mb_fail_memory(err, "the list of weights");
    w->ckpt = ckpt;
    enum mb_status status = ckpt->is_coded ? load_coded(ckpt, n_threads, w, err) : load_plain(ckpt, w, err);
    if (status == MB_OK)
        status = sort_entries(w, err);
    if (status != MB_OK) {
        mb_weights_free(w);
        return status;
    }
    *weights = w;
    return MB_OK;
}

void mb_weights_free(struct mb_weights *weights)
{
    if (weights == NULL)
        return;
    for (size_t i = 0; weights->entries != NULL && i < weights->n_entries; i++)
        free(weights->entries[i].name);
    free(weights->entries);
    for (size_t i = 0; i < weights->n_tensors && weights->blobs != NULL; i++)
        mb_blob_close(&weights->blobs[i]);
    free(weights->blobs);
    mb_pages_free(weights->arena, weights->arena_nbytes);
    free(weights);
}

struct mb_weights_memory mb_weights_memory(const struct mb_weights *weights)
{
    return weights->memory;
}

static const struct entry *find_entry(const struct mb_weights *weights, const char *name)
{
    const struct entry key = {.name = (char *)name};
    return bsearch(&key, weights->entries, weights->n_entries, sizeof key, entry_by_name);
}

bool mb_weights_has(const struct mb_weights *weights, const char *name)
{
    return find_entry(weights, name) != NULL;
}

static enum mb_status wrong_shape(const struct mb_weights *weights, const struct entry *entry,
                                  uint64_t n_rows, uint64_t n_cols, uint64_t rows_asked, uint64_t cols_asked,
                                  struct mb_error *err)
{
    return mb_fail(err, MB_BAD_DATA,
                   "%s: tensor %s: shape [%" PRIu64 ", %" PRIu64 "], but config.json asks for [%" PRIu64
                   ", %" PRIu64 "]",
                   mb_tensor_path(weights->ckpt, entry->tensor), entry->name, n_rows, n_cols, rows_asked,
                   cols_asked);
}

static enum mb_status missing(const struct mb_weights *weights, const char *name, struct mb_error *err)
{
    return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: missing, but config.json asks for it",
                   weights->ckpt->path, name);
}

enum mb_status mb_weights_matrix(const struct mb_weights *weights, const char *name, uint64_t n_rows,
                                 uint64_t n_cols, struct mb_matrix *matrix, struct mb_error *err)
{
    const struct entry *entry = find_entry(weights, name);
    if (entry == NULL)
        return missing(weights, name, err);
    *matrix =
        (struct mb_matrix){.is_coded = entry->coded != NULL, .n_rows = n_rows, .n_cols = (size_t)n_cols};
    if (entry->coded != NULL) {
        matrix->coded = *entry->coded;
        if (entry->coded->n_rows != n_rows || entry->coded->n_cols != n_cols)
            return wrong_shape(weights, entry, entry->coded->n_rows, entry->coded->n_cols, n_rows, n_cols,
                               err);
        return MB_OK;
    }
    const struct mb_tensor *tensor = entry->tensor;
    if (tensor->type > MB_TENSOR_BF16 || tensor->n_dims != 2)
        return mb_fail(err, tensor->type == MB_TENSOR_F8_E4M3 ? MB_UNSUPPORTED : MB_BAD_DATA,
                       "%s: tensor %s: %s with %zu dimensions is not a matrix of F32, F16 or BF16",
                       mb_tensor_path(weights->ckpt, tensor), name, tensor->type_name, tensor->n_dims);
    if (tensor->shape[0] != n_rows || tensor->shape[1] != n_cols)
        return wrong_shape(weights, entry, tensor->shape[0], tensor->shape[1], n_rows, n_cols, err);
    matrix->dtype = (enum mb_dtype)tensor->type;
    matrix->dense = entry->bytes;
    return MB_OK;
}

static float load_value(enum mb_tensor_type type, const uint8_t *bytes, uint64_t i)
{
    if (type == MB_TENSOR_F32)
        return mb_float_of_bits(mb_load_u32(bytes + 4 * i));
    uint16_t half = mb_load_u16(bytes + 2 * i);
    return type == MB_TENSOR_F16 ? mb_float_of_f16(half) : mb_float_of_bf16(half);
}

enum mb_status mb_weights_vector(const struct mb_weights *weights, const char *name, uint64_t n, float *out,
                                 struct mb_error *err)
{
    const struct entry *entry = find_entry(weights, name);
    if (entry == NULL)
        return missing(weights, name, err);
    const struct mb_tensor *tensor = entry->tensor;
    if (entry->coded != NULL || tensor->type > MB_TENSOR_BF16 || tensor->n_elems != n)
        return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: not %" PRIu64 " numbers of F32, F16 or BF16",
                       mb_tensor_path(weights->ckpt, tensor), name, n);
    for (uint64_t i = 0; i < n; i++)
        out[i] = load_value(tensor->type, entry->bytes, i);
    return MB_OK;
}
