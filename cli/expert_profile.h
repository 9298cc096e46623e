/*
 * expert_profile.h - the option --expert-profile: how often each expert is used, from a usage profile.
 */
#ifndef MOEBIUS_CLI_EXPERT_PROFILE_H
#define MOEBIUS_CLI_EXPERT_PROFILE_H

#include "cli.h"
#include <moebius/engine.h>
#include <moebius/offload.h>

#define CLI_ROW_EXPERT_PROFILE(value)                                                                        \
    CLI_ROW_TEXT(0, "expert-profile", "FILE", value,                                                         \
                 "where experts are streamed: begin with those that this usage profile says are used most\n" \
                 "('moebius eval --profile-out', also of the uncoded model)")

/* As mb_model_open; 'profile' is the option's value, NULL where it was not given. */
enum mb_status cli_open_model(const char *path, const char *profile, struct mb_model_options *options,
                              struct mb_model **model, struct mb_error *err);

/*
 * *usage: [n_layers * n_experts] uses of each expert per token, malloc'ed, for a model whose layers with
 * experts are 'layers'.  model_path NULL: the profile of any model with these layers will do; else:  Reads
 * all weights of the model at 'model_path', whose profile it has to be.
 */
enum mb_status cli_expert_profile(const char *path, const char *model_path, const uint32_t *layers,
                                  size_t n_layers, size_t n_experts, double **usage, struct mb_error *err);

#endif
