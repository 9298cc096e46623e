/*
 * expert_profile.c - how often each expert is used, from a usage profile.
 */
#include "expert_profile.h"
#include "base/error.h"
#include "model_bytes.h"
#include <moebius/perturb.h>
#include <stdlib.h>

static enum mb_status fill(const struct mb_profile *profile, const uint32_t *layers, size_t n_layers,
                           size_t n_experts, double *usage, struct mb_error *err)
{
    for (size_t l = 0; l < n_layers; l++) {
        struct mb_profile_layer layer = {0};
        for (size_t i = 0; i < mb_profile_n_layers(profile) && layer.n_tokens == 0; i++)
            if (mb_profile_layer(profile, i).layer == layers[l])
                layer = mb_profile_layer(profile, i);
        if (layer.n_tokens == 0 || layer.n_experts != n_experts)
            return mb_fail(err, MB_BAD_DATA, "nothing about the %zu experts of layer %u", n_experts,
                           (unsigned)layers[l]);
        for (size_t e = 0; e < n_experts; e++)
            usage[l * n_experts + e] = (double)layer.n[e] / (double)layer.n_tokens;
    }
    return MB_OK;
}

enum mb_status cli_expert_profile(const char *path, const char *model_path, const uint32_t *layers,
                                  size_t n_layers, size_t n_experts, double **usage, struct mb_error *err)
{
    char hash[MB_HASH_NBYTES];
    struct mb_profile *profile;
    *usage = NULL;
    if (model_path != NULL)
        MB_TRY(mb_model_hash(model_path, hash, err));
    MB_TRY(mb_profile_load(path, model_path != NULL ? hash : NULL, &profile, err));
    *usage = cli_check_memory(calloc(n_layers * n_experts, sizeof **usage));
    enum mb_status status = fill(profile, layers, n_layers, n_experts, *usage, err);
    mb_profile_close(profile);
    return status == MB_OK ? MB_OK : mb_fail_in(err, status, "%s", path);
}

static enum mb_status usage_of(const char *path, const struct mb_checkpoint *ckpt,
                               struct mb_model_options *options, double **usage, struct mb_error *err)
{
    struct cli_model_bytes bytes;
    MB_TRY(cli_model_bytes_open(ckpt, &bytes, err));
    enum mb_status status =
        cli_expert_profile(path, NULL, bytes.layers, bytes.n_layers, bytes.n_experts, usage, err);
    options->n_expert_usage = bytes.n_layers * bytes.n_experts;
    options->expert_usage = *usage;
    cli_model_bytes_close(&bytes);
    return status;
}

static enum mb_status read_usage(const char *path, const char *model_path, struct mb_model_options *options,
                                 double **usage, struct mb_error *err)
{
    struct mb_checkpoint *ckpt;
    *usage = NULL;
    if (path == NULL)
        return MB_OK;
    MB_TRY(mb_checkpoint_open(model_path, &ckpt, err));
    enum mb_status status = usage_of(path, ckpt, options, usage, err);
    mb_checkpoint_close(ckpt);
    return status;
}

enum mb_status cli_open_model(const char *path, const char *profile, struct mb_model_options *options,
                              struct mb_model **model, struct mb_error *err)
{
    double *usage;
    enum mb_status status = read_usage(profile, path, options, &usage, err);
    if (status == MB_OK)
        status = mb_model_open(path, options, model, err);
    free(usage);
    return status;
}
