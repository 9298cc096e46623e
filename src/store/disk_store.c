/*
 * disk_store.c - weights that are always needed in memory, experts on disk with a pool of memory before them.
 *
 * A tensor that is always needed is read when it is first asked for; so nothing is read that nobody uses.
 * Experts are bound without being read: their views have shapes and bounds, and get their bytes when they are
 * acquired.  All are multiplied in the form of files, which is the smallest: what is read once and multiplied
 * once is not worth a conversion.
 */
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "check.h"
#include "disk_pool.h"
#include "store.h"
#include <stdlib.h>
#include <string.h>

/* A stored tensor that is always needed; zero: it was not asked for. */
struct kept {
    uint8_t *bytes;
    uint64_t nbytes; /* of its memory */
    bool is_small;   /* on the heap, not in pages of its own */
    struct mb_blob blob;
    uint8_t *tables;
};

struct disk_store {
    const struct mb_views *views;
    const struct mb_checkpoint *ckpt;
    struct mb_reader *reader;
    struct kept *kept; /* [n_tensors] */
    size_t n_tensors;
    struct mb_disk_pool *pool; /* NULL: not ready */
    struct mb_store_options options;
    struct mb_store_memory memory;
};

/* ---------------------------------------------------------------- what is always needed */

enum { SMALL_NBYTES = 1 << 16 };

static bool is_small(const struct mb_tensor *tensor)
{
    return tensor->nbytes < SMALL_NBYTES;
}

/* With what kernels may read behind it. */
static uint64_t kept_nbytes_of(const struct mb_tensor *tensor)
{
    return is_small(tensor) ? tensor->nbytes + MB_SLACK_NBYTES
                            : mb_round_up(tensor->nbytes, MB_READ_PAGE_NBYTES) + MB_READ_PAGE_NBYTES;
}

static enum mb_status check_kept(struct disk_store *disk, const struct mb_tensor *tensor, struct kept *kept,
                                 struct mb_error *err)
{
    uint64_t tables_nbytes = disk->views->index->tables_nbytes[tensor->number];
    if (!mb_tensor_is_blob(disk->ckpt, tensor)) {
        disk->memory.exact_nbytes += kept->nbytes;
        return mb_check_exact(disk->ckpt, tensor, kept->bytes, err);
    }
    disk->memory.blob_nbytes += kept->nbytes;
    disk->memory.table_nbytes += tables_nbytes;
    kept->tables = mb_alloc(tables_nbytes, 1);
    if (kept->tables == NULL)
        return mb_fail_memory(err, "the weights of the model");
    return mb_check_blob(tensor, kept->bytes, kept->tables, tables_nbytes, &kept->blob, err);
}

static enum mb_status read_kept(struct disk_store *disk, const struct mb_tensor *tensor, struct kept *kept,
                                struct mb_error *err)
{
    uint64_t nbytes = kept_nbytes_of(tensor);
    uint8_t *bytes = is_small(tensor) ? mb_alloc(nbytes, 1) : mb_pages_alloc(nbytes);
    if (bytes == NULL)
        return mb_fail_memory(err, "the weights of the model");
    *kept = (struct kept){.bytes = bytes, .nbytes = nbytes, .is_small = is_small(tensor)};
    MB_TRY(mb_reader_read(disk->reader, tensor, 0, bytes, tensor->nbytes, err));
    enum mb_status status = check_kept(disk, tensor, kept, err);
    return status == MB_OK
               ? MB_OK
               : mb_fail_in(err, status, "%s: tensor %s", mb_tensor_path(disk->ckpt, tensor), tensor->name);
}

static enum mb_status keep(void *bytes, const struct mb_weight_info *weight, struct mb_matrix *view,
                           struct mb_error *err)
{
    struct disk_store *disk = bytes;
    struct kept *kept = &disk->kept[weight->tensor->number];
    if (kept->bytes == NULL)
        MB_TRY(read_kept(disk, weight->tensor, kept, err));
    if (weight->is_coded)
        return mb_view_coded(disk->ckpt, weight, &kept->blob, view, err);
    mb_view_exact(weight, kept->bytes, view);
    return MB_OK;
}

/* ---------------------------------------------------------------- experts */

static enum mb_status bind(void *bytes, const struct mb_weight_info *weight, struct mb_matrix *view,
                           struct mb_error *err)
{
    (void)bytes, (void)err;
    mb_view_exact(weight, NULL, view);
    if (!weight->is_coded)
        return MB_OK;
    view->is_coded = true;
    view->bits_per_weight = mb_bits_per_weight(weight);
    view->coded = (struct mb_coded_matrix){.dtype = (enum mb_dtype)weight->type,
                                           .form = MB_FORM_PATCHED,
                                           .n_rows = weight->n_rows,
                                           .n_cols = (size_t)weight->n_cols,
                                           .eps = weight->eps};
    return MB_OK;
}

static uint64_t mib(uint64_t nbytes)
{
    return (nbytes >> 20) + (nbytes % (1 << 20) != 0);
}

static enum mb_status fail_small(const struct disk_store *disk, uint64_t kept_nbytes, uint64_t pool_nbytes,
                                 struct mb_error *err)
{
    const struct mb_store_options *o = &disk->options;
    return mb_fail(err, MB_NO_MEMORY,
                   "%s: %" PRIu64 " MiB of memory are too little: at least %" PRIu64
                   " MiB are needed (%" PRIu64 " for weights that every token needs, %" PRIu64
                   " for the experts of one token in a layer, %" PRIu64
                   " for the program, its buffers and the attention cache: a smaller context takes less)",
                   mb_checkpoint_path(disk->ckpt), o->memory_nbytes >> 20,
                   mib(kept_nbytes + pool_nbytes + o->other_nbytes), mib(kept_nbytes), mib(pool_nbytes),
                   mib(o->other_nbytes));
}

static enum mb_status make_ready(void *bytes, const struct mb_bound_layer *layers, size_t n_layers,
                                 struct mb_error *err)
{
    struct disk_store *disk = bytes;
    struct mb_disk_pool_options options = {.views = disk->views,
                                           .layers = layers,
                                           .n_layers = n_layers,
                                           .reader = disk->reader,
                                           .n_threads = disk->options.n_threads,
                                           .policy = disk->options.expert_policy,
                                           .link = disk->options.expert_link,
                                           .usage = disk->options.expert_usage,
                                           .n_usage = disk->options.n_expert_usage,
                                           .n_min = disk->options.n_experts_min,
                                           .timeline = disk->options.timeline};
    struct mb_disk_pool_size size = mb_disk_pool_size(&options);
    uint64_t kept_nbytes = disk->memory.blob_nbytes + disk->memory.table_nbytes + disk->memory.exact_nbytes;
    uint64_t left_nbytes = mb_store_weight_nbytes(&disk->options);
    uint64_t least_nbytes = size.fixed_nbytes + disk->options.n_experts_min * size.slot_nbytes;
    if (disk->pool != NULL)
        return mb_fail(err, MB_USAGE, "the store is ready already");
    if (kept_nbytes > left_nbytes || least_nbytes > left_nbytes - kept_nbytes)
        return fail_small(disk, kept_nbytes, least_nbytes, err);
    options.nbytes = left_nbytes - kept_nbytes;
    MB_TRY(mb_disk_pool_create(&options, &disk->pool, err));
    mb_disk_pool_describe(disk->pool, &disk->memory);
    return MB_OK;
}

static enum mb_status acquire(void *bytes, const struct mb_bound_layer *layer, uint32_t *numbers, size_t n,
                              size_t n_max, enum mb_store_use use, size_t *n_acquired, struct mb_error *err)
{
    struct disk_store *disk = bytes;
    if (disk->pool == NULL)
        return mb_fail(err, MB_USAGE, "the store is not ready: experts may still be bound");
    return mb_disk_pool_acquire(disk->pool, layer, numbers, n, n_max, use, n_acquired, err);
}

static size_t begin(void *bytes, const struct mb_bound_layer *layer, uint32_t *numbers, size_t n,
                    enum mb_store_use use)
{
    struct disk_store *disk = bytes;
    return disk->pool != NULL ? mb_disk_pool_begin(disk->pool, layer, numbers, n, use) : 0;
}

static void release(void *bytes, const struct mb_bound_layer *layer, const uint32_t *numbers, size_t n)
{
    mb_disk_pool_release(((struct disk_store *)bytes)->pool, layer, numbers, n);
}

static void prefetch(void *bytes, const struct mb_bound_layer *layer, const uint32_t *numbers, size_t n,
                     enum mb_store_hint hint)
{
    struct disk_store *disk = bytes;
    if (disk->pool != NULL)
        mb_disk_pool_prefetch(disk->pool, layer, numbers, n, hint);
}

/* ---------------------------------------------------------------- the kind */

static struct mb_store_memory memory_of(const void *bytes)
{
    return ((const struct disk_store *)bytes)->memory;
}

static struct mb_store_traffic traffic(void *bytes)
{
    struct disk_store *disk = bytes;
    return disk->pool != NULL ? mb_disk_pool_traffic(disk->pool) : (struct mb_store_traffic){0};
}

static void close_store(void *bytes)
{
    struct disk_store *disk = bytes;
    if (disk == NULL)
        return;
    mb_disk_pool_free(disk->pool);
    for (size_t i = 0; disk->kept != NULL && i < disk->n_tensors; i++) {
        if (disk->kept[i].is_small)
            free(disk->kept[i].bytes);
        else
            mb_pages_free(disk->kept[i].bytes, disk->kept[i].nbytes);
        free(disk->kept[i].tables);
    }
    free(disk->kept);
    mb_reader_close(disk->reader);
    free(disk);
}

const struct mb_store_kind mb_disk_store = {
    .keep = keep,
    .bind = bind,
    .ready = make_ready,
    .begin = begin,
    .acquire = acquire,
    .release = release,
    .prefetch = prefetch,
    .memory = memory_of,
    .traffic = traffic,
    .close = close_store,
};

/* What every token needs, as far as names tell: a limit that is far too low is refused before all is read. */
static enum mb_status check_limit(const struct disk_store *disk, struct mb_error *err)
{
    const struct mb_index *index = disk->views->index;
    uint64_t kept_nbytes = 0, largest_nbytes = 0;
    for (size_t i = 0; i < disk->n_tensors; i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(disk->ckpt, i);
        uint64_t nbytes = kept_nbytes_of(tensor) + index->tables_nbytes[i];
        if (mb_role_of(tensor->name).role != MB_ROLE_EXPERT)
            kept_nbytes += nbytes;
        else if (nbytes > largest_nbytes)
            largest_nbytes = nbytes;
    }
    uint64_t pool_nbytes = disk->options.n_experts_min * largest_nbytes;
    return kept_nbytes + pool_nbytes > mb_store_weight_nbytes(&disk->options)
               ? fail_small(disk, kept_nbytes, pool_nbytes, err)
               : MB_OK;
}

static enum mb_status open_disk(struct disk_store *disk, struct mb_error *err)
{
    disk->n_tensors = mb_checkpoint_n_tensors(disk->ckpt);
    disk->memory.form = MB_MEMORY_FORM_STORED;
    disk->memory.form_reason =
        disk->options.memory_form == MB_MEMORY_FORM_STORED ? MB_MEMORY_REASON_WANTED : MB_MEMORY_REASON_ROOM;
    disk->memory.reads_reason = "";
    MB_TRY(check_limit(disk, err));
    disk->kept = calloc(disk->n_tensors + 1, sizeof *disk->kept);
    if (disk->kept == NULL)
        return mb_fail_memory(err, "the list of stored tensors");
    return mb_reader_open(disk->ckpt, &disk->reader, err);
}

enum mb_status mb_disk_store_open(const struct mb_views *views, const struct mb_store_options *options,
                                  void **bytes, struct mb_error *err)
{
    struct disk_store *disk = calloc(1, sizeof *disk);
    if (disk == NULL)
        return mb_fail_memory(err, "a store of weights");
    disk->views = views;
    disk->ckpt = views->index->ckpt;
    disk->options = *options;
    if (disk->options.n_experts_min == 0)
        disk->options.n_experts_min = 1;
    enum mb_status status = open_disk(disk, err);
    if (status != MB_OK) {
        close_store(disk);
        return status;
    }
    *bytes = disk;
    return MB_OK;
}
