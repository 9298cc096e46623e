/*
 * router.h - which experts a token goes to, and with what weights.
 */
#ifndef MB_MODEL_ROUTER_H
#define MB_MODEL_ROUTER_H

#include "float_ops.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MB_EXPERTS_MAX = 4096 };

enum mb_router_score {
    MB_SCORE_SIGMOID,        /* of each logit */
    MB_SCORE_SOFTMAX,        /* over all experts, before the choice */
    MB_SCORE_SOFTMAX_CHOSEN, /* experts are chosen by logits; a softmax over the chosen ones weighs them */
    /* Two experts, by logits.  The weight of each is its share of a softmax over those experts that had not
     * been chosen before it and whose logits are near its own: arXiv:2409.12136. */
    MB_SCORE_SPARSEMIXER,
};

/* By what the best groups of experts are found. */
enum mb_group_score {
    MB_GROUP_BEST,     /* the largest choice score in the group */
    MB_GROUP_BEST_TWO, /* the sum of the two largest */
};

struct mb_router_config {
    enum mb_router_score score;
    size_t n_experts, n_used;
    bool has_bias; /* added to scores for the choice only */
    size_t n_groups, n_groups_used;
    enum mb_group_score group_score;
    bool norm_weights; /* the weights of the chosen experts are divided by their sum */
    float norm_min;    /* added to that sum */
    float scale;       /* the weights are multiplied with it */
    float jitter;      /* sparsemixer: how near, relative to the larger of both logits, halved */
};

/*
 * Chooses for one token.  'scores' [n_experts] holds the router's logits, then scores; 'choice' [n_experts]
 * is scratch; bias [n_experts], or NULL without has_bias.  Experts with dropped[e] ([n_experts], or NULL:
 * none) are passed over as if the router had no row for them; at least n_used are not dropped.  chosen and
 * weight [n_used], the best first, the lower index among equals.  Returns how far the choice scores of the
 * last chosen and the first not chosen expert are apart.
 */
float mb_router_choose(const struct mb_router_config *r, const struct mb_float_ops *ops, const float *bias,
                       const bool *dropped, float *scores, float *choice, int32_t *chosen, float *weight);

#endif
