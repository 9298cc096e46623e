/*
 * future.h - when each expert of a trace is used next by a generated token.
 */
#ifndef MB_OFFLOAD_FUTURE_H
#define MB_OFFLOAD_FUTURE_H

#include <moebius/offload.h>

/* Zeroed: not open. */
struct mb_future {
    size_t n_layers, n_experts;
    size_t *first;    /* [n_layers * n_experts + 1] where the uses of each begin in 'tokens' */
    size_t *at;       /* [n_layers * n_experts] of each the use to look at next */
    uint32_t *tokens; /* all uses: expert by expert, in order */
};

/* 'has_prompts': those of prompts count too. */
enum mb_status mb_future_open(struct mb_future *future, const struct mb_trace *trace, bool has_prompts,
                              struct mb_error *err);
void mb_future_close(struct mb_future *future);

/*
 * The first use after the token, in layers since the beginning of the trace; UINT64_MAX: none.  'token' never
 * goes back.
 */
uint64_t mb_future_next(struct mb_future *future, size_t expert, size_t token);

#endif
