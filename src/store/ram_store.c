/*
 * ram_store.c - all weights in memory.
 *
 * Blobs and exact tensors of coded folders are read into one arena of 2 MiB pages, packed at 4096, and
 * checked there: kernels never read a mapping that somebody may change.  Tensors of plain folders stay
 * mapped, but for those that are computed: each is read when it is first viewed, so that what nobody uses
 * takes no memory.
 *
 * Where kernels have a faster form for matrices in memory and it pays, blobs are read into memory that is
 * used again, and the arena has exact tensors alone.
 */
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/pool.h"
#include "check.h"
#include "form_choice.h"
#include "read.h"
#include "resident.h"
#include "store.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A stored tensor. */
struct held {
    uint8_t *bytes;
    struct mb_blob blob; /* where it is one */
    uint8_t *tables;     /* of the blob, in ram->tables */
    uint8_t *computed;   /* 'bytes' where they are memory of their own, else NULL */
};

struct ram_store {
    const struct mb_index *index;
    const struct mb_checkpoint *ckpt;
    struct held *held; /* [n_tensors] of the checkpoint */
    size_t n_tensors;
    uint8_t *arena;
    uint64_t arena_nbytes;
    uint8_t *tables; /* of all blobs */
    struct mb_resident
        *resident; /* matrices in the faster form; NULL: they are in the arena as they were stored */
    struct mb_store_memory memory;
};

/* ---------------------------------------------------------------- places */

/* Of a tensor in the arena. */
static uint64_t padded_nbytes(const struct ram_store *ram, const struct mb_tensor *tensor)
{
    bool is_elsewhere = ram->resident != NULL && mb_tensor_is_blob(ram->ckpt, tensor);
    return is_elsewhere ? 0 : mb_round_up(tensor->nbytes, MB_READ_PAGE_NBYTES);
}

static enum mb_status measure(struct ram_store *ram, struct mb_error *err)
{
    uint64_t nbytes = 0;
    for (size_t i = 0; i < ram->n_tensors; i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ram->ckpt, i);
        uint64_t padded = padded_nbytes(ram, tensor);
        if (!mb_add_u64(nbytes, padded, &nbytes))
            return mb_fail(err, MB_BAD_DATA, "%s: tensors of impossible sizes",
                           mb_checkpoint_path(ram->ckpt));
        ram->memory.table_nbytes += ram->index->tables_nbytes[i];
        if (mb_tensor_is_blob(ram->ckpt, tensor))
            ram->memory.blob_nbytes += padded;
        else
            ram->memory.exact_nbytes += padded;
    }
    ram->arena_nbytes = nbytes + MB_READ_PAGE_NBYTES; /* kernels read a little beyond the last one */
    return MB_OK;
}

/* Memory for all tensors and for the tables of all blobs; each tensor gets its place. */
static enum mb_status allocate(struct ram_store *ram, struct mb_error *err)
{
    MB_TRY(measure(ram, err));
    ram->arena = mb_pages_alloc(ram->arena_nbytes);
    ram->tables = mb_alloc(ram->memory.table_nbytes, 1);
    if (ram->arena == NULL || ram->tables == NULL)
        return mb_fail_memory(err, "the weights of the model");
    uint8_t *at = ram->arena, *tables = ram->tables;
    for (size_t i = 0; i < ram->n_tensors; i++) {
        ram->held[i].bytes = at;
        ram->held[i].tables = tables;
        tables += ram->index->tables_nbytes[i];
        at += padded_nbytes(ram, mb_checkpoint_tensor(ram->ckpt, i));
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- reading and checking */

/* A tensor a task. The first error by tensor number is kept. */
struct loading {
    struct ram_store *ram;
    const struct mb_reader *reader;
    pthread_mutex_t lock;
    size_t failed;
    struct mb_error err;
};

/* Bytes of a blob are the thread's until the next one, where matrices are made of them. */
static enum mb_status place_tensor(struct ram_store *ram, const struct mb_tensor *tensor, int thread,
                                   struct mb_error *err)
{
    struct held *held = &ram->held[tensor->number];
    if (ram->resident == NULL || !mb_tensor_is_blob(ram->ckpt, tensor))
        return MB_OK;
    held->bytes = mb_resident_scratch(ram->resident, thread,
                                      mb_round_up(tensor->nbytes, MB_READ_PAGE_NBYTES) + MB_READ_PAGE_NBYTES);
    return held->bytes == NULL ? mb_fail_memory(err, "the weights of the model") : MB_OK;
}

static enum mb_status make_resident(struct ram_store *ram, const struct mb_tensor *tensor, int thread,
                                    struct mb_error *err)
{
    struct held *held = &ram->held[tensor->number];
    if (ram->resident == NULL || !mb_tensor_is_blob(ram->ckpt, tensor))
        return MB_OK;
    for (size_t i = 0; i < held->blob.n_matrices; i++)
        MB_TRY(mb_resident_add(ram->resident, thread, &held->blob.matrix[i], err));
    held->bytes = NULL;
    return MB_OK;
}

static enum mb_status load_tensor(const struct loading *loading, size_t i, int thread, struct mb_error *err)
{
    struct ram_store *ram = loading->ram;
    const struct mb_tensor *tensor = mb_checkpoint_tensor(ram->ckpt, i);
    MB_TRY(place_tensor(ram, tensor, thread, err));
    uint8_t *bytes = ram->held[i].bytes;
    MB_TRY(mb_reader_read(loading->reader, tensor, 0, bytes, tensor->nbytes, err));
    enum mb_status status = mb_tensor_is_blob(ram->ckpt, tensor)
                                ? mb_check_blob(tensor, bytes, ram->held[i].tables,
                                                ram->index->tables_nbytes[i], &ram->held[i].blob, err)
                                : mb_check_exact(ram->ckpt, tensor, bytes, err);
    if (status != MB_OK)
        return mb_fail_in(err, status, "%s: tensor %s", mb_tensor_path(ram->ckpt, tensor), tensor->name);
    return make_resident(ram, tensor, thread, err);
}

static void load_task(void *ctx, size_t task, int thread)
{
    struct loading *loading = ctx;
    struct mb_error err;
    if (load_tensor(loading, task, thread, &err) == MB_OK)
        return;
    pthread_mutex_lock(&loading->lock);
    if (task < loading->failed) {
        loading->failed = task;
        loading->err = err;
    }
    pthread_mutex_unlock(&loading->lock);
}

static enum mb_status run_loading(struct loading *loading, struct mb_pool *pool, struct mb_error *err)
{
    mb_pool_run(pool, loading->ram->n_tensors, load_task, loading);
    if (loading->failed == SIZE_MAX)
        return MB_OK;
    if (err != NULL)
        *err = loading->err;
    return loading->err.status;
}

static uint64_t stored_blob_nbytes(const struct ram_store *ram)
{
    uint64_t nbytes = 0;
    for (size_t i = 0; i < ram->n_tensors; i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ram->ckpt, i);
        if (mb_tensor_is_blob(ram->ckpt, tensor) && !mb_add_u64(nbytes, tensor->nbytes, &nbytes))
            return UINT64_MAX;
    }
    return nbytes;
}

/* Of all coded ones, as they are stored. */
static double weight_bits(const struct mb_index *index)
{
    double nbytes = 0, n = 0;
    for (size_t i = 0; i < index->n_weights; i++)
        if (index->weights[i].is_coded) {
            nbytes += (double)index->weights[i].product_nbytes;
            n += (double)index->weights[i].n_elems;
        }
    return n > 0 ? 8 * nbytes / n : MB_SPEED_BITS;
}

static enum mb_status choose_form(struct ram_store *ram, const struct mb_store_options *options,
                                  struct mb_pool *pool, struct mb_error *err)
{
    const uint64_t left_nbytes = mb_store_weight_nbytes(options), free_nbytes = mb_memory_available();
    const uint64_t available_nbytes = left_nbytes < free_nbytes ? left_nbytes : free_nbytes;
    const struct mb_resident_form *form = mb_kernels()->resident;
    const struct mb_form_facts facts = {.wanted = options->memory_form,
                                        .has_faster = form != NULL,
                                        .blob_nbytes = stored_blob_nbytes(ram),
                                        .available_nbytes = available_nbytes};
    struct mb_form_choice choice = mb_choose_form_by_size(&facts);
    if (choice.form == MB_MEMORY_FORM_AUTO) {
        ram->memory.thread_nbytes_per_s = mb_thread_bytes_per_s(pool);
        choice.form = mb_choose_form_by_speed(mb_kernels(), ram->memory.thread_nbytes_per_s,
                                              weight_bits(ram->index), choice.may_be_fast);
    }
    ram->memory.form = choice.form;
    ram->memory.form_reason = choice.reason;
    if (choice.form == MB_MEMORY_FORM_STORED)
        return MB_OK;
    return mb_resident_create(form, choice.form == MB_MEMORY_FORM_FAST, mb_pool_n_threads(pool),
                              &ram->resident, err);
}

static enum mb_status read_all(struct ram_store *ram, struct mb_pool *pool, struct mb_error *err)
{
    struct mb_reader *reader;
    MB_TRY(allocate(ram, err));
    MB_TRY(mb_reader_open(ram->ckpt, &reader, err));
    struct loading loading = {
        .ram = ram, .reader = reader, .lock = PTHREAD_MUTEX_INITIALIZER, .failed = SIZE_MAX};
    enum mb_status status = run_loading(&loading, pool, err);
    mb_reader_close(reader);
    if (status == MB_OK && ram->resident != NULL) {
        mb_resident_end(ram->resident);
        ram->memory.blob_nbytes = mb_resident_nbytes(ram->resident);
    }
    return status;
}

/* As if nothing had been read; matrices will be as they were stored. */
static void begin_again(struct ram_store *ram)
{
    mb_resident_free(ram->resident);
    mb_pages_free(ram->arena, ram->arena_nbytes);
    free(ram->tables);
    ram->resident = NULL;
    ram->arena = ram->tables = NULL;
    memset(ram->held, 0, ram->n_tensors * sizeof *ram->held);
    ram->memory =
        (struct mb_store_memory){.form = MB_MEMORY_FORM_STORED, .form_reason = MB_MEMORY_REASON_ROOM};
}

static enum mb_status load_coded(struct ram_store *ram, const struct mb_store_options *options,
                                 struct mb_error *err)
{
    struct mb_pool *pool;
    MB_TRY(mb_pool_create(options->n_threads, &pool, err));
    enum mb_status status = choose_form(ram, options, pool, err);
    if (status == MB_OK)
        status = read_all(ram, pool, err);
    if (status == MB_NO_MEMORY && ram->resident != NULL && options->memory_form == MB_MEMORY_FORM_AUTO) {
        begin_again(ram);
        status = read_all(ram, pool, err);
    }
    mb_pool_destroy(pool);
    return status;
}

static enum mb_status map_plain(struct ram_store *ram, struct mb_error *err)
{
    for (size_t i = 0; i < ram->n_tensors; i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ram->ckpt, i);
        const void *bytes;
        if (!mb_tensor_is_mapped(ram->ckpt, tensor))
            continue;
        MB_TRY(mb_checkpoint_map(ram->ckpt, tensor, &bytes, err));
        ram->held[i].bytes = (uint8_t *)bytes; /* only read from */
        ram->memory.mapped_nbytes += tensor->nbytes;
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- the kind */

static enum mb_status compute(struct ram_store *ram, const struct mb_tensor *tensor, struct mb_error *err)
{
    uint8_t *bytes = mb_alloc(tensor->nbytes, 1);
    if (bytes == NULL)
        return mb_fail_memory(err, "a matrix of the checkpoint");
    enum mb_status status = mb_checkpoint_read(ram->ckpt, tensor, 0, bytes, tensor->nbytes, err);
    if (status != MB_OK) {
        free(bytes);
        return status;
    }
    ram->held[tensor->number].bytes = ram->held[tensor->number].computed = bytes;
    ram->memory.exact_nbytes += tensor->nbytes;
    return MB_OK;
}

static enum mb_status view(void *bytes, const struct mb_weight_info *weight, struct mb_matrix *matrix,
                           struct mb_error *err)
{
    struct ram_store *ram = bytes;
    const struct held *held = &ram->held[weight->tensor->number];
    if (!weight->is_coded && held->bytes == NULL)
        MB_TRY(compute(ram, weight->tensor, err));
    if (weight->is_coded)
        return mb_view_coded(ram->ckpt, weight, &held->blob, matrix, err);
    mb_view_exact(weight, held->bytes, matrix);
    return MB_OK;
}

static enum mb_status make_ready(void *bytes, const struct mb_bound_layer *layers, size_t n_layers,
                                 struct mb_error *err)
{
    (void)bytes, (void)layers, (void)n_layers, (void)err;
    return MB_OK;
}

/* All are there. */
static enum mb_status acquire(void *bytes, const struct mb_bound_layer *layer, uint32_t *numbers, size_t n,
                              size_t n_max, enum mb_store_use use, size_t *n_acquired, struct mb_error *err)
{
    (void)bytes, (void)layer, (void)numbers, (void)use, (void)err;
    *n_acquired = n < n_max ? n : n_max;
    return MB_OK;
}

static void leave(void *bytes, const struct mb_bound_layer *layer, const uint32_t *numbers, size_t n)
{
    (void)bytes, (void)layer, (void)numbers, (void)n;
}

static void take_hint(void *bytes, const struct mb_bound_layer *layer, const uint32_t *numbers, size_t n,
                      enum mb_store_hint hint)
{
    (void)bytes, (void)layer, (void)numbers, (void)n, (void)hint;
}

static struct mb_store_traffic no_traffic(void *bytes)
{
    (void)bytes;
    return (struct mb_store_traffic){0};
}

static struct mb_store_memory memory_of(const void *bytes)
{
    return ((const struct ram_store *)bytes)->memory;
}

static void close_store(void *bytes)
{
    struct ram_store *ram = bytes;
    if (ram == NULL)
        return;
    for (size_t i = 0; i < ram->n_tensors && ram->held != NULL; i++)
        free(ram->held[i].computed);
    free(ram->held);
    free(ram->tables);
    mb_resident_free(ram->resident);
    mb_pages_free(ram->arena, ram->arena_nbytes);
    free(ram);
}

static size_t begin(void *bytes, const struct mb_bound_layer *layer, uint32_t *numbers, size_t n,
                    enum mb_store_use use)
{
    (void)bytes, (void)layer, (void)numbers, (void)use;
    return n;
}

const struct mb_store_kind mb_ram_store = {
    .keep = view,
    .bind = view,
    .ready = make_ready,
    .begin = begin,
    .acquire = acquire,
    .release = leave,
    .prefetch = take_hint,
    .memory = memory_of,
    .traffic = no_traffic,
    .close = close_store,
};

static enum mb_status open_ram(struct ram_store *ram, const struct mb_store_options *options,
                               struct mb_error *err)
{
    ram->n_tensors = mb_checkpoint_n_tensors(ram->ckpt);
    ram->held = calloc(ram->n_tensors + 1, sizeof *ram->held);
    if (ram->held == NULL)
        return mb_fail_memory(err, "the list of stored tensors");
    return mb_checkpoint_is_coded(ram->ckpt) ? load_coded(ram, options, err) : map_plain(ram, err);
}

enum mb_status mb_ram_store_open(const struct mb_index *index, const struct mb_store_options *options,
                                 void **bytes, struct mb_error *err)
{
    struct ram_store *ram = calloc(1, sizeof *ram);
    if (ram == NULL)
        return mb_fail_memory(err, "a store of weights");
    ram->index = index;
    ram->ckpt = index->ckpt;
    enum mb_status status = open_ram(ram, options, err);
    if (status != MB_OK) {
        close_store(ram);
        return status;
    }
    *bytes = ram;
    return MB_OK;
}

uint64_t mb_ram_store_nbytes(const struct mb_index *index)
{
    uint64_t nbytes = 0;
    for (size_t i = 0; i < mb_checkpoint_n_tensors(index->ckpt); i++)
        if (!mb_add_u64(nbytes, mb_checkpoint_tensor(index->ckpt, i)->nbytes, &nbytes) ||
            !mb_add_u64(nbytes, index->tables_nbytes[i] + MB_READ_PAGE_NBYTES, &nbytes))
            return UINT64_MAX;
    return nbytes;
}
