/*
 * parameters.c - counts parameters by the names of tensors.
 */
#include "parameters.h"
#include <stdlib.h>
#include <string.h>

/* Models of text and images keep what belongs to the text in an object of its own. */
static json_int_t number_of(const json_t *config, const char *key)
{
    const json_t *number = json_object_get(config, key);
    if (number == NULL)
        number = json_object_get(json_object_get(config, "text_config"), key);
    return json_is_integer(number) ? json_integer_value(number) : -1;
}

struct cli_parameters cli_parameters_new(const json_t *config)
{
    json_int_t n_used = number_of(config, "num_experts_per_tok");
    return (struct cli_parameters){
        .n_experts_used = n_used >= 0 ? n_used : number_of(config, "moe_k"), /* ERNIE's word */
    };
}

void cli_parameters_free(struct cli_parameters *parameters)
{
    free(parameters->layers);
    *parameters = (struct cli_parameters){0};
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), n_end = strlen(end);
    return n >= n_end && strcmp(name + n - n_end, end) == 0;
}

/* NULL: no memory. Experts of a layer lie together, so the search is short. */
static struct cli_moe_layer *find_layer(struct cli_parameters *parameters, int layer)
{
    for (size_t i = parameters->n_layers; i-- > 0;)
        if (parameters->layers[i].layer == layer)
            return &parameters->layers[i];
    if (parameters->n_layers == parameters->cap) {
        size_t cap = parameters->cap == 0 ? 64 : 2 * parameters->cap;
        struct cli_moe_layer *grown = realloc(parameters->layers, cap * sizeof *grown);
        if (grown == NULL)
            return NULL;
        parameters->layers = grown;
        parameters->cap = cap;
    }
    parameters->layers[parameters->n_layers] = (struct cli_moe_layer){.layer = layer};
    return &parameters->layers[parameters->n_layers++];
}

bool cli_parameters_add(struct cli_parameters *parameters, const struct mb_checkpoint *ckpt, const char *name,
                        uint64_t n_weights)
{
    struct mb_tensor_role place = mb_role_of(name);
    if (ends_with(name, ".weight_scale_inv"))
        return true;
    parameters->n_all += n_weights;
    if (!mb_tensor_is_text(ckpt, name) || ends_with(name, ".rotary_emb.inv_freq")) {
        parameters->n_unused += n_weights;
        return true;
    }
    if (place.role != MB_ROLE_EXPERT) {
        parameters->n_always += n_weights;
        return true;
    }
    struct cli_moe_layer *layer = find_layer(parameters, place.layer);
    if (layer == NULL)
        return false;
    layer->n_weights += n_weights;
    if (layer->n_experts <= place.expert)
        layer->n_experts = place.expert + 1;
    return true;
}

bool cli_parameters_active(const struct cli_parameters *parameters, uint64_t *n_active)
{
    *n_active = parameters->n_always;
    if (parameters->n_layers > 0 && parameters->n_experts_used < 0)
        return false;
    for (size_t i = 0; i < parameters->n_layers; i++) {
        const struct cli_moe_layer *layer = &parameters->layers[i];
        uint64_t n_experts = (uint64_t)layer->n_experts, n_used = (uint64_t)parameters->n_experts_used;
        *n_active += n_used < n_experts ? layer->n_weights / n_experts * n_used : layer->n_weights;
    }
    return true;
}
