/*
 * engine.c - opens a model and says what it is.
 */
#include "attention.h"
#include "base/error.h"
#include "base/options.h"
#include "mlp.h"
#include "model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of the first MLP with experts. */
static void fill_experts(const struct mb_config *c, struct mb_model_info *info)
{
    for (size_t i = c->n_mlps; i-- > 0;) {
        if (!c->mlps[i].kind->has_experts)
            continue;
        info->n_experts = c->mlps[i].router.n_experts;
        info->n_experts_used = c->mlps[i].router.n_used;
    }
}

static void fill_info(struct mb_model *model)
{
    const struct mb_config *c = &model->config;
    mb_layers_count(model, &model->info.n_params, &model->info.token_nbytes);
    fill_experts(c, &model->info);
    model->info.architecture = c->architecture;
    model->info.is_coded = mb_checkpoint_is_coded(model->ckpt);
    model->info.n_vocab = c->n_vocab;
    model->info.n_layers = c->n_layers;
    model->info.d_model = c->d_model;
    model->info.n_ctx_train = c->n_ctx;
    model->info.bos_id = c->bos_id;
    model->info.eos_ids = c->eos_ids;
    model->info.n_eos_ids = c->n_eos_ids;
    model->info.memory = mb_store_memory(model->store);
    model->info.work_nbytes = model->work_nbytes;
    model->info.n_pass_tokens = model->config.n_pass_tokens;
    model->info.memory_nbytes = model->memory_nbytes;
    model->info.n_threads = mb_pool_n_threads(model->pool);
    model->info.notes = model->notes.p;
}

static bool has_two_forms(const struct mb_config *c)
{
    bool has = false;
    for (size_t i = 0; i < c->n_attentions; i++)
        has = has || c->attentions[i].kind->has_two_forms;
    return has;
}

static enum mb_status open_parts(struct mb_model *model, const char *path,
                                 const struct mb_model_options *given, struct mb_error *err)
{
    struct mb_model_options options;
    MB_TRY(MB_OPTIONS_TAKE(options, given, err));
    MB_TRY(mb_checkpoint_open(path, &model->ckpt, err));
    MB_TRY(mb_config_read(model->ckpt, &model->config, err));
    model->has_two_forms = has_two_forms(&model->config);
    MB_TRY(mb_pool_create(options.n_threads, &model->pool, err));
    MB_TRY(mb_index_open(model->ckpt, &model->index, err));
    struct mb_store_options store = {.size = sizeof store,
                                     .n_threads = options.n_threads,
                                     .memory_form = options.memory_form,
                                     .timeline = options.timeline};
    MB_TRY(mb_budget_make(model, &options, &store, err));
    MB_TRY(mb_store_open(model->index, &store, &model->store, err));
    model->n_wave = MB_STORE_WAVE;
    model->stage.timeline = options.timeline;
    model->stage.fast_bits_max = options.activations == MB_ACTIVATIONS_AUTO    ? MB_FAST_BITS_MAX
                                 : options.activations == MB_ACTIVATIONS_EXACT ? 0
                                                                               : INFINITY;
    MB_TRY(mb_layers_load(model, err));
    MB_TRY(mb_store_ready(model->store, err));
    MB_TRY(mb_workspace_create(model, err));
    model->is_streaming = mb_store_memory(model->store).reads != MB_READS_NONE;
    return model->is_streaming && options.lookahead != MB_LOOKAHEAD_OFF ? mb_lookahead_create(model, err)
                                                                        : MB_OK;
}

enum mb_status mb_model_open(const char *path, const struct mb_model_options *options,
                             struct mb_model **model, struct mb_error *err)
{
    struct mb_model *m = calloc(1, sizeof *m);
    if (m == NULL)
        return mb_fail_memory(err, "the model");
    m->kernels = mb_kernels();
    m->ops = mb_float_ops();
    enum mb_status status = open_parts(m, path, options, err);
    if (status != MB_OK) {
        mb_model_close(m);
        return status;
    }
    fill_info(m);
    *model = m;
    return MB_OK;
}

void mb_model_close(struct mb_model *model)
{
    if (model == NULL)
        return;
    mb_workspace_free(model);
    mb_lookahead_free(model);
    mb_layers_free(model);
    mb_store_close(model->store);
    mb_index_close(model->index);
    mb_checkpoint_close(model->ckpt);
    mb_pool_destroy(model->pool);
    free(model);
}

/*
 * Vectors as integers, and inputs of plain experts, are kept from now on, whatever lies over the model: they
 * are there for products that read them, and change no result.
 */
enum mb_status mb_model_overlay(struct mb_model *model, const char *name, const struct mb_matrix *changed,
                                struct mb_error *err)
{
    bool is_coded = changed != NULL && changed->is_coded, is_plain = changed != NULL && !changed->is_coded;
    if (is_coded) {
        MB_TRY(mb_workspace_add_coded(model, err));
        mb_layers_need_all_forms(model);
    }
    MB_TRY(mb_store_overlay(model->store, name, changed, err));
    model->has_coded = model->has_coded || is_coded;
    model->has_plain_experts = model->has_plain_experts || is_plain;
    return MB_OK;
}

const struct mb_model_info *mb_model_info(const struct mb_model *model)
{
    return &model->info;
}

struct mb_model_timing mb_model_timing(const struct mb_model *model)
{
    struct mb_model_timing timing = model->timing;
    timing.waiting_ns = mb_pool_waited_ns(model->pool) - model->waited_before_ns;
    return timing;
}

void mb_model_timing_reset(struct mb_model *model)
{
    model->timing = (struct mb_model_timing){0};
    model->waited_before_ns = mb_pool_waited_ns(model->pool);
}

struct mb_store_traffic mb_model_traffic(const struct mb_model *model)
{
    return mb_store_traffic(model->store);
}
