/*
 * needs.c - what a model will need beside its weights, from config.json alone.
 */
#include "base/cpus.h"
#include "base/error.h"
#include "base/options.h"
#include "mlp.h"
#include "model.h"
#include "workspace.h"
#include <stdlib.h>

static enum mb_status find(struct mb_config *c, const struct mb_session_options *options,
                           struct mb_model_needs *needs, struct mb_error *err)
{
    *needs = (struct mb_model_needs){.n_layers = c->n_layers, .n_ctx_train = c->n_ctx};
    for (size_t i = c->n_mlps; i-- > 0;)
        if (c->mlps[i].kind->has_experts) {
            needs->n_experts = c->mlps[i].router.n_experts;
            needs->n_experts_used = c->mlps[i].router.n_used;
        }
    needs->n_ctx = options->n_ctx > 0 ? options->n_ctx : c->n_ctx;
    if (needs->n_ctx > c->n_ctx)
        return mb_fail(err, MB_USAGE, "a context of %zu tokens is more than the model's %zu", needs->n_ctx,
                       c->n_ctx);
    struct mb_cpu_share share = mb_cpu_share();
    mb_passes_nbytes(c, mb_cpu_share_threads(&share), needs->passes_nbytes);
    needs->work_nbytes = needs->passes_nbytes[0];
    needs->n_pass_tokens = MB_PASS_TOKENS;
    enum mb_dtype dtype = options->cache_type == MB_CACHE_F32 ? MB_F32 : MB_F16;
    if (!mb_cache_nbytes(c, needs->n_ctx, dtype, NULL, &needs->cache_nbytes))
        return mb_fail(err, MB_USAGE, "a context of %zu tokens is too large", needs->n_ctx);
    return MB_OK;
}

enum mb_status mb_model_look(const struct mb_checkpoint *ckpt, const struct mb_session_options *given,
                             struct mb_model_needs *needs, struct mb_error *err)
{
    struct mb_session_options options;
    MB_TRY(MB_OPTIONS_TAKE(options, given, err));
    struct mb_config *config = calloc(1, sizeof *config); /* too large for a stack */
    if (config == NULL)
        return mb_fail_memory(err, "the configuration of a model");
    enum mb_status status = mb_config_read(ckpt, config, err);
    if (status == MB_OK)
        status = find(config, &options, needs, err);
    free(config);
    return status;
}
