/*
 * generate.c - answer a message with a model, plain or coded, and print the text as it is made.
 *
 *     generate MODEL MESSAGE     for example: generate models/reference 'Ali has 3 pears and eats one. How
 * many are left?'
 */
#include <moebius/moebius.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_TOKENS_MAX = 200 };

static void check(enum mb_status status, const struct mb_error *err)
{
    if (status == MB_OK)
        return;
    fprintf(stderr, "generate: %s\n", err->msg);
    exit(mb_status_exit_code(status));
}

static bool is_end(const struct mb_model_info *info, int32_t token)
{
    for (size_t i = 0; i < info->n_eos_ids; i++)
        if (info->eos_ids[i] == token)
            return true;
    return false;
}

/* The message as the model's chat template writes it, as tokens. The caller frees them. */
static int32_t *encode_message(const struct mb_tokenizer *tokenizer, const char *message, size_t *n)
{
    struct mb_error err;
    struct mb_chat_message user = {.role = "user", .content = message};
    char *text;
    int32_t *tokens;
    check(mb_tokenizer_chat(tokenizer, &user, 1, true, &text, &err), &err);
    check(mb_tokenizer_encode(tokenizer, text, strlen(text), false, &tokens, n, &err), &err);
    free(text);
    return tokens;
}

static void print_reply(struct mb_model *model, struct mb_session *session,
                        const struct mb_tokenizer *tokenizer, float *logits)
{
    const struct mb_model_info *info = mb_model_info(model);
    struct mb_error err;
    struct mb_sampler sampler;
    struct mb_detokenizer *detokenizer;
    const char *text;
    size_t nbytes;
    void *scratch = malloc(info->n_vocab * 8);
    if (scratch == NULL)
        exit(4);
    check(mb_sampler_init(&sampler, NULL, &err), &err); /* greedy */
    check(mb_detokenizer_open(tokenizer, true, &detokenizer, &err), &err);

    for (int i = 0; i < N_TOKENS_MAX; i++) {
        int32_t token;
        check(mb_sampler_pick(&sampler, logits, info->n_vocab, scratch, &token, &err), &err);
        if (is_end(info, token))
            break;
        check(mb_detokenizer_add(detokenizer, &token, 1, &text, &nbytes, &err), &err);
        fwrite(text, 1, nbytes, stdout);
        fflush(stdout);
        struct mb_batch_item item = {
            .session = session, .tokens = &token, .n_tokens = 1, .is_generated = true, .logits = logits};
        check(mb_decode(model, &item, 1, &err), &err);
    }
    check(mb_detokenizer_flush(detokenizer, &text, &nbytes, &err), &err);
    fwrite(text, 1, nbytes, stdout);
    putchar('\n');
    mb_detokenizer_close(detokenizer);
    free(scratch);
}

int main(int argc, char **argv)
{
    struct mb_error err;
    struct mb_tokenizer *tokenizer;
    struct mb_model *model;
    struct mb_session *session;
    size_t n_tokens;
    if (argc != 3) {
        fputs("usage: generate MODEL MESSAGE\n", stderr);
        return 2;
    }
    check(mb_tokenizer_open(argv[1], &tokenizer, &err), &err);
    check(mb_model_open(argv[1], NULL, &model, &err), &err);
    check(mb_session_open(model, NULL, &session, &err), &err);
    float *logits = malloc(mb_model_info(model)->n_vocab * sizeof *logits);
    if (logits == NULL)
        return 4;

    int32_t *tokens = encode_message(tokenizer, argv[2], &n_tokens);
    check(mb_session_sync(session, tokens, n_tokens, MB_KEEP_PROMPT, logits, NULL, &err), &err);
    print_reply(model, session, tokenizer, logits);

    free(tokens);
    free(logits);
    mb_session_close(session);
    mb_model_close(model);
    mb_tokenizer_close(tokenizer);
    return 0;
}
