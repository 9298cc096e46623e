/*
 * decompress.c - a coded folder becomes a plain one, shard by shard.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "base/options.h"
#include "config_text.h"
#include "each_blob.h"
#include "layout.h"
#include "originals.h"
#include "shard_writer.h"
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *tensor, *config;
} type_names[] = {
    [MB_F32] = {"F32", "float32"}, [MB_F16] = {"F16", "float16"}, [MB_BF16] = {"BF16", "bfloat16"}};

/*
 * What becomes of a tensor of the coded folder: a tensor of the output, or a part of a fused one, which is a
 * content of its own.
 */
struct content {
    struct mb_tensor tensor; /* file_pos: from the data section's beginning; a part: of its first element */
    char *out_name;          /* in the output; a part: NULL */
    const struct mb_tensor *stored;
    size_t index;                 /* in its blob */
    const struct mb_fused *fused; /* whole or part */
    size_t n_found;               /* whole: its parts in this shard */
    struct mb_strides strides;    /* part: in elements; rows and columns of others follow one another */
    uint8_t *gathered;            /* part: its rows until all are there, where they do not lie in a row */
};

struct decompression {
    const struct mb_checkpoint *ckpt;
    const struct mb_decompress_options *options;
    struct mb_pool *pool;
    struct mb_output output;
    struct mb_progress progress;
    struct mb_originals originals;

    /* The shard at work. */
    struct mb_shard_writer writer;
    struct content *contents; /* by name */
    size_t n_contents, cap;
    struct content **places; /* those that are tensors of the output, by their place in the file */
    size_t n_places;
    struct mb_decompress_report report;
    pthread_mutex_t lock;
};

/* ---------------------------------------------------------------- what a shard will hold */

/* 'name' is malloc'ed, and ours from now on; NULL: there was no memory for it. */
static enum mb_status add_content(struct decompression *d, struct content content, char *name,
                                  struct mb_error *err)
{
    if (name == NULL)
        return mb_fail_memory(err, "the name of a tensor");
    if (d->n_contents == d->cap) {
        size_t cap = d->cap == 0 ? 64 : 2 * d->cap;
        struct content *grown = realloc(d->contents, cap * sizeof *grown);
        if (grown == NULL) {
            free(name);
            return mb_fail_memory(err, "the list of tensors");
        }
        d->contents = grown;
        d->cap = cap;
    }
    content.tensor.name = name;
    d->contents[d->n_contents++] = content;
    return MB_OK;
}

static enum mb_status add_blob(struct decompression *d, const struct mb_tensor *stored, struct mb_error *err)
{
    struct mb_blob_header header;
    enum mb_status status = MB_OK;
    MB_TRY(mb_load_blob_header(d->ckpt, stored, &header, err));
    for (size_t i = 0; status == MB_OK && i < header.n_matrices; i++) {
        const struct mb_blob_matrix *info = &header.infos[i];
        struct content content = {.stored = stored, .index = i};
        content.tensor = (struct mb_tensor){
            .type = (enum mb_tensor_type)d->options->dtype,
            .type_name = type_names[d->options->dtype].tensor,
            .n_dims = 2,
            .shape = {info->n_rows, info->n_cols},
            .n_elems = info->n_rows * info->n_cols,
            .nbytes = info->n_rows * info->n_cols * mb_dtype_nbytes(d->options->dtype),
        };
        status = add_content(d, content, mb_blob_full_name(stored, info), err);
    }
    mb_free_blob_header(&header);
    return status;
}

static void clear_contents(struct decompression *d)
{
    for (size_t i = 0; i < d->n_contents; i++) {
        free((char *)d->contents[i].tensor.name);
        free(d->contents[i].out_name);
        free(d->contents[i].gathered);
    }
    d->n_contents = 0;
    free(d->places);
    d->places = NULL;
    d->n_places = 0;
}

/* Large elements first, so that all are aligned; else in the order of the coded folder. */
static int by_place(const void *a, const void *b)
{
    const struct content *x = *(const struct content *const *)a, *y = *(const struct content *const *)b;
    size_t x_nbytes = mb_elem_nbytes(&x->tensor), y_nbytes = mb_elem_nbytes(&y->tensor);
    if (x_nbytes != y_nbytes)
        return x_nbytes > y_nbytes ? -1 : 1;
    if (x->stored->file_pos != y->stored->file_pos)
        return x->stored->file_pos < y->stored->file_pos ? -1 : 1;
    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    return strcmp(x->tensor.name, y->tensor.name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct content *)a)->tensor.name, ((const struct content *)b)->tensor.name);
}

static enum mb_status place_contents(struct decompression *d, struct mb_error *err)
{
    d->places = calloc(d->n_contents + 1, sizeof(struct content *));
    if (d->places == NULL)
        return mb_fail_memory(err, "the order of the tensors");
    for (size_t i = 0; i < d->n_contents; i++)
        if (d->contents[i].out_name != NULL)
            d->places[d->n_places++] = &d->contents[i];
    qsort(d->places, d->n_places, sizeof(struct content *), by_place);
    uint64_t at = 0;
    for (size_t i = 0; i < d->n_places; i++) {
        d->places[i]->tensor.file_pos = at;
        at += d->places[i]->tensor.nbytes;
    }
    return MB_OK;
}

static int by_out_name(const void *a, const void *b)
{
    return strcmp((*(const struct content *const *)a)->out_name,
                  (*(const struct content *const *)b)->out_name);
}

/* Before they get their places: what was renamed must not meet. */
static enum mb_status check_out_names(const struct decompression *d, struct mb_error *err)
{
    struct content **sorted = calloc(d->n_places + 1, sizeof(struct content *));
    if (sorted == NULL)
        return mb_fail_memory(err, "the names of the tensors");
    memcpy(sorted, d->places, d->n_places * sizeof(struct content *));
    qsort(sorted, d->n_places, sizeof(struct content *), by_out_name);
    enum mb_status status = MB_OK;
    for (size_t i = 1; i < d->n_places && status == MB_OK; i++)
        if (by_out_name(&sorted[i - 1], &sorted[i]) == 0)
            status = mb_fail(err, MB_BAD_DATA, "%s: tensor %s: is there twice; make the folder anew",
                             d->ckpt->path, sorted[i]->out_name);
    free(sorted);
    return status;
}

static struct content *find_content(const struct decompression *d, const char *name)
{
    const struct content key = {.tensor = {.name = name}};
    return d->n_contents == 0 ? NULL : bsearch(&key, d->contents, d->n_contents, sizeof key, by_name);
}

static enum mb_status sort_contents(struct decompression *d, struct mb_error *err)
{
    if (d->n_contents > 0)
        qsort(d->contents, d->n_contents, sizeof *d->contents, by_name);
    for (size_t i = 1; i < d->n_contents; i++)
        if (by_name(&d->contents[i - 1], &d->contents[i]) == 0)
            return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: is there twice; make the folder anew",
                           d->ckpt->path, d->contents[i].tensor.name);
    return MB_OK;
}

/* ---------------------------------------------------------------- fused tensors */

static enum mb_status fail_part(const struct decompression *d, const struct content *part, const char *why,
                                struct mb_error *err)
{
    return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: %s %s, which it is part of", d->ckpt->path,
                   part->tensor.name, why, part->fused->tensor.name);
}

/* The whole is as its first part is: of that type, and in that place. */
static enum mb_status add_whole(struct decompression *d, size_t i, struct mb_error *err)
{
    struct content whole = d->contents[i];
    const struct mb_tensor *shape = &whole.fused->tensor;
    whole.gathered = NULL;
    whole.tensor.n_dims = shape->n_dims;
    memcpy(whole.tensor.shape, shape->shape, sizeof shape->shape);
    whole.tensor.n_elems = shape->n_elems;
    whole.tensor.nbytes = shape->n_elems * mb_elem_nbytes(&d->contents[i].tensor);
    whole.out_name = strdup(shape->name);
    if (whole.out_name == NULL)
        return mb_fail_memory(err, "the name of a tensor");
    char *name = NULL; /* nothing else has a name like this */
    enum mb_status status =
        add_content(d, whole, asprintf(&name, "%s\n", shape->name) < 0 ? NULL : name, err);
    if (status != MB_OK)
        free(whole.out_name);
    return status;
}

static struct content *whole_of(const struct decompression *d, const struct mb_fused *fused)
{
    char name[MB_TENSOR_NAME_MAX + 2];
    snprintf(name, sizeof name, "%s\n", fused->tensor.name);
    return find_content(d, name);
}

/* Contents [0, n) get their names in the output, or become parts of tensors that are added. */
static enum mb_status name_contents(struct decompression *d, size_t n, struct mb_error *err)
{
    for (size_t i = 0; i < n; i++) {
        struct content *content = &d->contents[i];
        size_t expert, part;
        if (!mb_original_part_of(&d->originals, content->tensor.name, &content->fused, &expert, &part)) {
            content->out_name = mb_original_name(d->originals.renamed, content->tensor.name);
            if (content->out_name == NULL)
                return mb_fail_memory(err, "the name of a tensor");
            if (strlen(content->out_name) > MB_TENSOR_NAME_MAX)
                return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: its original name is too long",
                               d->ckpt->path, content->tensor.name);
            continue;
        }
        content->strides = mb_fused_strides(&content->fused->layout, expert, part);
        if (expert == 0 && part == 0)
            MB_TRY(add_whole(d, i, err)); /* may move the contents */
    }
    return MB_OK;
}

/* Where the parts of the tensors that are placed by now go. */
static enum mb_status place_parts(struct decompression *d, struct mb_error *err)
{
    for (size_t i = 0; i < d->n_contents; i++) {
        struct content *part = &d->contents[i];
        if (part->out_name != NULL)
            continue;
        const struct mb_fused_layout *layout = &part->fused->layout;
        struct content *whole = whole_of(d, part->fused);
        if (whole == NULL)
            return fail_part(d, part, "its file lacks the first part of", err);
        if (part->tensor.n_dims != 2 || part->tensor.shape[0] != layout->n_rows ||
            part->tensor.shape[1] != layout->n_cols)
            return fail_part(d, part, "has not the shape of its place in", err);
        if (!mb_has_whole_bytes(&part->tensor))
            return fail_part(d, part, "has elements smaller than a byte, unlike", err);
        if (strcmp(part->tensor.type_name, whole->tensor.type_name) != 0)
            return fail_part(d, part, "is kept exact in another type than it is asked to have in", err);
        part->tensor.file_pos = whole->tensor.file_pos + part->strides.first * mb_elem_nbytes(&part->tensor);
        whole->n_found++;
    }
    for (size_t i = 0; i < d->n_places; i++)
        if (d->places[i]->fused != NULL &&
            d->places[i]->n_found !=
                d->places[i]->fused->layout.n_parts * mb_fused_n_experts(d->places[i]->fused))
            return mb_fail(err, MB_BAD_DATA,
                           "%s: tensor %s: %zu of its parts are in one file, others are missing",
                           d->ckpt->path, d->places[i]->out_name, d->places[i]->n_found);
    return MB_OK;
}

/* All names and sizes, from the headers of blobs. */
static enum mb_status list_contents(struct decompression *d, size_t first, size_t n, struct mb_error *err)
{
    for (size_t i = first; i < first + n; i++) {
        const struct mb_tensor *stored = d->ckpt->tensors[i];
        if (mb_tensor_is_blob(d->ckpt, stored))
            MB_TRY(add_blob(d, stored, err));
        else
            MB_TRY(add_content(d, (struct content){.tensor = *stored, .stored = stored}, strdup(stored->name),
                               err));
    }
    MB_TRY(sort_contents(d, err));
    MB_TRY(name_contents(d, d->n_contents, err));
    MB_TRY(sort_contents(d, err));
    MB_TRY(place_contents(d, err));
    MB_TRY(check_out_names(d, err));
    return place_parts(d, err);
}

/* ---------------------------------------------------------------- bytes of a tensor or part */

static bool is_in_a_row(const struct content *content)
{
    return content->out_name != NULL ||
           (content->strides.col == 1 && content->strides.row == content->tensor.shape[1]);
}

/* One column, or one row, of a part: n elements 'from' apart in memory, 'to' apart in the file. */
static enum mb_status write_run(struct decompression *d, const struct content *part, uint64_t at,
                                const uint8_t *bytes, uint64_t from, uint64_t to, uint64_t n, uint8_t *run,
                                struct mb_error *err)
{
    size_t elem = mb_elem_nbytes(&part->tensor);
    uint64_t pos = part->tensor.file_pos + at * elem, nbytes = ((n - 1) * to + 1) * elem;
    if (to > 1) /* between them are elements of another part */
        MB_TRY(mb_shard_read_at(&d->writer, pos, run, nbytes, err));
    for (uint64_t i = 0; i < n; i++)
        memcpy(run + i * to * elem, bytes + i * from * elem, elem);
    return mb_shard_write_at(&d->writer, pos, run, nbytes, err);
}

/* A part that is complete. Rows that lie in a row are written so; else columns are, which lie nearer. */
static enum mb_status write_part(struct decompression *d, const struct content *part, struct mb_error *err)
{
    uint64_t n_rows = part->tensor.shape[0], n_cols = part->tensor.shape[1];
    size_t elem = mb_elem_nbytes(&part->tensor);
    const struct mb_strides *strides = &part->strides;
    bool by_rows = strides->col == 1;
    uint8_t *run = by_rows ? malloc(n_cols * elem) : malloc(n_rows * strides->row * elem);
    enum mb_status status = run == NULL ? mb_fail_memory(err, "the parts of a tensor") : MB_OK;
    for (uint64_t i = 0; by_rows && i < n_rows && status == MB_OK; i++)
        status =
            write_run(d, part, i * strides->row, part->gathered + i * n_cols * elem, 1, 1, n_cols, run, err);
    for (uint64_t i = 0; !by_rows && i < n_cols && status == MB_OK; i++)
        status = write_run(d, part, i * strides->col, part->gathered + i * elem, n_cols, strides->row, n_rows,
                           run, err);
    free(run);
    return status;
}

static enum mb_status begin_content(struct content *content, struct mb_error *err)
{
    if (is_in_a_row(content) || content->gathered != NULL)
        return MB_OK;
    content->gathered = malloc(content->tensor.nbytes);
    return content->gathered == NULL ? mb_fail_memory(err, "the parts of a tensor") : MB_OK;
}

/* By any thread, the bytes in any order. */
static enum mb_status write_bytes(struct decompression *d, const struct content *content, uint64_t pos,
                                  const void *bytes, uint64_t nbytes, struct mb_error *err)
{
    if (content->gathered == NULL)
        return mb_shard_write_at(&d->writer, content->tensor.file_pos + pos, bytes, nbytes, err);
    memcpy(content->gathered + pos, bytes, nbytes);
    return MB_OK;
}

/* By one thread at a time: parts of the same tensor may take turns in the file. */
static enum mb_status end_content(struct decompression *d, struct content *content, struct mb_error *err)
{
    enum mb_status status = content->gathered == NULL ? MB_OK : write_part(d, content, err);
    free(content->gathered);
    content->gathered = NULL;
    return status;
}

/* ---------------------------------------------------------------- decoding */

/* Where the rows of a matrix go: what the walk keeps for it. */
struct target {
    struct content *content;
};

/* What rounding did to some rows. */
struct rounding {
    uint64_t n_changed;
    double ratio_max; /* of changes, over the bounds of their columns */
    bool is_infinite; /* one is */
};

/* Whole rows. */
static struct rounding round_weights(const struct mb_coded_matrix *coded, float *weights, size_t n,
                                     enum mb_dtype dtype)
{
    struct rounding rounding = {0};
    uint16_t *out = (uint16_t *)weights; /* in place: shorter elements never overtake longer ones */
    for (size_t i = 0, c = 0; i < n; i++, c = c + 1 == coded->n_cols ? 0 : c + 1) {
        float w = weights[i];
        uint16_t half = dtype == MB_F16 ? mb_f16_of_float(w) : mb_bf16_of_float(w);
        float rounded = dtype == MB_F16 ? mb_float_of_f16(half) : mb_float_of_bf16(half);
        double err_abs = fabs((double)rounded - (double)w);
        rounding.n_changed += rounded != w;
        double ratio = err_abs == 0 ? 0 : fmin(err_abs / mb_column_eps(coded, c), DBL_MAX);
        rounding.ratio_max = fmax(rounding.ratio_max, ratio);
        rounding.is_infinite = rounding.is_infinite || isinf(err_abs);
        memcpy(&out[i], &half, sizeof half);
    }
    return rounding;
}

static enum mb_status begin_matrix(void *ctx, struct mb_walk_matrix *matrix, struct mb_error *err)
{
    const struct decompression *d = ctx;
    struct content *content = find_content(d, matrix->name);
    if (content == NULL || content->tensor.shape[0] != matrix->info->n_rows ||
        content->tensor.shape[1] != matrix->info->n_cols)
        return mb_fail(err, MB_IO, "%s: tensor %s: changed while it was read",
                       mb_tensor_path(d->ckpt, matrix->tensor), matrix->tensor->name);
    ((struct target *)matrix->user)->content = content;
    return begin_content(content, err);
}

static enum mb_status write_rows(void *ctx, const struct mb_walk_matrix *matrix, uint64_t row,
                                 uint64_t n_rows, float *weights, int thread, struct mb_error *err)
{
    (void)thread;
    struct decompression *d = ctx;
    const struct content *content = ((const struct target *)matrix->user)->content;
    struct rounding rounding = {0};
    uint64_t n = n_rows * matrix->info->n_cols, elem = mb_dtype_nbytes(d->options->dtype);
    if (d->options->dtype != MB_F32)
        rounding = round_weights(matrix->coded, weights, n, d->options->dtype);
    if (rounding.is_infinite)
        return mb_fail(
            err, MB_UNSUPPORTED,
            "%s: tensor %s: rows from %" PRIu64 ": a weight is too large for %s; choose F32 or BF16",
            mb_tensor_path(d->ckpt, matrix->tensor), matrix->name, row, type_names[d->options->dtype].tensor);
    pthread_mutex_lock(&d->lock);
    d->report.n_weights_changed += rounding.n_changed;
    d->report.err_enlarged_ratio = fmax(d->report.err_enlarged_ratio, rounding.ratio_max);
    pthread_mutex_unlock(&d->lock);
    return write_bytes(d, content, row * matrix->info->n_cols * elem, weights, n * elem, err);
}

static enum mb_status end_matrix(void *ctx, struct mb_walk_matrix *matrix, struct mb_error *err)
{
    struct decompression *d = ctx;
    d->report.n_weights += matrix->info->n_rows * matrix->info->n_cols;
    return end_content(d, ((const struct target *)matrix->user)->content, err);
}

static enum mb_status write_exact(void *ctx, const struct mb_tensor *tensor, uint64_t pos, const void *bytes,
                                  uint64_t nbytes, struct mb_error *err)
{
    struct decompression *d = ctx;
    struct content *content = find_content(d, tensor->name);
    MB_TRY(begin_content(content, err));
    MB_TRY(write_bytes(d, content, pos, bytes, nbytes, err));
    return pos + nbytes == tensor->nbytes ? end_content(d, content, err) : MB_OK;
}

/* ---------------------------------------------------------------- shards */

static enum mb_status fill_shard(struct decompression *d, size_t first, size_t n, struct mb_error *err)
{
    static const struct mb_walk_ops ops = {sizeof(struct target), begin_matrix, write_rows, end_matrix,
                                           write_exact,           NULL};
    uint64_t nbytes = 0;
    for (size_t i = 0; i < d->n_places; i++)
        nbytes += d->places[i]->tensor.nbytes;
    MB_TRY(mb_shard_extend(&d->writer, nbytes, err));
    MB_TRY(mb_walk(d->ckpt, first, n, d->pool, &ops, d, &d->progress, "decompress", err));
    for (size_t i = 0; i < d->n_places; i++) {
        d->writer.at += d->places[i]->tensor.nbytes;
        MB_TRY(mb_shard_add(&d->writer, d->places[i]->tensor.file_pos, err));
    }
    d->report.out_nbytes = d->writer.data_pos + d->writer.at;
    return MB_OK;
}

static json_t *report_json(const struct mb_decompress_report *report)
{
    return json_pack("{s:I, s:I, s:f, s:I}", "out_nbytes", (json_int_t)report->out_nbytes, "n_weights",
                     (json_int_t)report->n_weights, "err_enlarged_ratio", report->err_enlarged_ratio,
                     "n_weights_changed", (json_int_t)report->n_weights_changed);
}

static void add_report(struct mb_decompress_report *to, const json_t *from)
{
    to->out_nbytes += (uint64_t)json_integer_value(json_object_get(from, "out_nbytes"));
    to->n_weights += (uint64_t)json_integer_value(json_object_get(from, "n_weights"));
    to->n_weights_changed += (uint64_t)json_integer_value(json_object_get(from, "n_weights_changed"));
    to->err_enlarged_ratio =
        fmax(to->err_enlarged_ratio, json_real_value(json_object_get(from, "err_enlarged_ratio")));
}

static enum mb_status begin_shard(struct decompression *d, size_t shard, struct mb_error *err)
{
    struct mb_tensor *planned = calloc(d->n_places + 1, sizeof *planned);
    if (planned == NULL)
        return mb_fail_memory(err, "the list of tensors");
    for (size_t i = 0; i < d->n_places; i++) {
        planned[i] = d->places[i]->tensor;
        planned[i].name = d->places[i]->out_name;
    }
    enum mb_status status =
        mb_shard_begin(&d->output, shard, d->ckpt->n_shards, planned, d->n_places, NULL, &d->writer, err);
    free(planned);
    d->report = (struct mb_decompress_report){0};
    return status;
}

static enum mb_status write_shard(struct decompression *d, size_t shard, size_t first, size_t n,
                                  uint64_t plan, struct mb_decompress_report *sum, struct mb_error *err)
{
    MB_TRY(begin_shard(d, shard, err));
    enum mb_status status = fill_shard(d, first, n, err);
    json_t *json = status == MB_OK ? report_json(&d->report) : NULL;
    if (status == MB_OK && json == NULL)
        status = mb_fail_memory(err, "the note about unfinished work");
    if (status == MB_OK)
        status = mb_shard_end(&d->writer, plan, json, err);
    else
        mb_shard_cancel(&d->writer);
    add_report(sum, json);
    json_decref(json);
    return status;
}

static enum mb_status decompress_shard(struct decompression *d, size_t shard,
                                       struct mb_decompress_report *sum, struct mb_error *err)
{
    uint64_t plan = 1 + (uint64_t)d->options->dtype; /* all that the options change in a shard */
    size_t first = 0, n = d->ckpt->shards[shard].header.n_tensors;
    for (size_t i = 0; i < shard; i++)
        first += d->ckpt->shards[i].header.n_tensors;
    const json_t *noted = mb_output_report(&d->output, shard, d->ckpt->n_shards, plan);
    if (noted != NULL) {
        uint64_t nbytes = 0;
        for (size_t i = first; i < first + n; i++)
            nbytes += d->ckpt->tensors[i]->nbytes;
        add_report(sum, noted);
        return mb_progress_add(&d->progress, "decompress", nbytes, err);
    }
    enum mb_status status = list_contents(d, first, n, err);
    if (status == MB_OK)
        status = write_shard(d, shard, first, n, plan, sum, err);
    clear_contents(d);
    return status;
}

/* config.json without our block, and with the type of the weights as it is now. */
static char *plain_config(const struct decompression *d)
{
    static const char *const keys[] = {"torch_dtype", "dtype"}; /* transformers 4 and 5 */
    bool is_set = false;
    json_t *type = json_string(type_names[d->options->dtype].config);
    if (type == NULL)
        return NULL;
    char *text = mb_config_text_set(d->ckpt->config_text, "quantization_config", NULL);
    for (size_t i = 0; i < 2 && text != NULL; i++) {
        if (json_object_get(d->ckpt->config, keys[i]) == NULL && (i == 0 || is_set))
            continue;
        char *changed = mb_config_text_set(text, keys[i], type);
        free(text);
        text = changed;
        is_set = true;
    }
    json_decref(type);
    return text;
}

static enum mb_status write_side_files(struct decompression *d, struct mb_error *err)
{
    MB_TRY(mb_output_write_files(&d->output, d->ckpt, d->ckpt->n_shards, err));
    char *text = plain_config(d);
    if (text == NULL)
        return mb_fail_memory(err, "config.json");
    enum mb_status status = mb_output_write_config(&d->output, text, err);
    free(text);
    return status;
}

static enum mb_status fill_folder(struct decompression *d, struct mb_decompress_report *report,
                                  struct mb_error *err)
{
    for (size_t i = 0; i < d->ckpt->n_shards; i++)
        MB_TRY(decompress_shard(d, i, report, err));
    return d->output.is_done ? MB_OK : write_side_files(d, err);
}

static enum mb_status write_folder(struct decompression *d, const char *out_path,
                                   struct mb_decompress_report *report, struct mb_error *err)
{
    json_t *work = json_pack("{s:o, s:{s:s, s:s}}", "input", mb_input_identity(d->ckpt), "options", "verb",
                             "decompress", "dtype", type_names[d->options->dtype].config);
    if (work == NULL)
        return mb_fail_memory(err, "the note about unfinished work");
    enum mb_status status = mb_output_open(out_path, d->ckpt, work, d->options->force, &d->output, err);
    json_decref(work);
    MB_TRY(status);
    status = fill_folder(d, report, err);
    if (status == MB_OK)
        return mb_output_finish(&d->output, err);
    mb_output_abandon(&d->output, status);
    return status;
}

static enum mb_status decompress(const struct mb_checkpoint *ckpt, const char *out_path,
                                 const struct mb_decompress_options *options,
                                 struct mb_decompress_report *report, struct mb_error *err)
{
    if (!ckpt->is_coded)
        return mb_fail(err, MB_UNSUPPORTED, "%s: is not a coded folder: there is nothing to decompress",
                       ckpt->path);
    struct decompression d = {
        .ckpt = ckpt,
        .options = options,
        .progress = {.fn = options->progress, .ctx = options->progress_ctx},
        .lock = PTHREAD_MUTEX_INITIALIZER,
    };
    for (size_t i = 0; i < ckpt->n_tensors; i++)
        d.progress.total_nbytes += ckpt->tensors[i]->nbytes;
    MB_TRY(mb_pool_create(options->n_threads, &d.pool, err));
    enum mb_status status = mb_originals_read(ckpt, &d.originals, err);
    if (status == MB_OK)
        status = write_folder(&d, out_path, report, err);
    mb_originals_free(&d.originals);
    mb_pool_destroy(d.pool);
    free(d.contents);
    return status;
}

enum mb_status mb_decompress(const char *coded_path, const char *out_path,
                             const struct mb_decompress_options *given, struct mb_decompress_report *report,
                             struct mb_error *err)
{
    struct mb_decompress_options options;
    struct mb_checkpoint *ckpt;
    *report = (struct mb_decompress_report){0};
    MB_TRY(MB_OPTIONS_TAKE(options, given, err));
    if ((unsigned)options.dtype > MB_BF16)
        return mb_fail(err, MB_USAGE, "type %d: is not MB_F32, MB_F16 or MB_BF16", (int)options.dtype);
    MB_TRY(mb_checkpoint_open(coded_path, &ckpt, err));
    enum mb_status status = decompress(ckpt, out_path, &options, report, err);
    mb_checkpoint_close(ckpt);
    return status;
}
