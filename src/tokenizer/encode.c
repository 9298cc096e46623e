/*
 * encode.c - text to token ids.
 */
#include "base/error.h"
#include "base/utf8.h"
#include "tokenizer_impl.h"

enum { TEXT_NBYTES_MAX = 1 << 30 }; /* positions in a word are int32 */

/* One call's memory. */
struct encoding {
    const struct mb_tokenizer *tokenizer;
    struct mb_bpe_work work;
    struct mb_pretokenizer pretokenizer;
    struct mb_bytes normalized, spare;
    struct mb_error *err;
};

static enum mb_status put_id(struct encoding *e, int32_t id)
{
    return mb_ids_put(&e->work.ids, &id, 1) ? MB_OK : mb_fail_memory(e->err, "the tokens of a text");
}

typedef enum mb_status (*part_fn)(struct encoding *e, const char *text, size_t n, bool is_first);

/* Cuts at the added tokens of one kind; what is between them goes to 'each'. */
static enum mb_status cut_at_added(struct encoding *e, const struct mb_added *added, const char *text,
                                   size_t n, bool is_first, part_fn each)
{
    size_t done = 0, pos = 0;
    struct mb_added_match match;
    while (mb_added_next(added, text, n, &pos, done, &match)) {
        if (match.begin > done)
            MB_TRY(each(e, text + done, match.begin - done, is_first && done == 0));
        MB_TRY(put_id(e, match.id));
        done = match.end;
    }
    return done < n ? each(e, text + done, n - done, is_first && done == 0) : MB_OK;
}

static enum mb_status encode_words(struct encoding *e, const char *text, size_t n, bool is_first)
{
    return mb_pretokenize(&e->pretokenizer, text, n, is_first, e->err);
}

static enum mb_status encode_raw(struct encoding *e, const char *text, size_t n, bool is_first)
{
    const struct mb_tokenizer *t = e->tokenizer;
    if (!mb_normalize(&t->normalizers, &e->normalized, &e->spare, &text, &n))
        return mb_fail_memory(e->err, "the tokens of a text");
    return cut_at_added(e, &t->normalized_added, text, n, is_first, encode_words);
}

static enum mb_status begin_encoding(struct encoding *e, const struct mb_tokenizer *tokenizer,
                                     size_t text_nbytes, struct mb_error *err)
{
    *e = (struct encoding){.tokenizer = tokenizer, .err = err};
    if (!mb_bpe_work_init(&e->work, &tokenizer->bpe, text_nbytes))
        return mb_fail_memory(err, "the tokens of a text");
    e->pretokenizer.steps = &tokenizer->pretoken_steps;
    e->pretokenizer.work = &e->work;
    enum mb_status status = mb_matcher_init(&e->pretokenizer.matcher, text_nbytes, err);
    if (status != MB_OK)
        mb_bpe_work_free(&e->work);
    return status;
}

static void end_encoding(struct encoding *e)
{
    mb_bpe_work_free(&e->work);
    mb_matcher_free(&e->pretokenizer.matcher);
    for (size_t i = 0; i < MB_PRETOKEN_STEPS_MAX; i++)
        free(e->pretokenizer.changed[i].p);
    free(e->normalized.p);
    free(e->spare.p);
}

static enum mb_status put_edge(struct encoding *e, const struct mb_ids *ids)
{
    return mb_ids_put(&e->work.ids, ids->p, ids->n) ? MB_OK : mb_fail_memory(e->err, "the tokens of a text");
}

static enum mb_status encode_between_edges(struct encoding *e, const char *text, size_t n, bool add_special)
{
    if (add_special)
        MB_TRY(put_edge(e, &e->tokenizer->before));
    MB_TRY(cut_at_added(e, &e->tokenizer->raw_added, text, n, true, encode_raw));
    return add_special ? put_edge(e, &e->tokenizer->after) : MB_OK;
}

/* Hands over the ids. A list without ids is allocated too, so that the caller has something to free. */
static enum mb_status take_ids(struct encoding *e, int32_t **ids, size_t *n_ids)
{
    if (e->work.ids.p == NULL) {
        MB_TRY(put_id(e, 0));
        e->work.ids.n = 0;
    }
    *ids = e->work.ids.p;
    *n_ids = e->work.ids.n;
    e->work.ids.p = NULL;
    return MB_OK;
}

static enum mb_status encode_valid(const struct mb_tokenizer *tokenizer, const char *text, size_t n,
                                   bool add_special, int32_t **ids, size_t *n_ids, struct mb_error *err)
{
    struct encoding e;
    MB_TRY(begin_encoding(&e, tokenizer, n, err));
    enum mb_status status = encode_between_edges(&e, text, n, add_special);
    if (status == MB_OK)
        status = take_ids(&e, ids, n_ids);
    end_encoding(&e);
    return status;
}

enum mb_status mb_tokenizer_encode(const struct mb_tokenizer *tokenizer, const char *text, size_t text_nbytes,
                                   bool add_special, int32_t **ids, size_t *n_ids, struct mb_error *err)
{
    if (text_nbytes > TEXT_NBYTES_MAX)
        return mb_fail(err, MB_USAGE, "the text has %zu bytes, at most %d can be tokenized at once: cut it",
                       text_nbytes, TEXT_NBYTES_MAX);
    if (mb_utf8_valid_prefix(text, text_nbytes) == text_nbytes)
        return encode_valid(tokenizer, text, text_nbytes, add_special, ids, n_ids, err);
    struct mb_bytes valid = {0};
    enum mb_status status = mb_utf8_replace(&valid, text, text_nbytes)
                                ? encode_valid(tokenizer, valid.p, valid.n, add_special, ids, n_ids, err)
                                : mb_fail_memory(err, "the tokens of a text");
    free(valid.p);
    return status;
}
