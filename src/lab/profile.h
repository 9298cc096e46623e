/*
 * profile.h - a usage profile, as selections read it.
 */
#ifndef MB_LAB_PROFILE_H
#define MB_LAB_PROFILE_H

#include <moebius/perturb.h>

/* MB_BAD_DATA: it is that of a model with other layers or experts. */
enum mb_status mb_profile_fits(const struct mb_profile *profile, const struct mb_model *model,
                               struct mb_error *err);

/* Tokens sent to each expert of a layer of a model that it fits. */
const uint64_t *mb_profile_counts(const struct mb_profile *profile, size_t layer);

#endif
