/*
 * weights.h - a folder opened as far as its weights, for tests of any part.
 */
#ifndef TESTS_WEIGHTS_H
#define TESTS_WEIGHTS_H

#include <moebius/weights.h>

struct test_weights {
    struct mb_checkpoint *ckpt;
    struct mb_index *index;
    struct mb_store *store;
};

/* After a failure there is nothing to close. */
enum mb_status test_weights_open(const char *path, int n_threads, struct test_weights *weights,
                                 struct mb_error *err);
/* The same with options of the store. */
enum mb_status test_weights_open_with(const char *path, const struct mb_store_options *options,
                                      struct test_weights *weights, struct mb_error *err);
void test_weights_close(struct test_weights *weights);

/* gate, up and down of an expert of layer 1, in static memory for each of the first TEST_PARTS_EXPERTS. */
enum { TEST_PARTS_EXPERTS = 16 };
const struct mb_expert_part *test_expert_parts(size_t expert, size_t n_hidden, size_t n_inner);

#endif
