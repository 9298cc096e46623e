/*
 * perturb.h - errors in chosen weights of an open model: which matrices, what error, put in and taken out.
 *
 *     mb_perturb_open(model, NULL, &perturber, &err);
 *     mb_select(model, "layers=1-10 experts=top1", profile, &selection, &err);
 *     mb_perturbation_parse("normal 80%", &perturbation, &err);
 *     mb_perturb_apply(perturber, &selection, &perturbation, seed, &report, &err);
 *     (measure)
 *     mb_perturb_undo(perturber, &err);        results are again what they were, bit for bit
 *
 * The language of selections, the errors and their exact definitions are in docs/lab.md.
 *
 * Threads: one thread at a time uses a perturber or a profile, and none may be in mb_decode with the model
 * while an error is put in or taken out.  Errors are made on threads of the perturber's own.
 */
#ifndef MOEBIUS_PERTURB_H
#define MOEBIUS_PERTURB_H

#include <moebius/codecs.h>
#include <moebius/engine.h>
#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- usage of experts */

/* Tokens sent to each routed expert, and the sum of the weights that they gave it. */
struct mb_profile;

/* Empty, for this model's layers and experts. */
MB_API enum mb_status mb_profile_open(const struct mb_model *model, struct mb_profile **profile,
                                      struct mb_error *err);
MB_API void mb_profile_close(struct mb_profile *profile); /* NULL: nothing to do */

/* An mb_route_fn, for mb_model_watch_routes or a session: 'profile' is the profile. The order of calls does
 * not show. */
MB_API void mb_profile_count(void *profile, size_t layer, size_t pos, const int32_t *experts,
                             const float *weights, size_t n_experts, float margin);

struct mb_profile_layer {
    size_t layer; /* as in tensor names */
    size_t n_experts;
    uint64_t n_tokens;
    const uint64_t *n;    /* [n_experts] tokens sent to each */
    const uint64_t *gate; /* [n_experts] sum of their weights, in units of 2^-32 */
};

/* Layers with routed experts, in their order. */
MB_API size_t mb_profile_n_layers(const struct mb_profile *profile);
MB_API struct mb_profile_layer mb_profile_layer(const struct mb_profile *profile, size_t i);

enum { MB_HASH_NBYTES = 33 };

/*
 * What tells models apart: XXH3-128 of config.json and all tensors, as 32 hexadecimal digits.  Reads all
 * weights.
 */
MB_API enum mb_status mb_model_hash(const char *model_path, char hash[MB_HASH_NBYTES], struct mb_error *err);

/* A JSON file (docs/lab.md), whole or not at all. */
MB_API enum mb_status mb_profile_save(const struct mb_profile *profile, const char *path,
                                      const char model_hash[MB_HASH_NBYTES], struct mb_error *err);

/* MB_BAD_DATA: it is no profile, or that of a model with another hash (NULL: any model will do). */
MB_API enum mb_status mb_profile_load(const char *path, const char model_hash[MB_HASH_NBYTES],
                                      struct mb_profile **profile, struct mb_error *err);

/* ---------------------------------------------------------------- selections */

/* Matrices of a model. */
struct mb_selection {
    size_t *at; /* [n] numbers in mb_model_matrices, increasing */
    size_t n;
    char projection[64]; /* as 'proj=' says it: "down", "gate,up"; "all" without it */
};

/*
 * The matrices that 'text' selects.  'profile' may be NULL where it is not needed.  MB_USAGE: the text is no
 * selection (the message points at the word and says what may be there), or it selects nothing (and why); or
 * a profile is needed.  MB_BAD_DATA: the profile is that of a model with other layers or experts.
 */
MB_API enum mb_status mb_select(const struct mb_model *model, const char *text,
                                const struct mb_profile *profile, struct mb_selection *selection,
                                struct mb_error *err);
MB_API void mb_selection_free(struct mb_selection *selection); /* leaves it empty */

/*
 * "1.5 2.0 lm_head.weight": experts as layer.expert, whichever of their matrices are selected, and the names
 * of other matrices.  malloc'ed; NULL: no memory.
 */
MB_API char *mb_selection_text(const struct mb_model *model, const struct mb_selection *selection);

/* ---------------------------------------------------------------- errors */

enum mb_perturbation_kind {
    MB_PERTURB_NONE = 0,
    MB_PERTURB_NORMAL = 1,    /* w + e z, z from the standard normal distribution */
    MB_PERTURB_UNIFORM = 2,   /* w + e u, u even in -1 to 1; never beyond e */
    MB_PERTURB_CODEC = 3,     /* coded with bound e, and multiplied from the coded form; never beyond e */
    MB_PERTURB_RANDOM = 4,    /* normal values of the matrix's mean and deviation in place of w */
    MB_PERTURB_ZERO = 5,      /* 0 */
    MB_PERTURB_DROP = 6,      /* the router passes the expert over */
    MB_PERTURB_GAUSS_ISO = 7, /* w + s z, s: the rms error of the codec with bound e in this matrix */
};

struct mb_perturbation {
    enum mb_perturbation_kind kind;
    struct mb_bound bound;        /* what e is; exact: the error has no e */
    const struct mb_codec *codec; /* of CODEC: another codec; NULL: ours, multiplied from the coded form */
    /* Of CODEC: [selection.n] the bound of each matrix, none exact, in place of 'bound'; NULL: they share it.
     */
    const struct mb_bound *bounds;
};

/*
 * "normal 80%", "uniform abs:0.001", "codec 30%", "codec:sz3 30%", "codec:nf4", "zero". MB_USAGE says what is
 * allowed; MB_UNSUPPORTED: a codec that is not on this machine (codecs.h).
 */
MB_API enum mb_status mb_perturbation_parse(const char *text, struct mb_perturbation *perturbation,
                                            struct mb_error *err);

/* Whether it has a bound (some other codecs have none), and whether it depends on a seed. */
MB_API bool mb_perturbation_has_bound(enum mb_perturbation_kind kind);
MB_API bool mb_perturbation_is_random(enum mb_perturbation_kind kind);

/* Zeroed means defaults. */
struct mb_perturb_options {
    size_t size;   /* sizeof(struct mb_perturb_options) */
    int n_threads; /* 0: as many as the model has */
};

struct mb_perturber;

MB_API enum mb_status mb_perturb_open(struct mb_model *model, const struct mb_perturb_options *options,
                                      struct mb_perturber **perturber, struct mb_error *err);

/* Takes out what is in first. NULL: nothing to do. */
MB_API void mb_perturb_close(struct mb_perturber *perturber);

/*
 * What an error did.  Errors are those of the weights as the model multiplies them, against the weights as
 * they were loaded; in units of e where the error has one.  The error of a dropped expert is that of zero.
 */
struct mb_perturb_report {
    uint64_t n_matrices, n_weights; /* that were changed */
    uint64_t n_dropped;             /* experts */
    double eps_min, eps_max; /* the smallest and largest e; NAN: the error has none, as the next three */
    double err_max, err_rms; /* in units of e */
    double share_beyond;     /* of weights whose error is larger than e */
    double norm;             /* Frobenius norm of the error over that of the weights; NAN: they are 0 */
    size_t first_layer;      /* before it nothing changed; n_layers: the head alone, or nothing at all */
    bool is_head_changed;
    uint64_t nbytes; /* memory that it takes until it is taken out */
    double seconds;
    double bits; /* a weight of the coded form, as bench codecs counts it; NAN: the error is no codec's */
};

/*
 * Puts an error into all selected matrices.  Results depend on seed, names, positions and values of the
 * weights alone.  MB_USAGE: a matrix has an error already; 'drop' of something else than whole routed
 * experts, or of so many that too few are left; a weight would become infinite; MB_UNSUPPORTED: a codec that
 * is not there; MB_BAD_DATA: the model's weight is NaN or infinite.  After a failure nothing of this call is
 * in.
 */
MB_API enum mb_status mb_perturb_apply(struct mb_perturber *perturber, const struct mb_selection *selection,
                                       const struct mb_perturbation *perturbation, uint64_t seed,
                                       struct mb_perturb_report *report, struct mb_error *err);

/* mb_select and mb_perturb_apply of "SELECTION: ERROR", as in "layer=4 experts=top1: normal 80%". */
MB_API enum mb_status mb_perturb_text(struct mb_perturber *perturber, const char *text,
                                      const struct mb_profile *profile, uint64_t seed,
                                      struct mb_perturb_report *report, struct mb_error *err);

/* Takes all of them out. Sessions keep what their caches hold: reset them. */
MB_API enum mb_status mb_perturb_undo(struct mb_perturber *perturber, struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
