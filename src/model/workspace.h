/*
 * workspace.h - the memory of a pass: rows of tokens, [n_pass_tokens] unless a comment says otherwise.
 *
 * The forward pass owns what is here; kinds of attention and MLP place parts of their own, which only they
 * know.
 */
#ifndef MB_MODEL_WORKSPACE_H
#define MB_MODEL_WORKSPACE_H

#include "config.h"
#include "linear.h"

enum { MB_PASS_LOGITS = 64 }; /* rows of logits computed at once, at most */

/* Gives places one after another; with base NULL it only counts. */
struct mb_placing {
    uint8_t *base;
    uint64_t at;
};

void *mb_take(struct mb_placing *p, uint64_t n, uint64_t elem_nbytes);
struct mb_activations mb_take_activations(struct mb_placing *p, uint64_t n, size_t n_values);

/* Angles of one attention's rotary embedding. */
struct mb_angles {
    float *cos, *sin; /* [..][n_dims / 2] */
};

struct mb_workspace {
    int32_t *tokens;
    size_t *pos;
    uint32_t *segment_of;
    float *x;      /* [..][d_model] the residual stream */
    float *normed; /* [..][d_model] what attention and MLP read */
    struct mb_activations normed_a;
    float *y; /* [..][d_model] what they write */

    struct mb_angles angles[MB_SHAPES_MAX]; /* of each attention */
    void *attention[MB_SHAPES_MAX];         /* the parts of the kinds of config.attentions */
    void *mlp[MB_SHAPES_MAX];               /* and of config.mlps */

    float *logits;   /* [n_logits_max][n_vocab] */
    float *logits_x; /* [n_logits_max][d_model] */
    struct mb_activations logits_a;
    float *logits_to[MB_PASS_LOGITS];
    size_t n_logits, n_logits_max;

    size_t n_chunks_max; /* of generated tokens of one pass, see attention.h */
    struct mb_segment *segments;
    size_t n_segments, n_tokens;
};

#endif
