/*
 * index.c - names, shapes and places of all weights, read from the headers of shards and blobs.
 *
 * A weight's place is a stored tensor and, in a blob, the number of its matrix.
 */
#include "index.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "read.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- collecting */

/* An index in the making, and memory for one header after the other. */
struct indexing {
    struct mb_index *index;
    struct mb_reader *reader;
    uint8_t *header; /* in whole pages, for direct reads */
    uint64_t header_nbytes;
    struct mb_blob_matrix *matrices; /* of the blob that is being read */
    size_t n_matrices_max;
};

/* Takes the name, which was allocated with malloc; NULL: it could not be. */
static enum mb_status add_weight(struct mb_index *index, char *name, const struct mb_weight_info *weight,
                                 struct mb_error *err)
{
    if (name != NULL && index->n_weights == index->n_weights_max) {
        size_t n_max = index->n_weights_max == 0 ? 256 : 2 * index->n_weights_max;
        struct mb_weight_info *more = realloc(index->weights, n_max * sizeof *more);
        if (more == NULL) {
            free(name);
            name = NULL;
        } else {
            index->weights = more;
            index->n_weights_max = n_max;
        }
    }
    if (name == NULL)
        return mb_fail_memory(err, "the index of weights");
    index->weights[index->n_weights] = *weight;
    index->weights[index->n_weights++].name = name;
    return MB_OK;
}

static enum mb_status add_exact(struct mb_index *index, const struct mb_tensor *tensor, struct mb_error *err)
{
    struct mb_weight_info weight = {
        .tensor = tensor,
        .is_matrix = tensor->n_dims == 2 && tensor->type <= MB_TENSOR_BF16,
        .type = tensor->type,
        .n_elems = tensor->n_elems,
        .product_nbytes = tensor->nbytes,
    };
    if (weight.is_matrix) {
        weight.n_rows = tensor->shape[0];
        weight.n_cols = tensor->shape[1];
    }
    return add_weight(index, strdup(tensor->name), &weight, err);
}

/* Kinds and escape counts are read with the records; outlier counts are few. */
static uint64_t product_nbytes_of(const struct mb_blob_matrix *matrix)
{
    uint64_t group_rows = mb_group_rows(matrix->n_cols);
    return matrix->data_nbytes + 3 * ((matrix->n_rows + group_rows - 1) / group_rows);
}

static enum mb_status add_coded(struct mb_index *index, const struct mb_tensor *blob, size_t i,
                                const struct mb_blob_matrix *matrix, struct mb_error *err)
{
    struct mb_weight_info weight = {
        .tensor = blob,
        .is_coded = true,
        .blob_matrix = i,
        .is_matrix = true,
        .n_rows = matrix->n_rows,
        .n_cols = matrix->n_cols,
        .type = (enum mb_tensor_type)matrix->dtype,
        .n_elems = matrix->n_rows * matrix->n_cols,
        .product_nbytes = product_nbytes_of(matrix),
        .eps = matrix->eps,
        .has_exponents = matrix->exponents_nbytes > 0,
    };
    char *name = mb_blob_full_name(blob, matrix);
    enum mb_status status =
        name == NULL ? MB_OK : mb_blob_check_exponents(index->ckpt, blob, matrix, name, err);
    if (status == MB_OK)
        return add_weight(index, name, &weight, err);
    free(name);
    return status;
}

/* ---------------------------------------------------------------- headers of blobs */

/* The first 'nbytes' of a tensor, or all of it, to indexing->header. */
static enum mb_status read_first(struct indexing *indexing, const struct mb_tensor *tensor, uint64_t nbytes,
                                 struct mb_error *err)
{
    nbytes = mb_round_up(nbytes, MB_READ_PAGE_NBYTES);
    if (nbytes > indexing->header_nbytes) {
        mb_pages_free(indexing->header, indexing->header_nbytes);
        indexing->header_nbytes = 0;
        indexing->header = mb_pages_alloc(nbytes);
        if (indexing->header == NULL)
            return mb_fail_memory(err, "the header of a blob");
        indexing->header_nbytes = nbytes;
    }
    return mb_reader_read(indexing->reader, tensor, 0, indexing->header,
                          nbytes < tensor->nbytes ? nbytes : tensor->nbytes, err);
}

static enum mb_status make_room(struct indexing *indexing, size_t n_matrices, struct mb_error *err)
{
    if (n_matrices <= indexing->n_matrices_max)
        return MB_OK;
    free(indexing->matrices);
    indexing->n_matrices_max = 0;
    indexing->matrices = calloc(n_matrices, sizeof *indexing->matrices);
    if (indexing->matrices == NULL)
        return mb_fail_memory(err, "the header of a blob");
    indexing->n_matrices_max = n_matrices;
    return MB_OK;
}

static enum mb_status fail_in_tensor(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                     enum mb_status status, struct mb_error *err)
{
    return status == MB_OK
               ? MB_OK
               : mb_fail_in(err, status, "%s: tensor %s", mb_tensor_path(ckpt, tensor), tensor->name);
}

static enum mb_status add_blob(struct indexing *indexing, const struct mb_tensor *tensor,
                               struct mb_error *err)
{
    const struct mb_checkpoint *ckpt = indexing->index->ckpt;
    struct mb_blob_frame frame;
    MB_TRY(read_first(indexing, tensor, MB_BLOB_FRAME_NBYTES, err));
    MB_TRY(
        fail_in_tensor(ckpt, tensor, mb_blob_read_frame(indexing->header, tensor->nbytes, &frame, err), err));
    if (frame.header_nbytes > indexing->header_nbytes)
        MB_TRY(read_first(indexing, tensor, frame.header_nbytes, err));
    MB_TRY(make_room(indexing, frame.n_matrices, err));
    MB_TRY(fail_in_tensor(ckpt, tensor,
                          mb_blob_read_header(indexing->header, &frame, indexing->matrices, err), err));
    indexing->index->tables_nbytes[tensor->number] =
        mb_blob_tables_nbytes(indexing->matrices, frame.n_matrices);
    for (size_t i = 0; i < frame.n_matrices; i++)
        MB_TRY(add_coded(indexing->index, tensor, i, &indexing->matrices[i], err));
    return MB_OK;
}

/* ---------------------------------------------------------------- the index */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct mb_weight_info *)a)->name, ((const struct mb_weight_info *)b)->name);
}

static enum mb_status sort_weights(struct mb_index *index, struct mb_error *err)
{
    if (index->n_weights > 0)
        qsort(index->weights, index->n_weights, sizeof *index->weights, by_name);
    for (size_t i = 1; i < index->n_weights; i++) {
        const struct mb_weight_info *weight = &index->weights[i];
        if (strcmp(weight->name, index->weights[i - 1].name) == 0)
            return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: %s is there twice",
                           mb_tensor_path(index->ckpt, weight->tensor), weight->tensor->name, weight->name);
    }
    return MB_OK;
}

static enum mb_status collect(struct indexing *indexing, struct mb_error *err)
{
    struct mb_index *index = indexing->index;
    const struct mb_checkpoint *ckpt = index->ckpt;
    index->tables_nbytes = calloc(mb_checkpoint_n_tensors(ckpt) + 1, sizeof *index->tables_nbytes);
    if (index->tables_nbytes == NULL)
        return mb_fail_memory(err, "the index of weights");
    if (mb_checkpoint_is_coded(ckpt))
        MB_TRY(mb_reader_open(ckpt, &indexing->reader, err));
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        MB_TRY(mb_tensor_is_blob(ckpt, tensor) ? add_blob(indexing, tensor, err)
                                               : add_exact(index, tensor, err));
    }
    return sort_weights(index, err);
}

enum mb_status mb_index_open(const struct mb_checkpoint *ckpt, struct mb_index **index, struct mb_error *err)
{
    struct indexing indexing = {.index = calloc(1, sizeof(struct mb_index))};
    if (indexing.index == NULL)
        return mb_fail_memory(err, "the index of weights");
    indexing.index->ckpt = ckpt;
    enum mb_status status = collect(&indexing, err);
    mb_reader_close(indexing.reader);
    mb_pages_free(indexing.header, indexing.header_nbytes);
    free(indexing.matrices);
    if (status != MB_OK) {
        mb_index_close(indexing.index);
        return status;
    }
    *index = indexing.index;
    return MB_OK;
}

void mb_index_close(struct mb_index *index)
{
    if (index == NULL)
        return;
    for (size_t i = 0; i < index->n_weights; i++)
        free((char *)index->weights[i].name);
    free(index->weights);
    free(index->tables_nbytes);
    free(index);
}

struct mb_index_totals mb_index_total(const struct mb_index *index)
{
    struct mb_index_totals sums = {0};
    for (size_t i = 0; i < mb_checkpoint_n_tensors(index->ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(index->ckpt, i);
        uint64_t nbytes = UINT64_MAX;
        bool is_expert = mb_role_of(tensor->name).role == MB_ROLE_EXPERT;
        uint64_t *sum = is_expert ? &sums.experts_nbytes : &sums.kept_nbytes;
        if (!mb_add_u64(tensor->nbytes, index->tables_nbytes[i] + MB_READ_PAGE_NBYTES, &nbytes) ||
            !mb_add_u64(*sum, nbytes, sum))
            *sum = UINT64_MAX;
        if (is_expert && nbytes > sums.expert_nbytes_max)
            sums.expert_nbytes_max = nbytes;
    }
    return sums;
}

uint64_t mb_index_nbytes(const struct mb_index *index)
{
    return index->n_weights_max * sizeof *index->weights +
           mb_checkpoint_n_tensors(index->ckpt) * sizeof *index->tables_nbytes;
}

/* ---------------------------------------------------------------- looking up */

const struct mb_weight_info *mb_index_find(const struct mb_index *index, const char *name)
{
    const struct mb_weight_info key = {.name = name};
    return index->n_weights == 0 ? NULL
                                 : bsearch(&key, index->weights, index->n_weights, sizeof key, by_name);
}

enum mb_status mb_index_fail_missing(const struct mb_index *index, const char *name, struct mb_error *err)
{
    return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: missing, but config.json asks for it",
                   mb_checkpoint_path(index->ckpt), name);
}

enum mb_status mb_index_find_matrix(const struct mb_index *index, const char *name, uint64_t n_rows,
                                    uint64_t n_cols, const struct mb_weight_info **weight,
                                    struct mb_error *err)
{
    const struct mb_weight_info *found = mb_index_find(index, name);
    if (found == NULL)
        return mb_index_fail_missing(index, name, err);
    const char *path = mb_tensor_path(index->ckpt, found->tensor);
    if (!found->is_matrix)
        return mb_fail(err, found->type == MB_TENSOR_F8_E4M3 ? MB_UNSUPPORTED : MB_BAD_DATA,
                       "%s: tensor %s: %s with %zu dimensions is not a matrix of F32, F16 or BF16", path,
                       name, found->tensor->type_name, found->tensor->n_dims);
    if (found->n_rows != n_rows || found->n_cols != n_cols)
        return mb_fail(err, MB_BAD_DATA,
                       "%s: tensor %s: shape [%" PRIu64 ", %" PRIu64 "], but config.json asks for [%" PRIu64
                       ", %" PRIu64 "]",
                       path, name, found->n_rows, found->n_cols, n_rows, n_cols);
    *weight = found;
    return MB_OK;
}
