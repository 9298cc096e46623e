/*
 * sweep_hash.c - checksums of models and data, by which a results file knows its own.
 */
#include "base/error.h"
#include "base/hash.h"
#include "sweep_work.h"
#include <moebius/checkpoint.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static XXH128_hash_t chain(XXH128_hash_t before, const char *text)
{
    return mb_hash_chain(before, text, strlen(text));
}

/* Files beside the weights that change what the model is asked, or where its replies end. */
enum mb_status mb_sweep_hash_files(const char *model_path, char hash[MB_SWEEP_HASH_NBYTES],
                                   struct mb_error *err)
{
    static const char *const names[] = {
        "tokenizer.json",          "tokenizer_config.json", "tiktoken.model",     "added_tokens.json",
        "special_tokens_map.json", "chat_template.jinja",   "chat_template.json", "generation_config.json"};
    XXH128_hash_t value = {0, 0};
    MB_TRY(mb_hash_chain_files(model_path, names, sizeof names / sizeof *names, &value, err));
    mb_hash_write(value, hash);
    return MB_OK;
}

/* A blob is named by its first matrix. */
static int expert_layer(const struct mb_checkpoint *ckpt, const char *name)
{
    struct mb_tensor_role role = mb_role_of(name);
    return role.expert >= 0 && mb_tensor_is_text(ckpt, name) ? role.layer : -1;
}

enum { LAYERS_MAX = 1 << 16 };

static enum mb_status find_layers(const struct mb_checkpoint *ckpt, int **layers, size_t *n,
                                  struct mb_error *err)
{
    bool *has_experts = calloc(LAYERS_MAX, sizeof *has_experts);
    *layers = malloc(LAYERS_MAX * sizeof **layers);
    *n = 0;
    if (has_experts == NULL || *layers == NULL) {
        free(has_experts);
        return mb_fail_memory(err, "the layers");
    }
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        int layer = expert_layer(ckpt, mb_checkpoint_tensor(ckpt, i)->name);
        if (layer >= 0 && layer < LAYERS_MAX)
            has_experts[layer] = true;
    }
    for (int layer = 0; layer < LAYERS_MAX; layer++)
        if (has_experts[layer])
            (*layers)[(*n)++] = layer;
    free(has_experts);
    return MB_OK;
}

enum mb_status mb_sweep_find_moe_layers(const char *model_path, int **layers, size_t *n, struct mb_error *err)
{
    struct mb_checkpoint *ckpt;
    MB_TRY(mb_checkpoint_open(model_path, &ckpt, err));
    enum mb_status status = find_layers(ckpt, layers, n, err);
    mb_checkpoint_close(ckpt);
    return status;
}

void mb_sweep_hash_bytes(const void *bytes, size_t nbytes, char hash[MB_SWEEP_HASH_NBYTES])
{
    mb_hash_write(XXH3_128bits(bytes, nbytes), hash);
}

int64_t mb_sweep_hash_text(const char *text)
{
    uint64_t value = XXH3_64bits(text, strlen(text));
    int64_t number;
    memcpy(&number, &value, sizeof number);
    return number;
}

void mb_sweep_hash_task(const struct mb_task *task, char hash[MB_SWEEP_HASH_NBYTES])
{
    XXH128_hash_t value = {0, 0};
    for (size_t i = 0; i < task->n_items; i++) {
        char kinds[32];
        snprintf(kinds, sizeof kinds, "%d %d", (int)task->items[i].format, (int)task->items[i].kind);
        value = chain(value, task->items[i].question);
        value = chain(value, task->items[i].answer);
        value = chain(value, kinds);
    }
    for (size_t i = 0; i < task->n_choices; i++) {
        const struct mb_choice_item *item = &task->choices[i];
        char right[32];
        snprintf(right, sizeof right, "%zu of %zu", item->right, item->n_choices);
        value = chain(value, right);
        for (size_t k = 0; k < item->n_choices; k++)
            value = chain(chain(value, item->contexts[k]), item->continuations[k]);
    }
    for (size_t i = 0; i < task->n_examples; i++)
        value = chain(chain(value, task->examples[i].question), task->examples[i].reply);
    mb_hash_write(value, hash);
}

enum mb_status mb_sweep_hash_plan(const struct mb_sweep_work *work, char hash[MB_SWEEP_HASH_NBYTES],
                                  struct mb_error *err)
{
    XXH128_hash_t value = {0, 0};
    char settings[160];
    const struct mb_sweep *sweep = work->sweep;
    snprintf(settings, sizeof settings, "%zu %zu %zu %zu %d", mb_sweep_n_questions(work), sweep->n_predict,
             sweep->n_ctx, sweep->n_windows, (int)work->options.cache_type);
    value = chain(value, settings);
    for (size_t i = 0; i < work->plan->n_items; i++) {
        const struct mb_sweep_item *item = &work->plan->items[i];
        char *line = NULL;
        if (asprintf(&line, "%s|%s|%s|%s|%llu", item->label, item->target, item->error,
                     item->bound == NULL ? "" : item->bound, (unsigned long long)item->seed) < 0)
            return mb_fail_memory(err, "a checksum");
        value = chain(value, line);
        free(line);
    }
    mb_hash_write(value, hash);
    return MB_OK;
}
