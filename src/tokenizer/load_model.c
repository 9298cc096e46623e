/*
 * load_model.c - vocabulary and merges of tokenizer.json.
 */
#include "base/error.h"
#include "base/utf8.h"
#include "load.h"
#include <stdio.h>

/* Unused ids cost memory: we refuse a file that makes us allocate much more than its own size. */
size_t mb_load_largest_id(size_t n_tokens)
{
    size_t max = 4 * n_tokens + 65536;
    return max < MB_VOCAB_ID_MAX ? max : MB_VOCAB_ID_MAX;
}

enum mb_status mb_load_token(struct mb_vocab *vocab, const struct mb_field *place, const char *content,
                             size_t id)
{
    char shown[64];
    size_t nbytes = strlen(content);
    mb_field_shown(shown, content);
    if (nbytes > MB_TOKEN_NBYTES_MAX)
        return mb_field_fail(place, MB_BAD_DATA, "token '%s' has %zu bytes, at most %d are allowed", shown,
                             nbytes, MB_TOKEN_NBYTES_MAX);
    switch (mb_vocab_put(vocab, content, nbytes, (int32_t)id)) {
    case MB_VOCAB_PUT:
        return MB_OK;
    case MB_VOCAB_SAME_CONTENT:
        return mb_field_fail(place, MB_BAD_DATA, "token '%s' comes twice", shown);
    case MB_VOCAB_SAME_ID:
        return mb_field_fail(place, MB_BAD_DATA, "token '%s': id %zu is already another token's", shown, id);
    default:
        return mb_fail_memory(place->err, "the vocabulary");
    }
}

static enum mb_status load_vocab(struct mb_vocab *vocab, const struct mb_field *model)
{
    struct mb_field field = mb_field_get(model, "vocab");
    if (!json_is_object(field.value))
        return mb_field_fail(&field, MB_BAD_DATA, "not an object");
    size_t n = json_object_size(field.value), max = mb_load_largest_id(n);
    if (!mb_vocab_init(vocab, n))
        return mb_fail_memory(field.err, "the vocabulary");
    const char *content;
    json_t *value;
    char shown[64];
    json_object_foreach((json_t *)field.value, content, value)
    {
        json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || (unsigned long long)id > max)
            return mb_field_fail(&field, MB_BAD_DATA, "token '%s': its id is not an integer within 0 to %zu",
                                 mb_field_shown(shown, content), max);
        MB_TRY(mb_load_token(vocab, &field, content, (size_t)id));
        vocab->tokens[id].is_model = true;
    }
    return MB_OK;
}

/* The two halves of a merge: ["a", "b"] or "a b". */
static bool merge_halves(const json_t *merge, const char *halves[2], size_t nbytes[2])
{
    if (json_is_string(merge)) {
        halves[0] = json_string_value(merge);
        const char *space = strchr(halves[0], ' ');
        if (space == NULL || strchr(space + 1, ' ') != NULL)
            return false;
        halves[1] = space + 1;
        nbytes[0] = (size_t)(space - halves[0]);
        nbytes[1] = strlen(halves[1]);
        return true;
    }
    if (!json_is_array(merge) || json_array_size(merge) != 2)
        return false;
    for (size_t i = 0; i < 2; i++) {
        halves[i] = json_string_value(json_array_get(merge, i));
        if (halves[i] == NULL)
            return false;
        nbytes[i] = strlen(halves[i]);
    }
    return true;
}

static enum mb_status load_merge(struct mb_bpe *bpe, const struct mb_field *merges, size_t rank,
                                 struct mb_bytes *joined)
{
    const char *halves[2];
    size_t nbytes[2];
    char shown[64];
    int32_t ids[2];
    if (!merge_halves(json_array_get(merges->value, rank), halves, nbytes)) {
        struct mb_field place = mb_field_at(merges, rank);
        return mb_field_fail(&place, MB_BAD_DATA, "not a pair of tokens");
    }
    joined->n = 0;
    for (size_t i = 0; i < 2; i++) {
        ids[i] = mb_vocab_find(&bpe->vocab, halves[i], nbytes[i]);
        if (!mb_bytes_put(joined, halves[i], nbytes[i]))
            return mb_fail_memory(merges->err, "the merges");
    }
    if (!mb_bytes_put(joined, "", 1))
        return mb_fail_memory(merges->err, "the merges");
    int32_t id = mb_vocab_find(&bpe->vocab, joined->p, joined->n - 1);
    struct mb_field place = *merges;
    if (ids[0] < 0 || ids[1] < 0 || id < 0)
        place = mb_field_at(merges, rank);
    if (ids[0] < 0 || ids[1] < 0)
        return mb_field_fail(&place, MB_BAD_DATA, "'%s' is made of a token that the vocabulary does not have",
                             mb_field_shown(shown, joined->p));
    if (id < 0)
        return mb_field_fail(&place, MB_BAD_DATA, "makes '%s', which the vocabulary does not have",
                             mb_field_shown(shown, joined->p));
    if (mb_bpe_add_merge(bpe, ids[0], ids[1], (uint32_t)rank, id))
        return MB_OK;
    place = mb_field_at(merges, rank);
    return mb_field_fail(&place, MB_BAD_DATA, "'%s': the same pair comes twice",
                         mb_field_shown(shown, joined->p));
}

static enum mb_status load_each_merge(struct mb_bpe *bpe, const struct mb_field *merges, size_t n,
                                      struct mb_bytes *joined)
{
    for (size_t rank = 0; rank < n; rank++)
        MB_TRY(load_merge(bpe, merges, rank, joined));
    return MB_OK;
}

static enum mb_status load_merges(struct mb_bpe *bpe, const struct mb_field *model)
{
    struct mb_field merges = mb_field_get(model, "merges");
    if (!json_is_array(merges.value))
        return mb_field_fail(&merges, MB_BAD_DATA, "not an array");
    size_t n = json_array_size(merges.value);
    if (n > MB_MERGES_MAX)
        return mb_field_fail(&merges, MB_BAD_DATA, "%zu merges, at most %d are allowed", n, MB_MERGES_MAX);
    if (!mb_bpe_init_merges(bpe, n))
        return mb_fail_memory(merges.err, "the merges");
    struct mb_bytes joined = {0};
    enum mb_status status = load_each_merge(bpe, &merges, n, &joined);
    free(joined.p);
    return status;
}

/* Refuses settings that change the ids and that we do not have. */
static enum mb_status check_model(const struct mb_field *model)
{
    const char *type, *text;
    MB_TRY(mb_field_string(model, "type", "BPE", &type)); /* old files have none */
    struct mb_field place = mb_field_get(model, "type");
    if (strcmp(type, "BPE") != 0)
        return mb_load_unsupported(&place, type);
    static const char *const empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        MB_TRY(mb_field_string(model, empty[i], "", &text));
        place = mb_field_get(model, empty[i]);
        if (text[0] != 0)
            return mb_load_unsupported(&place, text);
    }
    place = mb_field_get(model, "dropout");
    if (place.value != NULL && json_number_value(place.value) != 0)
        return mb_load_unsupported(&place, "dropout");
    return MB_OK;
}

static enum mb_status load_unk(struct mb_bpe *bpe, const struct mb_field *model)
{
    const char *unk;
    MB_TRY(mb_field_string(model, "unk_token", NULL, &unk));
    bpe->unk_id = -1;
    if (unk == NULL)
        return MB_OK;
    bpe->unk_id = mb_vocab_find(&bpe->vocab, unk, strlen(unk));
    if (bpe->unk_id >= 0)
        return MB_OK;
    struct mb_field place = mb_field_get(model, "unk_token");
    char shown[64];
    return mb_field_fail(&place, MB_BAD_DATA, "'%s' is not in the vocabulary", mb_field_shown(shown, unk));
}

enum mb_status mb_load_model(struct mb_tokenizer *tokenizer, const struct mb_field *model)
{
    struct mb_bpe *bpe = &tokenizer->bpe;
    if (!json_is_object(model->value))
        return mb_field_fail(model, MB_BAD_DATA, "not an object");
    MB_TRY(check_model(model));
    MB_TRY(load_vocab(&bpe->vocab, model));
    MB_TRY(load_merges(bpe, model));
    MB_TRY(load_unk(bpe, model));
    MB_TRY(mb_field_bool(model, "byte_fallback", false, &bpe->byte_fallback));
    MB_TRY(mb_field_bool(model, "fuse_unk", false, &bpe->fuse_unk));
    MB_TRY(mb_field_bool(model, "ignore_merges", false, &bpe->ignore_merges));
    mb_bpe_index_bytes(bpe);
    return MB_OK;
}
