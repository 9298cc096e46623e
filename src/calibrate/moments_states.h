/*
 * moments_states.h - hidden states that are kept between two layers, so that work goes on after a kill.
 */
#ifndef MB_CALIBRATE_MOMENTS_STATES_H
#define MB_CALIBRATE_MOMENTS_STATES_H

#include "moments_file.h"

/* Those at the input of a layer, n floats; replaces the file as a whole. */
enum mb_status mb_moments_states_save(const char *path, const struct mb_moments_key *key, size_t layer,
                                      const float *states, uint64_t n, struct mb_error *err);

/* *layer: 0 where there is no file, or it is damaged or of other work; 'states' is unspecified then. */
enum mb_status mb_moments_states_load(const char *path, const struct mb_moments_key *key, size_t *layer,
                                      float *states, uint64_t n, struct mb_error *err);

#endif
