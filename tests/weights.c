/*
 * weights.c - checkpoint, index and store, opened and closed in order.
 */
#include "weights.h"
#include <stdio.h>

enum mb_status test_weights_open(const char *path, int n_threads, struct test_weights *weights,
                                 struct mb_error *err)
{
    const struct mb_store_options options = {.size = sizeof options, .n_threads = n_threads};
    return test_weights_open_with(path, &options, weights, err);
}

enum mb_status test_weights_open_with(const char *path, const struct mb_store_options *options,
                                      struct test_weights *weights, struct mb_error *err)
{
    *weights = (struct test_weights){0};
    enum mb_status status = mb_checkpoint_open(path, &weights->ckpt, err);
    if (status == MB_OK)
        status = mb_index_open(weights->ckpt, &weights->index, err);
    if (status == MB_OK)
        status = mb_store_open(weights->index, options, &weights->store, err);
    if (status != MB_OK)
        test_weights_close(weights);
    return status;
}

void test_weights_close(struct test_weights *weights)
{
    mb_store_close(weights->store);
    mb_index_close(weights->index);
    mb_checkpoint_close(weights->ckpt);
    *weights = (struct test_weights){0};
}

const struct mb_expert_part *test_expert_parts(size_t expert, size_t n_hidden, size_t n_inner)
{
    enum { N_PARTS = 3 };
    static const char *const kinds[N_PARTS] = {"gate", "up", "down"};
    static char names[TEST_PARTS_EXPERTS][N_PARTS][100];
    static struct mb_expert_part parts[TEST_PARTS_EXPERTS][N_PARTS];
    for (size_t k = 0; k < N_PARTS; k++) {
        snprintf(names[expert][k], sizeof names[expert][k], "model.layers.1.mlp.experts.%zu.%s_proj.weight",
                 expert, kinds[k]);
        parts[expert][k] = (struct mb_expert_part){names[expert][k], k == 2 ? n_hidden : n_inner,
                                                   k == 2 ? n_inner : n_hidden};
    }
    return parts[expert];
}
