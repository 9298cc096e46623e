/*
 * policy.h - what a policy remembers, and what one kind of policy adds to it.
 *
 * A kind gives each expert a key when it is touched, and ranks experts by a score of that key and of the
 * layer.  Within a layer the order by score is the order by key, whatever the present layer is: so each
 * layer remembers its lowest expert, and a victim is found among as many as there are layers.
 */
#ifndef MB_OFFLOAD_POLICY_H
#define MB_OFFLOAD_POLICY_H

#include <moebius/offload.h>

struct mb_policy_expert {
    double key;    /* of the kind: larger is worth more */
    double count;  /* uses, as the kind counts them */
    double recent; /* of the kind */
    double gate;   /* sum of gates */
    uint64_t at;   /* number of the last touch or load; 0: never */
    uint64_t last_token;
    bool is_loaded;
};

struct mb_policy_kind {
    struct mb_policy_info info;
    /* NULL: all keys are 0 at the beginning. */
    void (*open)(struct mb_policy *policy, const struct mb_policy_options *options);
    /* Another token than before; NULL: nothing to do. */
    void (*begin_token)(struct mb_policy *policy, uint64_t token);
    /* Updates count and key of an expert that is touched. */
    void (*touch)(struct mb_policy *policy, size_t expert, float gate);
    /*
     * Worth at this moment of an expert that is 'n_ahead' layers ahead (1 .. n_layers), by its key.  Grows
     * with the key. NULL: the key itself.
     */
    double (*score)(const struct mb_policy *policy, double key, size_t n_ahead);
    bool is_of_sequence; /* counts begin again with each sequence */
    bool needs_usage;
};

enum { MB_LOWEST_UNKNOWN = -1 };

struct mb_policy {
    const struct mb_policy_kind *kind;
    size_t n_layers, n_experts;
    struct mb_policy_expert *experts; /* [n_layers * n_experts] */
    double *value;                    /* [n_layers * n_experts] what a use of each is worth: 1 and more */
    size_t *n_loaded;                 /* [n_layers] */
    int32_t *lowest;                  /* [n_layers] in its layer; MB_LOWEST_UNKNOWN: look for it */
    uint64_t *layer_token;            /* [n_layers] of the kind: the token that a layer's counts are of */
    size_t layer;                     /* of the last touch */
    uint64_t token, first_token;      /* of the last touch, and the sequence's first */
    uint64_t n_touches;
    double unit, growth; /* lfru: what a use counts now, and the factor from token to token */
    unsigned half_life;  /* lfru: in tokens, a power of two */
};

/* Gives an expert another key, and forgets its layer's lowest where that may be another now. */
void mb_policy_set_key(struct mb_policy *policy, size_t expert, double key);

/* All counts and keys times 'factor', a power of two: nothing is rounded but what is next to 0. */
void mb_policy_scale(struct mb_policy *policy, double factor);

extern const struct mb_policy_kind mb_policy_blend, mb_policy_lfru, mb_policy_lru, mb_policy_lfu,
    mb_policy_edgemoe, mb_policy_hobbit, mb_policy_profile, mb_policy_belady;

enum mb_status mb_policy_open_kind(const struct mb_policy_kind *kind, const struct mb_policy_options *options,
                                   struct mb_policy **policy, struct mb_error *err);

/* belady: when the expert is needed again, as a number that grows with time; UINT64_MAX: never. */
void mb_policy_set_next_use(struct mb_policy *policy, size_t expert, uint64_t next);

#endif
