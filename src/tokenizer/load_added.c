/*
 * load_added.c - added tokens: those of tokenizer.json, and those that other files add or change.
 *
 * The `tokenizers` package numbers a token that the vocabulary does not have by itself, from the vocabulary's
 * size on.  One that is added again has the flags that came last, but stays special.
 */
#include "base/error.h"
#include "load.h"

enum mb_status mb_load_flags(const struct mb_field *object, bool is_special, struct mb_added_spec *spec)
{
    MB_TRY(mb_field_bool(object, "single_word", false, &spec->single_word));
    MB_TRY(mb_field_bool(object, "lstrip", false, &spec->lstrip));
    MB_TRY(mb_field_bool(object, "rstrip", false, &spec->rstrip));
    MB_TRY(mb_field_bool(object, "special", is_special, &spec->is_special));
    return mb_field_bool(object, "normalized", !spec->is_special, &spec->normalized);
}

static enum mb_status check_content(const struct mb_field *field, const char *content)
{
    size_t nbytes = strlen(content);
    return nbytes > 0 && nbytes <= MB_ADDED_NBYTES_MAX
               ? MB_OK
               : mb_field_fail(field, MB_BAD_DATA, "its content has %zu bytes, not 1 to %d", nbytes,
                               MB_ADDED_NBYTES_MAX);
}

/* ---------------------------------------------------------------- the list */

int32_t mb_added_find(const struct mb_tokenizer *tokenizer, const char *content)
{
    int32_t id = mb_tokenizer_id(tokenizer, content);
    return id >= 0 && tokenizer->bpe.vocab.tokens[id].is_added ? id : -1;
}

/* The entry of an id; one that is new is at the end. NULL: no memory. */
static struct mb_added_entry *reach_entry(struct mb_tokenizer *tokenizer, int32_t id)
{
    struct mb_added_list *list = &tokenizer->added;
    struct mb_token *token = &tokenizer->bpe.vocab.tokens[id];
    void *items = list->items;
    if (token->is_added)
        return &list->items[token->i_added];
    bool ok = mb_grow(&items, &list->cap, list->n, 1, sizeof *list->items);
    list->items = items;
    if (!ok)
        return NULL;
    token->is_added = true;
    token->i_added = (uint32_t)list->n;
    return &list->items[list->n++];
}

enum mb_status mb_added_apply(struct mb_tokenizer *tokenizer, const struct mb_field *field,
                              const struct mb_added_spec *spec)
{
    struct mb_vocab *vocab = &tokenizer->bpe.vocab;
    struct mb_added_list *list = &tokenizer->added;
    MB_TRY(check_content(field, spec->content));
    int32_t id = mb_tokenizer_id(tokenizer, spec->content);
    if (id < 0) {
        id = list->next_id;
        if (list->n == MB_ADDED_MAX || id == MB_VOCAB_ID_MAX)
            return mb_field_fail(field, MB_BAD_DATA, "more than %d added tokens", MB_ADDED_MAX);
        MB_TRY(mb_load_token(vocab, field, spec->content, (size_t)id));
    }
    struct mb_added_entry *entry = reach_entry(tokenizer, id);
    if (entry == NULL)
        return mb_fail_memory(field->err, "the vocabulary");
    if (id >= list->next_id)
        list->next_id = id + 1;
    *entry = (struct mb_added_entry){
        .token = {.id = id, .single_word = spec->single_word, .lstrip = spec->lstrip, .rstrip = spec->rstrip},
        .normalized = spec->normalized,
        .is_special = spec->is_special};
    vocab->tokens[id].is_special |= spec->is_special;
    return MB_OK;
}

bool mb_added_has(const struct mb_tokenizer *tokenizer, const struct mb_added_spec *spec)
{
    int32_t id = mb_added_find(tokenizer, spec->content);
    if (id < 0)
        return false;
    const struct mb_added_entry *entry = &tokenizer->added.items[tokenizer->bpe.vocab.tokens[id].i_added];
    const struct mb_added_token *token = &entry->token;
    return entry->normalized == spec->normalized && entry->is_special == spec->is_special &&
           token->single_word == spec->single_word && token->lstrip == spec->lstrip &&
           token->rstrip == spec->rstrip;
}

/* ---------------------------------------------------------------- tokenizer.json */

/* We refuse a file whose ids differ from those that the package gives. */
static enum mb_status check_id(const struct mb_tokenizer *tokenizer, const struct mb_field *field,
                               const char *content, size_t given)
{
    char shown[64];
    int32_t id = mb_tokenizer_id(tokenizer, content);
    bool is_new = id < 0;
    if (is_new)
        id = tokenizer->added.next_id;
    else if (tokenizer->bpe.vocab.tokens[id].is_added)
        return mb_field_fail(field, MB_BAD_DATA, "the same token comes twice");
    return (size_t)id == given ? MB_OK
                               : mb_field_fail(field, MB_BAD_DATA, "added token '%s' has id %zu, but %s %d",
                                               mb_field_shown(shown, content), given,
                                               is_new ? "the next free one is" : "the vocabulary says", id);
}

static enum mb_status load_one(struct mb_tokenizer *tokenizer, const struct mb_field *field, size_t id_max)
{
    struct mb_added_spec spec = {0};
    size_t id = 0;
    if (!json_is_object(field->value))
        return mb_field_fail(field, MB_BAD_DATA, "not an object");
    MB_TRY(mb_field_size(field, "id", id_max, &id));
    MB_TRY(mb_field_string(field, "content", "", &spec.content));
    MB_TRY(mb_load_flags(field, false, &spec));
    MB_TRY(check_content(field, spec.content));
    MB_TRY(check_id(tokenizer, field, spec.content, id));
    return mb_added_apply(tokenizer, field, &spec);
}

enum mb_status mb_load_added(struct mb_tokenizer *tokenizer, const struct mb_field *added)
{
    tokenizer->added.next_id = (int32_t)tokenizer->bpe.vocab.n_tokens;
    if (added->value == NULL)
        return MB_OK;
    size_t n = json_array_size(added->value), id_max = mb_load_largest_id(tokenizer->bpe.vocab.n_tokens + n);
    if (!json_is_array(added->value))
        return mb_field_fail(added, MB_BAD_DATA, "not an array");
    if (n > MB_ADDED_MAX)
        return mb_field_fail(added, MB_BAD_DATA, "%zu tokens, at most %d are allowed", n, MB_ADDED_MAX);
    for (size_t i = 0; i < n; i++) {
        struct mb_field item = mb_field_at(added, i);
        MB_TRY(load_one(tokenizer, &item, id_max));
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- what is searched for */

/* Puts a token where its kind is searched for. false: no memory. */
static bool put_searched(struct mb_tokenizer *tokenizer, const struct mb_added_entry *entry)
{
    size_t nbytes;
    const char *text = mb_vocab_content(&tokenizer->bpe.vocab, entry->token.id, &nbytes);
    struct mb_bytes out = {0}, spare = {0};
    bool ok = true;
    if (entry->normalized)
        ok = mb_normalize(&tokenizer->normalizers, &out, &spare, &text, &nbytes);
    if (ok && nbytes > 0 && nbytes <= MB_ADDED_NBYTES_MAX)
        ok = mb_added_put(entry->normalized ? &tokenizer->normalized_added : &tokenizer->raw_added, text,
                          nbytes, entry->token);
    free(out.p);
    free(spare.p);
    return ok;
}

/* Special ones go first: of two that look the same after normalizing, the first is found. */
enum mb_status mb_added_finish(struct mb_tokenizer *tokenizer, struct mb_error *err)
{
    const struct mb_added_list *list = &tokenizer->added;
    for (int special = 1; special >= 0; special--)
        for (size_t i = 0; i < list->n; i++) {
            bool is_special = tokenizer->bpe.vocab.tokens[list->items[i].token.id].is_special;
            if (is_special == special && !put_searched(tokenizer, &list->items[i]))
                return mb_fail_memory(err, "the vocabulary");
        }
    return MB_OK;
}
