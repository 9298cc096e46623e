/*
 * chat_model.h - a model that replies to a conversation, and computes nothing twice.
 */
#ifndef MOEBIUS_CLI_CHAT_MODEL_H
#define MOEBIUS_CLI_CHAT_MODEL_H

#include "base/buf.h"
#include "generation.h"
#include "reply_screen.h"
#include <moebius/scheduler.h>

/* Zeroed: not open. */
struct cli_chat_model {
    struct mb_tokenizer *tokenizer;
    struct mb_model *model;
    const struct mb_model_info *info;
    struct cli_template template;
    struct mb_scheduler *scheduler;
    struct mb_detokenizer *detokenizer;
    struct mb_sampler_options sampler; /* each reply takes the next seed */
    size_t n_ctx, n_predict;           /* tokens at most; n_predict 0: no limit */
    double load_seconds;
    /* What the cache was fed: the tokens, and the text that they are. */
    struct mb_ids held;
    struct mb_bytes held_text;
};

struct cli_reply {
    struct mb_bytes text; /* terminated; the caller frees it */
    size_t n_tokens, n_prompt, n_kept;
    double prompt_seconds, seconds;
    enum mb_finish finish;
};

enum mb_status cli_chat_model_open(struct cli_chat_model *model, const char *path,
                                   const struct cli_generation *g, struct mb_error *err);
void cli_chat_model_close(struct cli_chat_model *model);

/*
 * Shows the reply while it comes, until it ends or Ctrl-C.  MB_USAGE: the conversation does not fit into the
 * context.  *reply is filled as far as it came, also after an error.
 */
enum mb_status cli_chat_model_reply(struct cli_chat_model *model, const struct mb_chat_message *messages,
                                    size_t n_messages, struct cli_reply *reply, struct mb_error *err);

#endif
