/*
 * stored_expert.c - see stored_expert.h.
 */
#include "stored_expert.h"
#include "base/checked.h"
#include "base/error.h"
#include "check.h"
#include <string.h>

static size_t find_piece(const struct mb_stored_expert *expert, const struct mb_tensor *tensor)
{
    size_t i = 0;
    while (i < expert->n_pieces && expert->pieces[i].tensor != tensor)
        i++;
    return i;
}

/* Blobs begin and end at pages; exact tensors do not: the pages that they lie in are read. */
static void add_piece(const struct mb_index *index, struct mb_stored_expert *expert,
                      const struct mb_tensor *tensor)
{
    struct mb_stored_piece *piece = &expert->pieces[expert->n_pieces++];
    uint64_t before = tensor->file_pos % MB_READ_PAGE_NBYTES;
    *piece = (struct mb_stored_piece){
        .tensor = tensor,
        .is_blob = mb_tensor_is_blob(index->ckpt, tensor),
        .file_pos = tensor->file_pos - before,
        .read_nbytes = mb_round_up(before + tensor->nbytes, MB_READ_PAGE_NBYTES),
        .read_at = expert->nbytes,
        .at = expert->nbytes + before,
        .tables_at = expert->tables_nbytes,
        .tables_nbytes = mb_round_up(index->tables_nbytes[tensor->number], 64),
    };
    expert->nbytes += piece->read_nbytes;
    expert->tables_nbytes += piece->tables_nbytes;
}

void mb_stored_expert_list(const struct mb_index *index, const struct mb_bound_expert *bound,
                           struct mb_stored_piece *pieces, struct mb_stored_expert *expert)
{
    *expert = (struct mb_stored_expert){.bound = bound, .pieces = pieces};
    for (size_t i = 0; i < bound->n_parts; i++) {
        const struct mb_tensor *tensor = bound->weights[i]->tensor;
        if (find_piece(expert, tensor) == expert->n_pieces)
            add_piece(index, expert, tensor);
    }
}

void mb_stored_expert_show(const struct mb_timeline *timeline, const struct mb_stored_expert *expert,
                           struct mb_timeline_event event)
{
    if (timeline->fn == NULL)
        return;
    event.layer = expert->layer;
    event.expert = expert->number;
    timeline->fn(timeline->ctx, &event);
}

/* ---------------------------------------------------------------- reading */

/* Readers name the file and the position; the tensor comes in between. */
static enum mb_status fail_read(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                const struct mb_error *found, struct mb_error *err)
{
    const char *path = mb_tensor_path(ckpt, tensor), *words = found->msg;
    size_t n = strlen(path);
    if (strncmp(words, path, n) == 0 && strncmp(words + n, ": ", 2) == 0)
        words += n + 2;
    return mb_fail(err, found->status, "%s: tensor %s: %s", path, tensor->name, words);
}

enum mb_status mb_stored_expert_read(const struct mb_checkpoint *ckpt, const struct mb_reader *reader,
                                     const struct mb_stored_expert *expert,
                                     const struct mb_expert_memory *memory, struct mb_error *err)
{
    struct mb_error found;
    for (size_t i = 0; i < expert->n_pieces; i++) {
        const struct mb_stored_piece *piece = &expert->pieces[i];
        if (mb_reader_read(reader, piece->tensor, 0, memory->bytes + piece->at, piece->tensor->nbytes,
                           &found) != MB_OK)
            return fail_read(ckpt, piece->tensor, &found, err);
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- checking */

static enum mb_status check_piece(const struct mb_checkpoint *ckpt, const struct mb_stored_piece *piece,
                                  const struct mb_expert_memory *memory, struct mb_blob_check *check,
                                  struct mb_blob *blob, struct mb_error *err)
{
    const uint8_t *bytes = memory->bytes + piece->at;
    if (check != NULL)
        return mb_check_rest(check, blob, err);
    if (piece->is_blob)
        return mb_check_blob(piece->tensor, bytes, memory->tables + piece->tables_at, piece->tables_nbytes,
                             blob, err);
    return mb_check_exact(ckpt, piece->tensor, bytes, err);
}

static enum mb_status fail_check(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                 enum mb_status status, struct mb_error *err)
{
    return mb_fail_in(err, status, "%s: tensor %s", mb_tensor_path(ckpt, tensor), tensor->name);
}

enum mb_status mb_stored_expert_check(const struct mb_checkpoint *ckpt, const struct mb_stored_expert *expert,
                                      const struct mb_expert_memory *memory, struct mb_blob_check *check,
                                      struct mb_error *err)
{
    for (size_t i = 0; i < expert->n_pieces; i++) {
        const struct mb_stored_piece *piece = &expert->pieces[i];
        enum mb_status status = check_piece(ckpt, piece, memory, check, &memory->blobs[i], err);
        if (status != MB_OK)
            return fail_check(ckpt, piece->tensor, status, err);
    }
    for (size_t i = 0; i < expert->bound->n_parts; i++) {
        const struct mb_weight_info *weight = expert->bound->weights[i];
        size_t k = find_piece(expert, weight->tensor);
        if (weight->is_coded)
            MB_TRY(mb_view_coded(ckpt, weight, &memory->blobs[k], &memory->views[i], err));
        else
            mb_view_exact(weight, memory->bytes + expert->pieces[k].at, &memory->views[i]);
    }
    return MB_OK;
}
