/*
 * eval_sessions.c - what sessions the measurements of the verb "eval" will open.
 */
#include "eval.h"

void eval_expect_sessions(const struct eval_args *args, struct mb_model_options *model_options)
{
    enum { N_WINDOW = 512, N_TASK = 1024, N_PARALLEL = 16, N_REPLY = 256 };
    if (args->tokens != NULL)
        return;
    model_options->n_ctx = args->n_ctx > 0 ? (size_t)args->n_ctx : N_WINDOW;
    if (args->original != NULL || args->task != NULL)
        model_options->n_sessions = args->n_parallel > 0 ? (size_t)args->n_parallel : N_PARALLEL;
    if (args->original != NULL) { /* caches of both types, and one of the prefix that windows share */
        model_options->cache_type = MB_CACHE_F32;
        model_options->n_sessions += N_PARALLEL;
    }
    if (args->task != NULL)
        model_options->n_ctx = N_TASK + (args->n_predict > 0 ? (size_t)args->n_predict : N_REPLY);
}
