/*
 * tokenizer.c - opens tokenizers; text to ids and back.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "tokenizer_impl.h"
#include <sys/stat.h>

enum { TEXT_NBYTES_MAX = 1 << 30 }; /* positions in a word are int32 */

enum mb_status mb_tokenizer_open(const char *path, struct mb_tokenizer **tokenizer, struct mb_error *err)
{
    struct stat st;
    char json_path[MB_PATH_MAX];
    if (stat(path, &st) != 0)
        return mb_fail_errno(err, path, "open");
    bool is_folder = S_ISDIR(st.st_mode);
    struct mb_tokenizer *opened = calloc(1, sizeof *opened);
    if (opened == NULL)
        return mb_fail_memory(err, "the tokenizer");
    enum mb_status status = is_folder ? mb_join_path(json_path, path, "tokenizer.json", err) : MB_OK;
    if (status == MB_OK)
        status = mb_tokenizer_load_json(opened, is_folder ? json_path : path, err);
    if (status == MB_OK && is_folder)
        status = mb_tokenizer_load_config(opened, path, err);
    if (status != MB_OK) {
        mb_tokenizer_close(opened);
        return status;
    }
    *tokenizer = opened;
    return MB_OK;
}

void mb_tokenizer_close(struct mb_tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    mb_bpe_free(&tokenizer->bpe);
    mb_normalizers_free(&tokenizer->normalizers);
    mb_added_free(&tokenizer->raw_added);
    mb_added_free(&tokenizer->normalized_added);
    mb_stages_free(&tokenizer->stages);
    for (size_t i = 0; i < tokenizer->n_decode_steps; i++) {
        free(tokenizer->decode_steps[i].what);
        free(tokenizer->decode_steps[i].with);
    }
    free(tokenizer->before.p);
    free(tokenizer->after.p);
    free(tokenizer->bos_token);
    free(tokenizer->eos_token);
    free(tokenizer->chat.text);
    free(tokenizer->chat.place);
    free(tokenizer);
}

size_t mb_tokenizer_n_vocab(const struct mb_tokenizer *tokenizer)
{
    return tokenizer->bpe.vocab.n_ids;
}

bool mb_tokenizer_has(const struct mb_tokenizer *tokenizer, int32_t id)
{
    const struct mb_vocab *vocab = &tokenizer->bpe.vocab;
    return id >= 0 && (size_t)id < vocab->n_ids && vocab->tokens[id].exists;
}

int32_t mb_tokenizer_id(const struct mb_tokenizer *tokenizer, const char *content)
{
    return mb_vocab_find(&tokenizer->bpe.vocab, content, strlen(content));
}

/* ---------------------------------------------------------------- encode */

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
    enum mb_status status = MB_OK;
    while (status == MB_OK && mb_added_next(added, text, n, &pos, done, &match)) {
        if (match.begin > done)
            status = each(e, text + done, match.begin - done, is_first && done == 0);
        if (status == MB_OK)
            status = put_id(e, match.id);
        done = match.end;
    }
    if (status == MB_OK && done < n)
        status = each(e, text + done, n - done, is_first && done == 0);
    return status;
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
    e->pretokenizer.stages = &tokenizer->stages;
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
    for (size_t i = 0; i < MB_STAGES_MAX; i++)
        free(e->pretokenizer.changed[i].p);
    free(e->normalized.p);
    free(e->spare.p);
}

static enum mb_status put_edge(struct encoding *e, const struct mb_ids *ids)
{
    return mb_ids_put(&e->work.ids, ids->p, ids->n) ? MB_OK : mb_fail_memory(e->err, "the tokens of a text");
}

static enum mb_status encode_valid(const struct mb_tokenizer *tokenizer, const char *text, size_t n,
                                   bool add_special, int32_t **ids, size_t *n_ids, struct mb_error *err)
{
    struct encoding e;
    enum mb_status status = begin_encoding(&e, tokenizer, n, err);
    if (status != MB_OK)
        return status;
    if (add_special)
        status = put_edge(&e, &tokenizer->before);
    if (status == MB_OK)
        status = cut_at_added(&e, &tokenizer->raw_added, text, n, true, encode_raw);
    if (status == MB_OK && add_special)
        status = put_edge(&e, &tokenizer->after);
    if (status == MB_OK && e.work.ids.p == NULL) /* no ids: still something to free */
        status = put_id(&e, 0), e.work.ids.n = 0;
    if (status == MB_OK) {
        *ids = e.work.ids.p;
        *n_ids = e.work.ids.n;
        e.work.ids.p = NULL;
    }
    end_encoding(&e);
    return status;
}

enum mb_status mb_tokenizer_encode(const struct mb_tokenizer *tokenizer, const char *text, size_t text_nbytes,
                                   bool add_special, int32_t **ids, size_t *n_ids, struct mb_error *err)
{
    if (text_nbytes > TEXT_NBYTES_MAX)
        return mb_fail(err, MB_USAGE, "a text of %zu bytes, at most %d can be tokenized at once", text_nbytes,
                       TEXT_NBYTES_MAX);
    if (mb_utf8_valid_prefix(text, text_nbytes) == text_nbytes)
        return encode_valid(tokenizer, text, text_nbytes, add_special, ids, n_ids, err);
    struct mb_bytes valid = {0};
    enum mb_status status = MB_OK;
    if (!mb_utf8_replace(&valid, text, text_nbytes))
        status = mb_fail_memory(err, "the tokens of a text");
    if (status == MB_OK)
        status = encode_valid(tokenizer, valid.p, valid.n, add_special, ids, n_ids, err);
    free(valid.p);
    return status;
}
