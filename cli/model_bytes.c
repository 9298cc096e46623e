/*
 * model_bytes.c - counts bytes by the names of tensors and blobs, without reading weights.
 */
#include "model_bytes.h"
#include "base/error.h"
#include "cli.h"
#include <stdlib.h>
#include <string.h>

enum { LAYERS_MAX = 4096, EXPERTS_MAX = 65535 };

/* Of a routed expert of the text model. */
static bool is_expert(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                      struct mb_tensor_role *role)
{
    *role = mb_role_of(tensor->name);
    return role->role == MB_ROLE_EXPERT && role->layer >= 0 && role->layer < LAYERS_MAX &&
           role->expert < EXPERTS_MAX && mb_tensor_is_text(ckpt, tensor->name);
}

/* place[layer]: whether it has experts, then its number among those that have. */
static void find_layers(const struct mb_checkpoint *ckpt, struct cli_model_bytes *bytes,
                        uint32_t place[LAYERS_MAX])
{
    struct mb_tensor_role role;
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        if (!is_expert(ckpt, mb_checkpoint_tensor(ckpt, i), &role))
            continue;
        place[role.layer] = 1;
        if ((size_t)role.expert >= bytes->n_experts)
            bytes->n_experts = (size_t)role.expert + 1;
    }
    bytes->layers = cli_check_memory(calloc(LAYERS_MAX, sizeof *bytes->layers));
    for (uint32_t l = 0; l < LAYERS_MAX; l++)
        if (place[l] != 0) {
            place[l] = (uint32_t)bytes->n_layers;
            bytes->layers[bytes->n_layers++] = l;
        }
}

static void add_tensor(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                       const uint32_t *place, struct cli_model_bytes *bytes)
{
    struct mb_tensor_role role;
    uint64_t nbytes = mb_tensor_stored_nbytes(ckpt, tensor);
    if (is_expert(ckpt, tensor, &role)) {
        bytes->experts[place[role.layer] * bytes->n_experts + (size_t)role.expert] += nbytes;
        bytes->experts_nbytes += nbytes;
        return;
    }
    if (!mb_tensor_is_text(ckpt, tensor->name))
        return;
    bytes->always_nbytes += nbytes;
    bytes->coded_nbytes += mb_tensor_is_blob(ckpt, tensor) ? nbytes : 0;
    if (role.role == MB_ROLE_EMBEDDING)
        bytes->embedding_nbytes += nbytes;
    if (role.role == MB_ROLE_SHARED_EXPERT)
        bytes->shared_nbytes += nbytes;
    if (strstr(tensor->name, "lm_head.") != NULL)
        bytes->head_nbytes += nbytes;
}

/* A model with a head of its own reads one row of the embedding; else all of it is the head. */
static void find_table(const struct mb_checkpoint *ckpt, struct cli_model_bytes *bytes)
{
    uint64_t table_nbytes = 0;
    bool has_head = false;
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        bool is_table = mb_role_of(tensor->name).role == MB_ROLE_EMBEDDING && mb_tensor_is_blob(ckpt, tensor);
        has_head = has_head || strstr(tensor->name, "lm_head.") != NULL;
        table_nbytes += is_table ? mb_tensor_stored_nbytes(ckpt, tensor) : 0;
    }
    if (has_head) {
        bytes->coded_nbytes -= table_nbytes;
    } else {
        bytes->head_nbytes = bytes->embedding_nbytes;
        bytes->embedding_nbytes = 0;
    }
}

enum mb_status cli_model_bytes_open(const struct mb_checkpoint *ckpt, struct cli_model_bytes *bytes,
                                    struct mb_error *err)
{
    uint32_t *place = cli_check_memory(calloc(LAYERS_MAX, sizeof *place));
    *bytes = (struct cli_model_bytes){0};
    find_layers(ckpt, bytes, place);
    if (bytes->n_layers > 0) {
        bytes->experts = cli_check_memory(calloc(bytes->n_layers * bytes->n_experts, sizeof *bytes->experts));
        for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++)
            add_tensor(ckpt, mb_checkpoint_tensor(ckpt, i), place, bytes);
        find_table(ckpt, bytes);
    }
    free(place);
    if (bytes->n_layers > 0)
        return MB_OK;
    cli_model_bytes_close(bytes);
    return mb_fail(err, MB_UNSUPPORTED, "%s: the model has no routed experts", mb_checkpoint_path(ckpt));
}

void cli_model_bytes_close(struct cli_model_bytes *bytes)
{
    free(bytes->layers);
    free(bytes->experts);
    *bytes = (struct cli_model_bytes){0};
}
