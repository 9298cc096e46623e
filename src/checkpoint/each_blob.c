/*
 * each_blob.c - the loop that verify and decompress share: load a blob, decode its rows on all threads, next.
 */
#include "each_blob.h"
#include "base/memory.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const uint64_t PREFETCH_NBYTES_MAX = 64 << 20; /* of a blob that is loaded ahead */

/* ---------------------------------------------------------------- blobs */

/* A blob in memory of its own, checked. */
struct loaded_blob {
    const struct mb_tensor *tensor; /* NULL: none */
    uint8_t *bytes;
    struct mb_blob blob;
};

static enum mb_status fill_blob(const struct mb_checkpoint *ckpt, struct loaded_blob *loaded,
                                struct mb_error *err)
{
    const struct mb_tensor *tensor = loaded->tensor;
    MB_TRY(mb_checkpoint_read(ckpt, tensor, 0, loaded->bytes, tensor->nbytes, err));
    enum mb_status status = mb_blob_open(loaded->bytes, tensor->nbytes, &loaded->blob, err);
    if (status != MB_OK)
        mb_fail_in(err, status, "%s: tensor %s", mb_tensor_path(ckpt, tensor), tensor->name);
    return status;
}

static void unload_blob(struct loaded_blob *loaded)
{
    if (loaded->tensor == NULL)
        return;
    mb_blob_close(&loaded->blob);
    mb_pages_free(loaded->bytes, loaded->tensor->nbytes + MB_SLACK_NBYTES);
    *loaded = (struct loaded_blob){0};
}

static enum mb_status load_blob(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                struct loaded_blob *loaded, struct mb_error *err)
{
    *loaded = (struct loaded_blob){.bytes = mb_pages_alloc(tensor->nbytes + MB_SLACK_NBYTES)};
    if (loaded->bytes == NULL)
        return mb_fail_memory(err, "a blob");
    loaded->tensor = tensor;
    enum mb_status status = fill_blob(ckpt, loaded, err);
    if (status != MB_OK)
        unload_blob(loaded);
    return status;
}

static enum mb_status fill_header(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                  struct mb_blob_header *header, struct mb_error *err)
{
    uint8_t first[MB_BLOB_FRAME_NBYTES] = {0};
    struct mb_blob_frame frame;
    if (tensor->nbytes >= sizeof first)
        MB_TRY(mb_checkpoint_read(ckpt, tensor, 0, first, sizeof first, err));
    MB_TRY(mb_blob_read_frame(first, tensor->nbytes, &frame, err));
    header->bytes = malloc(frame.header_nbytes);
    header->infos = calloc(frame.n_matrices, sizeof *header->infos);
    header->n_matrices = frame.n_matrices;
    if (header->bytes == NULL || header->infos == NULL)
        return mb_fail_memory(err, "the header of a blob");
    MB_TRY(mb_checkpoint_read(ckpt, tensor, 0, header->bytes, frame.header_nbytes, err));
    return mb_blob_read_header(header->bytes, &frame, header->infos, err);
}

enum mb_status mb_load_blob_header(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                   struct mb_blob_header *header, struct mb_error *err)
{
    *header = (struct mb_blob_header){0};
    enum mb_status status = fill_header(ckpt, tensor, header, err);
    if (status == MB_OK)
        return MB_OK;
    mb_free_blob_header(header);
    return mb_fail_in(err, status, "%s: tensor %s", mb_tensor_path(ckpt, tensor), tensor->name);
}

void mb_free_blob_header(struct mb_blob_header *header)
{
    free(header->bytes);
    free(header->infos);
    *header = (struct mb_blob_header){0};
}

/* ---------------------------------------------------------------- rows of a blob, in parallel */

struct walk {
    const struct mb_checkpoint *ckpt;
    const struct mb_walk_ops *ops;
    void *ctx;
    struct mb_pool *pool;
    float *decoded; /* [n_threads][MB_WALK_WEIGHTS] */

    struct loaded_blob now, next;
    const struct mb_tensor *prefetch; /* to be loaded into 'next'; NULL: nothing */
    enum mb_status prefetch_status;
    struct mb_error prefetch_err;

    struct mb_walk_matrix *matrices; /* of 'now' */
    uint64_t *first_chunks;          /* [n_matrices + 1] */

    pthread_mutex_t lock;
    size_t failed; /* the lowest task that did */
    enum mb_status status;
    struct mb_error err;
};

static uint64_t chunk_rows(const struct mb_coded_matrix *coded)
{
    uint64_t n_groups = MB_WALK_WEIGHTS / (coded->group_rows * coded->n_cols);
    return coded->group_rows * (n_groups == 0 ? 1 : n_groups);
}

/* The matrix that a chunk belongs to. */
static size_t find_matrix(const struct walk *walk, uint64_t chunk)
{
    size_t low = 0, high = walk->now.blob.n_matrices;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (walk->first_chunks[middle] <= chunk)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static enum mb_status walk_rows(struct walk *walk, uint64_t chunk, int thread, struct mb_error *err)
{
    size_t i = find_matrix(walk, chunk);
    const struct mb_walk_matrix *matrix = &walk->matrices[i];
    uint64_t rows = chunk_rows(matrix->coded), row = (chunk - walk->first_chunks[i]) * rows;
    uint64_t n_rows = matrix->coded->n_rows - row < rows ? matrix->coded->n_rows - row : rows;
    float *decoded = walk->decoded + (size_t)thread * MB_WALK_WEIGHTS;
    mb_kernels()->decode_rows(matrix->coded, row, n_rows, decoded);
    return walk->ops->rows(walk->ctx, matrix, row, n_rows, decoded, thread, err);
}

/* Task 0 loads the next blob. */
static void walk_task(void *ctx, size_t task, int thread)
{
    struct walk *walk = ctx;
    if (task == 0) {
        if (walk->prefetch != NULL)
            walk->prefetch_status = load_blob(walk->ckpt, walk->prefetch, &walk->next, &walk->prefetch_err);
        return;
    }
    struct mb_error err;
    enum mb_status status = walk_rows(walk, task - 1, thread, &err);
    if (status == MB_OK)
        return;
    pthread_mutex_lock(&walk->lock);
    if (task < walk->failed) {
        walk->failed = task;
        walk->status = status;
        walk->err = err;
    }
    pthread_mutex_unlock(&walk->lock);
}

static void free_matrices(struct walk *walk)
{
    for (size_t i = 0; i < walk->now.blob.n_matrices && walk->matrices != NULL; i++) {
        if (walk->ops->drop != NULL && walk->matrices[i].user != NULL)
            walk->ops->drop(walk->ctx, walk->matrices[i].user);
        free(walk->matrices[i].name);
        free(walk->matrices[i].user);
    }
    free(walk->matrices);
    free(walk->first_chunks);
    walk->matrices = NULL;
    walk->first_chunks = NULL;
}

static enum mb_status make_matrices(struct walk *walk, struct mb_error *err)
{
    const struct mb_blob *blob = &walk->now.blob;
    walk->matrices = calloc(blob->n_matrices, sizeof *walk->matrices);
    walk->first_chunks = calloc(blob->n_matrices + 1, sizeof *walk->first_chunks);
    if (walk->matrices == NULL || walk->first_chunks == NULL)
        return mb_fail_memory(err, "the matrices of a blob");
    for (size_t i = 0; i < blob->n_matrices; i++) {
        const struct mb_coded_matrix *coded = &blob->matrix[i];
        uint64_t rows = chunk_rows(coded);
        walk->matrices[i] = (struct mb_walk_matrix){
            .tensor = walk->now.tensor,
            .index = i,
            .info = &blob->info[i],
            .coded = coded,
            .name = mb_blob_full_name(walk->now.tensor, &blob->info[i]),
            .user = calloc(1, walk->ops->user_nbytes),
        };
        if (walk->matrices[i].name == NULL || walk->matrices[i].user == NULL)
            return mb_fail_memory(err, "the work on a matrix");
        MB_TRY(mb_blob_check_exponents(walk->ckpt, walk->now.tensor, &blob->info[i], walk->matrices[i].name,
                                       err));
        walk->first_chunks[i + 1] = walk->first_chunks[i] + (coded->n_rows + rows - 1) / rows;
    }
    return MB_OK;
}

static enum mb_status run_rows(struct walk *walk, struct mb_error *err)
{
    walk->failed = SIZE_MAX;
    walk->status = walk->prefetch_status = MB_OK;
    mb_pool_run(walk->pool, 1 + (size_t)walk->first_chunks[walk->now.blob.n_matrices], walk_task, walk);
    return mb_pass_on(err, walk->status, &walk->err);
}

static enum mb_status decode_matrices(struct walk *walk, struct mb_error *err)
{
    size_t n = walk->now.blob.n_matrices;
    MB_TRY(make_matrices(walk, err));
    for (size_t i = 0; i < n; i++)
        MB_TRY(walk->ops->begin(walk->ctx, &walk->matrices[i], err));
    MB_TRY(run_rows(walk, err));
    for (size_t i = 0; i < n; i++)
        MB_TRY(walk->ops->end(walk->ctx, &walk->matrices[i], err));
    return MB_OK;
}

/* The blob of a tensor becomes walk->now: read by now, or to be read. */
static enum mb_status take_blob(struct walk *walk, const struct mb_tensor *tensor, struct mb_error *err)
{
    if (walk->prefetch != tensor)
        return load_blob(walk->ckpt, tensor, &walk->now, err);
    walk->now = walk->next;
    walk->next = (struct loaded_blob){0};
    return mb_pass_on(err, walk->prefetch_status, &walk->prefetch_err);
}

/* 'after': the tensor that follows, to be loaded meanwhile. */
static enum mb_status walk_blob(struct walk *walk, const struct mb_tensor *tensor,
                                const struct mb_tensor *after, struct mb_error *err)
{
    MB_TRY(take_blob(walk, tensor, err));
    walk->prefetch = NULL;
    if (after != NULL && mb_tensor_is_blob(walk->ckpt, after) && after->nbytes <= PREFETCH_NBYTES_MAX)
        walk->prefetch = after;
    enum mb_status status = decode_matrices(walk, err);
    free_matrices(walk);
    unload_blob(&walk->now);
    return status;
}

/* ---------------------------------------------------------------- exact tensors */

static enum mb_status walk_pieces(struct walk *walk, const struct mb_tensor *tensor, uint8_t *buffer,
                                  XXH3_state_t *hash, struct mb_error *err)
{
    uint64_t pos = 0;
    XXH3_64bits_reset(hash);
    do {
        uint64_t n_left = tensor->nbytes - pos,
                 nbytes = n_left < MB_WALK_PIECE_NBYTES ? n_left : MB_WALK_PIECE_NBYTES;
        MB_TRY(mb_checkpoint_read(walk->ckpt, tensor, pos, buffer, nbytes, err));
        XXH3_64bits_update(hash, buffer, nbytes);
        MB_TRY(walk->ops->exact(walk->ctx, tensor, pos, buffer, nbytes, err));
        pos += nbytes;
    } while (pos < tensor->nbytes);
    return MB_OK;
}

static enum mb_status walk_exact(struct walk *walk, const struct mb_tensor *tensor, struct mb_error *err)
{
    uint64_t xxh3;
    if (!mb_exact_xxh3(walk->ckpt, tensor, &xxh3))
        return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: no checksum in __metadata__",
                       mb_tensor_path(walk->ckpt, tensor), tensor->name);
    uint8_t *buffer = malloc(MB_WALK_PIECE_NBYTES);
    XXH3_state_t *hash = XXH3_createState();
    enum mb_status status = buffer == NULL || hash == NULL ? mb_fail_memory(err, "the pieces of a tensor")
                                                           : walk_pieces(walk, tensor, buffer, hash, err);
    if (status == MB_OK && XXH3_64bits_digest(hash) != xxh3)
        status = mb_fail(err, MB_BAD_DATA, "%s: tensor %s: the checksum does not match: the file is damaged",
                         mb_tensor_path(walk->ckpt, tensor), tensor->name);
    XXH3_freeState(hash);
    free(buffer);
    return status;
}

/* ---------------------------------------------------------------- the walk */

static enum mb_status walk_tensors(struct walk *walk, size_t first, size_t n, struct mb_progress *progress,
                                   const char *what, struct mb_error *err)
{
    for (size_t i = first; i < first + n; i++) {
        const struct mb_tensor *tensor = walk->ckpt->tensors[i],
                               *after = i + 1 < first + n ? walk->ckpt->tensors[i + 1] : NULL;
        if (mb_tensor_is_blob(walk->ckpt, tensor))
            MB_TRY(walk_blob(walk, tensor, after, err));
        else
            MB_TRY(walk_exact(walk, tensor, err));
        MB_TRY(mb_progress_add(progress, what, tensor->nbytes, err));
    }
    return MB_OK;
}

enum mb_status mb_walk(const struct mb_checkpoint *ckpt, size_t first, size_t n, struct mb_pool *pool,
                       const struct mb_walk_ops *ops, void *ctx, struct mb_progress *progress,
                       const char *what, struct mb_error *err)
{
    uint64_t n_weights = (uint64_t)mb_pool_n_threads(pool) * MB_WALK_WEIGHTS;
    struct walk *walk = calloc(1, sizeof *walk);
    if (walk == NULL)
        return mb_fail_memory(err, "the walk over the tensors");
    walk->ckpt = ckpt;
    walk->ops = ops;
    walk->ctx = ctx;
    walk->pool = pool;
    walk->decoded = mb_alloc(n_weights, sizeof(float));
    pthread_mutex_init(&walk->lock, NULL);
    enum mb_status status = walk->decoded == NULL ? mb_fail_memory(err, "the weights of a piece")
                                                  : walk_tensors(walk, first, n, progress, what, err);
    unload_blob(&walk->next);
    pthread_mutex_destroy(&walk->lock);
    free(walk->decoded);
    free(walk);
    return status;
}
