/*
 * expert_profile.h - the option --expert-profile: how often each expert is used, from a usage profile.
 */
#ifndef MOEBIUS_CLI_EXPERT_PROFILE_H
#define MOEBIUS_CLI_EXPERT_PROFILE_H

#include <moebius/offload.h>

/*
 * *usage: [n_layers * n_experts] uses of each expert per token, malloc'ed, for a model whose layers with
 * experts are 'layers'.  Reads all weights of the model at 'model_path', whose profile it has to be.
 */
enum mb_status cli_expert_profile(const char *path, const char *model_path, const uint32_t *layers,
                                  size_t n_layers, size_t n_experts, double **usage, struct mb_error *err);

#endif
