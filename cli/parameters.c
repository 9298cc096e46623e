/*
 * parameters.c - counts parameters by the names of tensors.
 */
#include "parameters.h"
#include <moebius/checkpoint.h>
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
    return (struct cli_parameters){
        .n_layers_used = number_of(config, "num_hidden_layers"),
        .n_experts_used = number_of(config, "num_experts_per_tok"),
    };
}

void cli_parameters_free(struct cli_parameters *parameters)
{
    free(parameters->layers);
    *parameters = (struct cli_parameters){0};
}

static bool is_used(const struct cli_parameters *parameters, const char *name, int layer)
{
    static const char rotary[] = "rotary_emb.inv_freq";
    size_t n = strlen(name), n_rotary = sizeof rotary - 1;
    if (n >= n_rotary && strcmp(name + n - n_rotary, rotary) == 0)
        return false;
    return parameters->n_layers_used < 0 || layer < parameters->n_layers_used;
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

bool cli_parameters_add(struct cli_parameters *parameters, const char *name, uint64_t n_weights)
{
    struct mb_tensor_role place = mb_role_of(name);
    parameters->n_all += n_weights;
    if (!is_used(parameters, name, place.layer)) {
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
