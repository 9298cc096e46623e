/*
 * opened.h - what tests of the lab do again and again: fail with the message of an error, open a model.
 */
#ifndef TESTS_LAB_OPENED_H
#define TESTS_LAB_OPENED_H

#include "cmocka_all.h"
#include <moebius/engine.h>

static inline void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static inline struct mb_model *open_model(const char *path, int n_threads)
{
    struct mb_error err;
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = n_threads};
    must(mb_model_open(path, &options, &model, &err), &err);
    return model;
}

#endif
