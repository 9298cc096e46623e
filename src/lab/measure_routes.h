/*
 * measure_routes.h - which experts each token went to, in the clean pass and in the last run.
 */
#ifndef MB_LAB_MEASURE_ROUTES_H
#define MB_LAB_MEASURE_ROUTES_H

#include <moebius/measure.h>

/* Choices of one layer: [0] in the clean pass, [1] in the last run. */
struct mb_routed_layer {
    size_t layer, n_used;
    uint16_t *chosen[2]; /* [n_tokens][n_used] */
    uint64_t *load[2];   /* [n_experts] */
    double *gate[2];     /* [n_experts] */
};

struct mb_routes {
    size_t n_tokens, n_experts, n_layers, n_routed;
    int which;                      /* 0 or 1: what is recorded now */
    struct mb_routed_layer *layers; /* [n_layers] by layer; n_used 0: no experts */
    size_t *routed;                 /* [n_routed] numbers of those with experts */
    enum mb_status status;          /* of recording */
    struct mb_error err;
};

/* What a session's callback gets: its tokens begin at token_at of all. */
struct mb_route_place {
    struct mb_routes *routes;
    size_t token_at;
};

enum mb_status mb_routes_open(struct mb_routes *routes, const struct mb_model_info *info, size_t n_tokens,
                              struct mb_error *err);
void mb_routes_close(struct mb_routes *routes);
uint64_t mb_routes_nbytes(const struct mb_routes *routes);

/* An mb_route_fn with a struct mb_route_place. */
void mb_routes_record(void *ctx, size_t layer, size_t pos, const int32_t *experts, const float *weights,
                      size_t n_experts, float margin);

/* After the clean pass: recording goes on with runs. */
void mb_routes_begin_run(struct mb_routes *routes, size_t first_layer);

#endif
