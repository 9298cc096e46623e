/*
 * profile.c - counts of tokens and sums of gate weights by layer and expert, from the router's choices.
 *
 * Sums are integers, in units of 2^-32: the order in which tokens come does not show.
 */
#include "profile.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PROFILE_VERSION = 1, FILE_NBYTES_MAX = 256 << 20, LAYERS_MAX = 1 << 16, EXPERTS_MAX = 1 << 20 };

struct layer {
    size_t layer, n_experts;
    uint64_t n_tokens;
    uint64_t *n, *gate; /* [n_experts] */
};

struct mb_profile {
    struct layer *layers; /* in order */
    size_t n_layers;
};

/* ---------------------------------------------------------------- making */

static enum mb_status add_layer(struct mb_profile *profile, size_t number, size_t n_experts,
                                struct mb_error *err)
{
    struct layer *layers = realloc(profile->layers, (profile->n_layers + 1) * sizeof *layers);
    if (layers == NULL)
        return mb_fail_memory(err, "a usage profile");
    profile->layers = layers;
    struct layer *layer = &layers[profile->n_layers++];
    *layer = (struct layer){.layer = number,
                            .n_experts = n_experts,
                            .n = calloc(n_experts, sizeof *layer->n),
                            .gate = calloc(n_experts, sizeof *layer->gate)};
    return layer->n == NULL || layer->gate == NULL ? mb_fail_memory(err, "a usage profile") : MB_OK;
}

/* Calls add(layer, n_experts) for each layer that has some: experts of a layer come in order. */
static enum mb_status add_layers(const struct mb_model *model, struct mb_profile *profile,
                                 struct mb_error *err)
{
    size_t n;
    const struct mb_model_matrix *matrices = mb_model_matrices(model, &n);
    for (size_t i = 0; i < n; i++) {
        bool is_last = i + 1 == n || matrices[i + 1].layer != matrices[i].layer || matrices[i + 1].expert < 0;
        if (matrices[i].expert >= 0 && is_last)
            MB_TRY(add_layer(profile, (size_t)matrices[i].layer, (size_t)matrices[i].expert + 1, err));
    }
    return profile->n_layers > 0 ? MB_OK
                                 : mb_fail(err, MB_USAGE, "the model has no routed experts to profile");
}

static enum mb_status make(struct mb_profile **profile, struct mb_error *err)
{
    *profile = calloc(1, sizeof **profile);
    return *profile == NULL ? mb_fail_memory(err, "a usage profile") : MB_OK;
}

static enum mb_status close_unless_ok(struct mb_profile **profile, enum mb_status status)
{
    if (status == MB_OK)
        return MB_OK;
    mb_profile_close(*profile);
    *profile = NULL;
    return status;
}

enum mb_status mb_profile_open(const struct mb_model *model, struct mb_profile **profile,
                               struct mb_error *err)
{
    MB_TRY(make(profile, err));
    return close_unless_ok(profile, add_layers(model, *profile, err));
}

void mb_profile_close(struct mb_profile *profile)
{
    if (profile == NULL)
        return;
    for (size_t i = 0; i < profile->n_layers; i++) {
        free(profile->layers[i].n);
        free(profile->layers[i].gate);
    }
    free(profile->layers);
    free(profile);
}

static struct layer *find(const struct mb_profile *profile, size_t layer)
{
    for (size_t i = 0; i < profile->n_layers; i++)
        if (profile->layers[i].layer == layer)
            return &profile->layers[i];
    return NULL;
}

void mb_profile_count(void *profile, size_t layer, size_t pos, const int32_t *experts, const float *weights,
                      size_t n_experts, float margin)
{
    struct layer *l = find(profile, layer);
    (void)pos, (void)margin;
    if (l == NULL)
        return;
    l->n_tokens++;
    for (size_t i = 0; i < n_experts; i++) {
        if (experts[i] < 0 || (size_t)experts[i] >= l->n_experts)
            continue;
        l->n[experts[i]]++;
        if (weights[i] > 0 && weights[i] < 0x1p20F)
            l->gate[experts[i]] += (uint64_t)((double)weights[i] * 0x1p32);
    }
}

/* ---------------------------------------------------------------- reading */

size_t mb_profile_n_layers(const struct mb_profile *profile)
{
    return profile->n_layers;
}

struct mb_profile_layer mb_profile_layer(const struct mb_profile *profile, size_t i)
{
    const struct layer *layer = &profile->layers[i];
    return (struct mb_profile_layer){layer->layer, layer->n_experts, layer->n_tokens, layer->n, layer->gate};
}

const uint64_t *mb_profile_counts(const struct mb_profile *profile, size_t layer)
{
    return find(profile, layer)->n;
}

static bool has_same_layers(const struct mb_profile *a, const struct mb_profile *b)
{
    bool is_same = a->n_layers == b->n_layers;
    for (size_t i = 0; is_same && i < a->n_layers; i++)
        is_same =
            a->layers[i].layer == b->layers[i].layer && a->layers[i].n_experts == b->layers[i].n_experts;
    return is_same;
}

enum mb_status mb_profile_fits(const struct mb_profile *profile, const struct mb_model *model,
                               struct mb_error *err)
{
    struct mb_profile *own;
    MB_TRY(mb_profile_open(model, &own, err));
    bool is_same = has_same_layers(profile, own);
    mb_profile_close(own);
    return is_same ? MB_OK
                   : mb_fail(err, MB_BAD_DATA,
                             "the usage profile is of a model with other layers or numbers of experts");
}

/* ---------------------------------------------------------------- JSON */

/* "gate" is in tokens: a double holds sums of up to 2^21 tokens exactly, and those beyond to 2^-53. */
static json_t *layer_json(const struct layer *layer)
{
    json_t *n = json_array(), *gate = json_array();
    for (size_t e = 0; e < layer->n_experts; e++) {
        json_array_append_new(n, json_integer((json_int_t)layer->n[e]));
        json_array_append_new(gate, json_real((double)layer->gate[e] * 0x1p-32));
    }
    return json_pack("{s:I, s:I, s:o, s:o}", "layer", (json_int_t)layer->layer, "n_tokens",
                     (json_int_t)layer->n_tokens, "n", n, "gate", gate);
}

static json_t *profile_json(const struct mb_profile *profile, const char *hash)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < profile->n_layers; i++)
        json_array_append_new(layers, layer_json(&profile->layers[i]));
    return json_pack("{s:i, s:s, s:o}", "moebius_profile", PROFILE_VERSION, "model_hash", hash, "layers",
                     layers);
}

enum mb_status mb_profile_save(const struct mb_profile *profile, const char *path,
                               const char model_hash[MB_HASH_NBYTES], struct mb_error *err)
{
    size_t nbytes;
    json_t *json = profile_json(profile, model_hash);
    char *text = json == NULL ? NULL : mb_json_text(json, JSON_INDENT(1) | JSON_REAL_PRECISION(17), &nbytes);
    json_decref(json);
    if (text == NULL)
        return mb_fail_memory(err, "a usage profile");
    enum mb_status status = mb_write_file(path, text, nbytes, err);
    free(text);
    return status;
}

static enum mb_status read_count(const json_t *value, uint64_t *count, struct mb_error *err)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return mb_fail(err, MB_BAD_DATA, "not a count of tokens");
    *count = (uint64_t)json_integer_value(value);
    return MB_OK;
}

static enum mb_status read_gate(const json_t *value, uint64_t *gate, struct mb_error *err)
{
    double sum = json_number_value(value);
    if (!json_is_number(value) || !(sum >= 0 && sum < 0x1p31))
        return mb_fail(err, MB_BAD_DATA, "not a sum of weights");
    *gate = (uint64_t)(sum * 0x1p32);
    return MB_OK;
}

static enum mb_status read_experts(const json_t *json, struct layer *layer, struct mb_error *err)
{
    const json_t *n = json_object_get(json, "n"), *gate = json_object_get(json, "gate");
    for (size_t e = 0; e < layer->n_experts; e++) {
        enum mb_status status = read_count(json_array_get(n, e), &layer->n[e], err);
        if (status == MB_OK)
            status = read_gate(json_array_get(gate, e), &layer->gate[e], err);
        if (status == MB_OK && layer->n[e] > layer->n_tokens)
            status = mb_fail(err, MB_BAD_DATA, "more tokens than the layer has");
        if (status != MB_OK)
            return mb_fail_in(err, status, "layer %zu: expert %zu", layer->layer, e);
    }
    return MB_OK;
}

static enum mb_status read_layer(const json_t *json, struct mb_profile *profile, struct mb_error *err)
{
    uint64_t number, n_tokens;
    size_t n_experts = json_array_size(json_object_get(json, "n"));
    MB_TRY(read_count(json_object_get(json, "layer"), &number, err));
    MB_TRY(read_count(json_object_get(json, "n_tokens"), &n_tokens, err));
    if (number >= LAYERS_MAX || n_experts == 0 || n_experts > EXPERTS_MAX ||
        json_array_size(json_object_get(json, "gate")) != n_experts)
        return mb_fail(err, MB_BAD_DATA, "needs a \"layer\", and as many numbers in \"gate\" as in \"n\"");
    if (profile->n_layers > 0 && number <= profile->layers[profile->n_layers - 1].layer)
        return mb_fail(err, MB_BAD_DATA, "layer %" PRIu64 ": not in order, or there twice", number);
    MB_TRY(add_layer(profile, (size_t)number, n_experts, err));
    struct layer *layer = &profile->layers[profile->n_layers - 1];
    layer->n_tokens = n_tokens;
    return read_experts(json, layer, err);
}

static enum mb_status read_profile(const json_t *json, const char *hash, struct mb_profile *profile,
                                   struct mb_error *err)
{
    const json_t *version = json_object_get(json, "moebius_profile"),
                 *layers = json_object_get(json, "layers");
    const char *of = json_string_value(json_object_get(json, "model_hash"));
    if (!json_is_integer(version) || of == NULL || !json_is_array(layers) || json_array_size(layers) == 0)
        return mb_fail(err, MB_BAD_DATA, "not a usage profile; 'moebius eval --profile-out' writes one");
    if (json_integer_value(version) != PROFILE_VERSION)
        return mb_fail(err, MB_UNSUPPORTED, "a usage profile of version %lld; this program reads version %d",
                       (long long)json_integer_value(version), PROFILE_VERSION);
    if (hash != NULL && strcmp(of, hash) != 0)
        return mb_fail(
            err, MB_BAD_DATA,
            "the usage profile of another model (hash %.32s, this model's is %.32s); make one with "
            "'moebius eval --profile-out'",
            of, hash);
    for (size_t i = 0; i < json_array_size(layers); i++) {
        enum mb_status status = read_layer(json_array_get(layers, i), profile, err);
        if (status != MB_OK)
            return mb_fail_in(err, status, "layers[%zu]", i);
    }
    return MB_OK;
}

enum mb_status mb_profile_load(const char *path, const char model_hash[MB_HASH_NBYTES],
                               struct mb_profile **profile, struct mb_error *err)
{
    json_t *json;
    MB_TRY(mb_json_read(path, FILE_NBYTES_MAX, &json, err));
    enum mb_status status = make(profile, err);
    if (status == MB_OK)
        status = close_unless_ok(profile, read_profile(json, model_hash, *profile, err));
    json_decref(json);
    return status == MB_OK || status == MB_NO_MEMORY ? status : mb_fail_in(err, status, "%s", path);
}
