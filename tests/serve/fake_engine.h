/*
 * fake_engine.h - engine.h without a model: it notes what it is fed, and fails on demand.
 *
 * After token t comes t + 1; a NaN after NAN_TOKEN.  Its sampler is greedy.
 */
#ifndef TESTS_SERVE_FAKE_ENGINE_H
#define TESTS_SERVE_FAKE_ENGINE_H

#include <moebius/engine.h>

enum { FAKE_N_VOCAB = 1000, FAKE_N_CTX = 64, FAKE_EOS = 999, FAKE_NAN_TOKEN = 500, FAKE_ITEMS_MAX = 64 };

/* What mb_decode was called with last, and how often. */
struct fake_batch {
    size_t n_calls, n_items;
    struct {
        int32_t first; /* token */
        size_t n_tokens, n_past;
        bool is_generated;
    } items[FAKE_ITEMS_MAX];
};
extern struct fake_batch fake_batch;

/* The next call of mb_decode fails as MB_IO, after it fed half of the items. */
extern bool fake_fails;

struct mb_model *fake_model(void);

#endif
