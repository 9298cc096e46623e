/*
 * model_hash.c - what tells models apart.
 */
#include "base/error.h"
#include "base/hash.h"
#include <moebius/checkpoint.h>
#include <moebius/perturb.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { PIECE_NBYTES = 1 << 20 };

/* With its terminator: two texts are not the same as one. */
static void add_text(XXH3_state_t *state, const char *text)
{
    XXH3_128bits_update(state, text, strlen(text) + 1);
}

static enum mb_status add_tensor(XXH3_state_t *state, const struct mb_checkpoint *ckpt,
                                 const struct mb_tensor *tensor, char *piece, struct mb_error *err)
{
    add_text(state, tensor->name);
    add_text(state, tensor->type_name);
    XXH3_128bits_update(state, tensor->shape, tensor->n_dims * sizeof *tensor->shape);
    for (uint64_t pos = 0; pos < tensor->nbytes; pos += PIECE_NBYTES) {
        uint64_t n = tensor->nbytes - pos < PIECE_NBYTES ? tensor->nbytes - pos : PIECE_NBYTES;
        MB_TRY(mb_checkpoint_read(ckpt, tensor, pos, piece, n, err));
        XXH3_128bits_update(state, piece, n);
    }
    return MB_OK;
}

static enum mb_status add_model(XXH3_state_t *state, const struct mb_checkpoint *ckpt, char *piece,
                                struct mb_error *err)
{
    if (state == NULL || piece == NULL)
        return mb_fail_memory(err, "the model's checksum");
    XXH3_128bits_reset(state);
    add_text(state, mb_checkpoint_config_text(ckpt));
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++)
        MB_TRY(add_tensor(state, ckpt, mb_checkpoint_tensor(ckpt, i), piece, err));
    return MB_OK;
}

enum mb_status mb_model_hash(const char *model_path, char hash[MB_HASH_NBYTES], struct mb_error *err)
{
    struct mb_checkpoint *ckpt;
    MB_TRY(mb_checkpoint_open(model_path, &ckpt, err));
    XXH3_state_t *state = XXH3_createState();
    char *piece = malloc(PIECE_NBYTES);
    enum mb_status status = add_model(state, ckpt, piece, err);
    if (status == MB_OK)
        mb_hash_write(XXH3_128bits_digest(state), hash);
    free(piece);
    XXH3_freeState(state);
    mb_checkpoint_close(ckpt);
    return status;
}
