/*
 * choice_tokens.c - how lm-evaluation-harness tokenises a context and its continuation.
 *
 * White space at the context's end moves to the continuation.  Both together are encoded, and so is the
 * context alone; the continuation's tokens are those of both after as many as the context has.
 */
#include "choice_tokens.h"
#include "base/buf.h"
#include "base/error.h"
#include "number.h"
#include <stdlib.h>
#include <string.h>

/* Context and continuation, NULL: no memory. *n_context: bytes of the context without white space at its end.
 */
static char *join(const char *context, const char *continuation, size_t *n_context)
{
    struct mb_bytes whole = {0};
    size_t n = strlen(context);
    if (!mb_bytes_put(&whole, context, n) || !mb_bytes_put(&whole, continuation, strlen(continuation) + 1)) {
        free(whole.p);
        return NULL;
    }
    while (n > 0 && mb_lab_is_space(context[n - 1]))
        n--;
    *n_context = n;
    return whole.p;
}

/* choice->ids: the context's own tokens, then those of both together from there on. */
static enum mb_status encode_text(const struct mb_tokenizer *tokenizer, const char *whole, size_t n_context,
                                  struct mb_lab_choice *choice, struct mb_error *err)
{
    int32_t *before;
    MB_TRY(mb_tokenizer_encode(tokenizer, whole, strlen(whole), true, &choice->ids, &choice->n, err));
    MB_TRY(mb_tokenizer_encode(tokenizer, whole, n_context, true, &before, &choice->n_context, err));
    bool is_usable = choice->n_context > 0 && choice->n_context < choice->n;
    if (is_usable)
        memcpy(choice->ids, before, choice->n_context * sizeof *before);
    free(before);
    return is_usable ? MB_OK : mb_fail(err, MB_BAD_DATA, "a choice without tokens, or without any before it");
}

static enum mb_status encode_choice(const struct mb_tokenizer *tokenizer, const char *context,
                                    const char *continuation, struct mb_lab_choice *choice,
                                    struct mb_error *err)
{
    size_t n_context;
    char *whole = join(context, continuation, &n_context);
    if (whole == NULL)
        return mb_fail_memory(err, "the choices");
    enum mb_status status = encode_text(tokenizer, whole, n_context, choice, err);
    free(whole);
    return status;
}

/* The last token of a context predicts the first one of the continuation: it is fed with the choice. */
static void find_shared(struct mb_lab_question *question)
{
    const struct mb_lab_choice *first = &question->choices[0];
    size_t n = first->n_context - 1;
    for (size_t i = 0; i < question->n_choices; i++) {
        const struct mb_lab_choice *choice = &question->choices[i];
        size_t limit = n < choice->n_context - 1 ? n : choice->n_context - 1;
        for (n = 0; n < limit && choice->ids[n] == first->ids[n];)
            n++;
        if (choice->n - 1 > question->n_fed_most)
            question->n_fed_most = choice->n - 1;
    }
    question->n_shared = n;
}

enum mb_status mb_lab_encode_question(const struct mb_tokenizer *tokenizer, const struct mb_choice_item *item,
                                      struct mb_lab_question *question, struct mb_error *err)
{
    question->choices = calloc(item->n_choices, sizeof *question->choices);
    if (question->choices == NULL)
        return mb_fail_memory(err, "the choices");
    question->n_choices = item->n_choices;
    for (size_t i = 0; i < item->n_choices; i++)
        MB_TRY(
            encode_choice(tokenizer, item->contexts[i], item->continuations[i], &question->choices[i], err));
    find_shared(question);
    return MB_OK;
}

void mb_lab_free_question(struct mb_lab_question *question)
{
    for (size_t i = 0; question->choices != NULL && i < question->n_choices; i++)
        free(question->choices[i].ids);
    free(question->choices);
    question->choices = NULL;
}

bool mb_lab_same_input(const struct mb_lab_choice *a, const struct mb_lab_choice *b)
{
    return a->n == b->n && memcmp(a->ids, b->ids, (a->n - 1) * sizeof *a->ids) == 0;
}
