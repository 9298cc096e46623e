/*
 * lookahead.h - which experts the next layer will want: a guess, so that reading begins before they are asked
 * for.
 */
#ifndef MB_MODEL_LOOKAHEAD_H
#define MB_MODEL_LOOKAHEAD_H

#include <moebius/status.h>
#include <stddef.h>
#include <stdint.h>

struct mb_model;
struct mb_layer;

/* Memory of a guess; all NULL: nothing is guessed. */
struct mb_lookahead {
    float *normed;   /* [MB_LOOKAHEAD_TOKENS][d_model] */
    float *scores;   /* [MB_LOOKAHEAD_TOKENS][n_experts] of the next layer's router */
    float *choice;   /* [n_experts] */
    float *weights;  /* [n_used] */
    int32_t *chosen; /* [MB_LOOKAHEAD_TOKENS][n_used] */
};

/* More tokens together go to so many experts that a guess gains nothing. */
enum { MB_LOOKAHEAD_TOKENS = 4 };

enum mb_status mb_lookahead_create(struct mb_model *model, struct mb_error *err);
void mb_lookahead_free(struct mb_model *model);

/* Adds the product of the next layer's router with the present hidden states to the stage. */
void mb_lookahead_add(struct mb_model *model, const struct mb_layer *layer);

/* Both on the calling thread: for a layer that has no experts of its own. */
void mb_lookahead_now(struct mb_model *model, const struct mb_layer *layer);

/* The same where tokens enter the layers, for the first that has experts: before its attention. */
void mb_lookahead_enter(struct mb_model *model, size_t first_layer, size_t end_layer);

/* Tells the store what came of it, after the stage has run and the layer's own experts are asked for. */
void mb_lookahead_tell(struct mb_model *model, const struct mb_layer *layer);

#endif
