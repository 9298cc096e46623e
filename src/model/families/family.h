/*
 * family.h - a family of models: which architectures it has, how its config.json is read, what its tensors
 * are called.  docs/architecture.md says how to add one.
 */
#ifndef MB_MODEL_FAMILY_H
#define MB_MODEL_FAMILY_H

#include "config_reader.h"
#include "layer_weights.h"

enum { MB_ARCHITECTURES_MAX = 4 };

struct mb_family {
    const char *architectures[MB_ARCHITECTURES_MAX]; /* of config.json; the rest NULL */
    const char *model_type; /* of config.json, for folders whose config.json has no architectures */

    /* [MB_N_WEIGHTS] What is spelled otherwise than in most checkpoints (layer_weights.c); NULL: nothing. */
    const char *const *names;

    /*
     * Fills what config.h calls a model, but for special tokens, from config.json.  Checks everything that
     * sizes are made of; failures are kept by the reader.
     */
    void (*read)(struct mb_config_reader *r, struct mb_config *config);
};

/* The family of an architecture or, where that is NULL, of a model_type; NULL: none. Either may be NULL. */
const struct mb_family *mb_family_find(const char *architecture, const char *model_type,
                                       const char **as_spelled);

/* What the engine lacks for a well-known family that it does not run; NULL: it is not known. As above. */
const char *mb_family_needs(const char *architecture, const char *model_type);

/* The architectures of all families, separated by commas. */
void mb_family_list(char *text, size_t nbytes);

#endif
