/*
 * calibrate.h - what a text says about a model: second moments of the inputs of its matrices, gathered by
 * running the model on it, kept in a file, and read again matrix by matrix (docs/calibrate.md).
 *
 *     mb_calibration_read("text.jsonl", info, tokenizer, NULL, &calibration, &err);
 *     mb_moments_make("model.moments", path, model, &calibration, NULL, &report, &err);
 *     mb_moments_open("model.moments", hash, &moments, &err);
 *     input = mb_moments_find(moments, "model.layers.3.mlp.experts.5.up_proj.weight");
 *     mb_moments_read(moments, input, h, &err);
 *
 * The moments of an input are H = sum of g^2 x x^T over the text's tokens, where x is what the matrix is
 * multiplied with, and g the router's weight of a routed expert for the token, 1 for all other matrices.
 * Matrices that read the same vectors share one input: gate_proj and up_proj of an expert, for example.
 *
 * Results have the same bits on every instruction set, for every number of threads and amount of memory.
 */
#ifndef MOEBIUS_CALIBRATE_H
#define MOEBIUS_CALIBRATE_H

#include <moebius/engine.h>
#include <moebius/feedback.h>
#include <moebius/measure.h>
#include <moebius/perturb.h>
#include <moebius/status.h>
#include <moebius/tokenizer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- the text */

/* Zeroed means defaults. */
struct mb_calibration_options {
    size_t size;  /* sizeof(struct mb_calibration_options) */
    size_t n_ctx; /* tokens of a window of plain text; 0: the smaller of 512 and the model's context */
    uint64_t n_tokens_max; /* windows after so many tokens are left out; 0: none is */
};

/* What the model reads, in windows. */
struct mb_calibration {
    struct mb_windows windows; /* all of their tokens count */
    uint64_t text_nbytes;
    char text_hash[MB_HASH_NBYTES];
    uint64_t n_strange;  /* tokens that are the unknown one, or only a part of a character */
    uint64_t n_read;     /* tokens that were looked at for that */
    size_t strange_line; /* with the most of them, from 1; 0: none */
};

/*
 * Reads a file: one JSON object a line if its name ends in ".jsonl" or ".json", each with a text "text", or
 * "question" and "reply" (else "answer"), which the chat template puts together; else plain text.  NULL: the
 * text that comes with Moebius.  MB_BAD_DATA names the line: not UTF-8, not such an object, longer than the
 * model's context; or the text is empty, or shorter than a window.  Afterwards mb_calibration_free.
 */
MB_API enum mb_status mb_calibration_read(const char *path, const struct mb_model_info *info,
                                          const struct mb_tokenizer *tokenizer,
                                          const struct mb_calibration_options *options,
                                          struct mb_calibration *calibration, struct mb_error *err);
MB_API void mb_calibration_free(struct mb_calibration *calibration); /* leaves it zeroed */

/* The text that comes with Moebius: JSON lines, terminated. */
MB_API const char *mb_calibration_default(size_t *nbytes);

/* ---------------------------------------------------------------- gathering */

/* What moments are of. */
struct mb_moments_key {
    char model[MB_HASH_NBYTES];     /* mb_model_hash */
    char tokenizer[MB_HASH_NBYTES]; /* of the tokenizer's files */
    char text[MB_HASH_NBYTES];
    char tokens[MB_HASH_NBYTES]; /* of the windows */
};

/* Reads all of the model's files. */
MB_API enum mb_status mb_moments_key_of(const char *model_path, const struct mb_calibration *calibration,
                                        struct mb_moments_key *key, struct mb_error *err);

/* Zeroed means defaults. */
struct mb_moments_options {
    size_t size;         /* sizeof(struct mb_moments_options) */
    int n_threads;       /* of the sums; 0: as many as CPUs and cgroup quotas allow */
    uint64_t nbytes_max; /* of a layer's sums; where they need more, the layer runs several times. 0: half of
                            the memory that is free */
    mb_progress_fn progress; /* in tokens that went through all layers; a share of one counts as such */
    void *progress_ctx;
};

struct mb_moments_report {
    size_t n_layers, n_layers_resumed; /* the head counts as one; that an earlier call had finished */
    size_t n_runs;                     /* of layers: more than n_layers where memory was short */
    double seconds, sum_seconds;       /* of this call, and in sums alone */
    double sum_flops;                  /* additions and multiplications in sums */
    uint64_t nbytes;                   /* of the file */
};

/*
 * Runs the model on the windows and writes the moments file.  One layer at a time: all tokens' hidden states
 * and one layer's sums are in memory.  After each layer the work is kept in PATH.partial and PATH.states, and
 * the same call after a kill goes on there.  'key' has to be of this model and these windows.  MB_USAGE: PATH
 * exists.  MB_BAD_DATA: an input is NaN or infinite (the message names its matrix).  MB_IO: another process
 * is making it.  Threads: none may be in mb_decode with this model.
 */
MB_API enum mb_status mb_moments_make(const char *path, struct mb_model *model,
                                      const struct mb_calibration *calibration,
                                      const struct mb_moments_key *key,
                                      const struct mb_moments_options *options,
                                      struct mb_moments_report *report, struct mb_error *err);

/* ---------------------------------------------------------------- the file */

struct mb_moments;

/* Belongs to the moments. */
struct mb_moments_input {
    const char *const *matrices; /* [n_matrices] names of those that read it */
    size_t n_matrices;
    size_t layer;      /* SIZE_MAX: the head's */
    int expert;        /* -1: no routed expert's */
    size_t n_values;   /* columns of the matrices */
    uint64_t n_tokens; /* vectors that were seen. 0: there are no moments */
    double sum_gg;     /* of g^2 */
};

struct mb_moments_contents {
    struct mb_moments_key key;
    uint64_t n_tokens, n_windows, nbytes;
    size_t n_layers, n_inputs, n_values_max;
    uint64_t hash; /* of all moments, by their checksums */
};

/*
 * Opens a finished file and checks its structure; moments stay in the file.  model_hash: of the model that
 * they have to be of; NULL: any.  MB_BAD_DATA names what is wrong: no moments file, cut, damaged, unfinished,
 * of another model.
 */
MB_API enum mb_status mb_moments_open(const char *path, const char *model_hash, struct mb_moments **moments,
                                      struct mb_error *err);
MB_API void mb_moments_close(struct mb_moments *moments); /* NULL is fine */
MB_API const struct mb_moments_contents *mb_moments_contents(const struct mb_moments *moments);

/* All inputs, layer by layer, the head's last. */
MB_API const struct mb_moments_input *mb_moments_inputs(const struct mb_moments *moments, size_t *n);

/* The input of a matrix, by its name; NULL: there is none. */
MB_API const struct mb_moments_input *mb_moments_find(const struct mb_moments *moments, const char *matrix);

/*
 * The moments of an input: h[n_values][n_values], symmetric.  Any number of threads at a time.  MB_BAD_DATA:
 * damaged, or a value is not finite, or negative on the diagonal.  MB_USAGE: the input has none.
 */
MB_API enum mb_status mb_moments_read(const struct mb_moments *moments, const struct mb_moments_input *input,
                                      float *h, struct mb_error *err);

/*
 * Moments as mb_feedback_create takes them; they have to stay open as long as the feedback.  Matrices that
 * are not in the file are not known.
 */
MB_API struct mb_moments_source mb_moments_as_source(struct mb_moments *moments);

/*
 * Moments as mb_verify takes them (mb_verify_options.meter), likewise.  Needs 12 bytes x n_cols^2 for each
 * matrix at hand.
 */
MB_API struct mb_output_meter mb_moments_as_meter(struct mb_moments *moments);

#ifdef __cplusplus
}
#endif

#endif
