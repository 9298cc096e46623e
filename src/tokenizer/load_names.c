/*
 * load_names.c - special tokens that the files beside tokenizer.json name and add, as transformers 5 reads
 * them.
 *
 * tokenizer_config.json has added_tokens_decoder: tokens with flags (their ids are ignored), and names
 * (bos_token, ..., extra_special_tokens).  Where it has no added_tokens_decoder, special_tokens_map.json says
 * more and wins, and added_tokens.json has more tokens.  Named tokens that tokenizer.json does not have are
 * added after the others.
 */
#include "base/error.h"
#include "load.h"

static const char *const usual[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};
enum { N_USUAL = sizeof usual / sizeof *usual };

/* ---------------------------------------------------------------- values of tokens */

/* "<s>", which is special, or an object with content and flags. */
static enum mb_status read_token(const struct mb_field *field, bool is_special, struct mb_added_spec *spec)
{
    MB_TRY(mb_field_token_name(field, &spec->content));
    spec->is_special = true;
    return json_is_object(field->value) ? mb_load_flags(field, is_special, spec) : MB_OK;
}

static bool ends_in_token(const char *key)
{
    size_t n = strlen(key);
    return n >= 6 && strcmp(key + n - 6, "_token") == 0;
}

static bool is_usual(const char *key)
{
    for (size_t i = 0; i < N_USUAL; i++)
        if (strcmp(key, usual[i]) == 0)
            return true;
    return false;
}

/* ---------------------------------------------------------------- names */

static enum mb_status put_name(struct mb_tokenizer *tokenizer, const struct mb_field *place, const char *key,
                               const char *content)
{
    char *copy = strdup(content);
    if (copy == NULL)
        return mb_fail_memory(place->err, "the names of special tokens");
    for (size_t i = 0; i < tokenizer->n_names; i++)
        if (strcmp(tokenizer->names[i].key, key) == 0) {
            free(tokenizer->names[i].content);
            tokenizer->names[i].content = copy;
            return MB_OK;
        }
    if (tokenizer->n_names == MB_NAMES_MAX) {
        free(copy);
        return mb_field_fail(place, MB_BAD_DATA, "more than %d names of special tokens", MB_NAMES_MAX);
    }
    void *grown = realloc(tokenizer->names, (tokenizer->n_names + 1) * sizeof *tokenizer->names);
    char *key_copy = strdup(key);
    if (grown != NULL)
        tokenizer->names = grown;
    if (grown == NULL || key_copy == NULL) {
        free(copy);
        free(key_copy);
        return mb_fail_memory(place->err, "the names of special tokens");
    }
    tokenizer->names[tokenizer->n_names++] = (struct mb_name){key_copy, copy};
    return MB_OK;
}

/* What the files say, in the order in which transformers looks at it. */
struct naming {
    struct mb_tokenizer *tokenizer;
    const struct mb_field *config; /* value NULL: there is no file */
    const struct mb_field *map;    /* special_tokens_map.json; value NULL: none, or it does not count */
    uint32_t n_known;              /* added tokens before named ones were added */
    bool adds;                     /* named tokens that are missing are added */
};

/* A named token: a variable of templates, and added where the tokenizer has no such added token. */
static enum mb_status take_named(const struct naming *n, const struct mb_field *field, const char *key,
                                 bool is_special)
{
    struct mb_added_spec spec = {0};
    if (field->value == NULL)
        return MB_OK;
    MB_TRY(read_token(field, is_special, &spec));
    if (key != NULL) {
        MB_TRY(put_name(n->tokenizer, field, key, spec.content));
        spec.is_special = true; /* its other flags stay */
    }
    int32_t id = mb_added_find(n->tokenizer, spec.content);
    bool is_known = id >= 0 && n->tokenizer->bpe.vocab.tokens[id].i_added < n->n_known;
    if (!n->adds || is_known || spec.content[0] == '\0')
        return MB_OK;
    return mb_added_apply(n->tokenizer, field, &spec);
}

/* A member of special_tokens_map.json if it has it, else of the configuration. */
static struct mb_field find_value(const struct naming *n, const char *key)
{
    bool in_map = n->map->value != NULL && json_object_get(n->map->value, key) != NULL;
    return mb_field_get(in_map ? n->map : n->config, key);
}

/* "image_token" and the like: keys that only some models have. */
static enum mb_status take_other_names(const struct naming *n, const struct mb_field *file)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)file->value, key, value)
    {
        bool is_token = json_is_string(value) || json_object_get(value, "content") != NULL;
        if (!ends_in_token(key) || is_usual(key) || !is_token)
            continue;
        struct mb_field field = mb_field_get(file, key);
        MB_TRY(take_named(n, &field, key, file == n->map));
    }
    return MB_OK;
}

/* {"image_token": "<image>"}: more names. */
static enum mb_status take_object(const struct naming *n, const struct mb_field *object)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object->value, key, value)
    {
        struct mb_field field = mb_field_get(object, key);
        if (field.value == NULL)
            return mb_field_fail(&field, MB_BAD_DATA, "not a token");
        MB_TRY(take_named(n, &field, key, true));
    }
    return MB_OK;
}

/* Tokens without names. An object is special if it says so, or if it is of special_tokens_map.json. */
static enum mb_status take_list(const struct naming *n, const struct mb_field *list, bool is_special)
{
    for (size_t i = 0; i < json_array_size(list->value); i++) {
        struct mb_field item = mb_field_at(list, i);
        bool is_typed = json_object_get(item.value, "__type") != NULL;
        MB_TRY(take_named(n, &item, NULL, is_special || !is_typed));
    }
    return MB_OK;
}

static bool is_empty(const struct mb_field *field)
{
    return field->value == NULL || (json_is_array(field->value) && json_array_size(field->value) == 0) ||
           (json_is_object(field->value) && json_object_size(field->value) == 0);
}

static enum mb_status take_more(const struct naming *n, const struct mb_field *more, bool wants_objects,
                                bool is_special)
{
    if (json_is_object(more->value))
        return wants_objects ? take_object(n, more) : MB_OK;
    if (more->value != NULL && !json_is_array(more->value))
        return mb_field_fail(more, MB_BAD_DATA, "neither a list nor an object");
    return wants_objects ? MB_OK : take_list(n, more, is_special);
}

/* extra_special_tokens, else what older files call additional_special_tokens; objects before lists. */
static enum mb_status take_extra(const struct naming *n, bool wants_objects)
{
    static const char old_key[] = "additional_special_tokens", new_key[] = "extra_special_tokens";
    struct mb_field extra = mb_field_get(n->config, new_key), old = mb_field_get(n->config, old_key);
    bool has_extra = json_object_get(n->config->value, new_key) != NULL || old.value != NULL;
    MB_TRY(take_more(n, is_empty(&extra) ? &old : &extra, wants_objects, false));
    if (n->map->value == NULL)
        return MB_OK;
    struct mb_field in_map = mb_field_get(n->map, new_key);
    MB_TRY(take_more(n, &in_map, wants_objects, true));
    in_map = mb_field_get(n->map, old_key);
    return has_extra ? MB_OK : take_more(n, &in_map, wants_objects, true);
}

static enum mb_status take_names(const struct naming *n)
{
    for (size_t i = 0; i < N_USUAL; i++) {
        struct mb_field field = find_value(n, usual[i]);
        MB_TRY(take_named(n, &field, usual[i], field.path == n->map->path));
    }
    MB_TRY(take_other_names(n, n->map));
    MB_TRY(take_other_names(n, n->config));
    MB_TRY(take_extra(n, true));
    return take_extra(n, false);
}

/* Whether one of the seven names, or a list of more, has the token. */
static bool is_in_list(const struct mb_field *list, const char *content)
{
    for (size_t i = 0; i < json_array_size(list->value); i++) {
        const json_t *item = json_array_get(list->value, i);
        const json_t *text = json_is_object(item) ? json_object_get(item, "content") : item;
        if (json_is_string(text) && strcmp(json_string_value(text), content) == 0)
            return true;
    }
    return false;
}

static bool is_named(const struct naming *n, const char *content)
{
    for (size_t i = 0; i < N_USUAL; i++) {
        struct mb_field field = find_value(n, usual[i]);
        const json_t *text =
            json_is_object(field.value) ? json_object_get(field.value, "content") : field.value;
        if (json_is_string(text) && strcmp(json_string_value(text), content) == 0)
            return true;
    }
    return false;
}

static bool is_extra(const struct naming *n, const char *content)
{
    static const char *const keys[] = {"extra_special_tokens", "additional_special_tokens"};
    for (size_t i = 0; i < 2; i++) {
        struct mb_field list = find_value(n, keys[i]);
        if (is_in_list(&list, content))
            return true;
    }
    return false;
}

/* ---------------------------------------------------------------- tokens with ids */

/* A token and the id that its file gives it, by which they are added. */
struct numbered {
    const char *key;
    json_t *value;
    long long id;
};

static int compare_ids(const void *a, const void *b)
{
    long long x = ((const struct numbered *)a)->id, y = ((const struct numbered *)b)->id;
    return (x > y) - (x < y);
}

typedef enum mb_status (*take_fn)(const struct naming *n, const struct mb_field *object,
                                  const struct numbered *token);

/* Calls 'take' for the members of an object, by ascending ids. */
static enum mb_status take_sorted(const struct naming *n, const struct mb_field *object, bool by_key,
                                  take_fn take)
{
    size_t n_tokens = json_object_size(object->value), i = 0;
    const char *key;
    json_t *value;
    if (!json_is_object(object->value))
        return mb_field_fail(object, MB_BAD_DATA, "not an object");
    if (n_tokens > MB_ADDED_MAX)
        return mb_field_fail(object, MB_BAD_DATA, "%zu tokens, at most %d are allowed", n_tokens,
                             MB_ADDED_MAX);
    struct numbered *tokens = calloc(n_tokens + 1, sizeof *tokens);
    if (tokens == NULL)
        return mb_fail_memory(object->err, "the added tokens");
    enum mb_status status = MB_OK;
    json_object_foreach((json_t *)object->value, key, value)
    {
        char *end = NULL;
        long long id = by_key ? strtoll(key, &end, 10) : json_integer_value(value);
        bool is_id = by_key ? key[0] != '\0' && *end == '\0' : json_is_integer(value);
        tokens[i++] = (struct numbered){key, value, id};
        if (!is_id && status == MB_OK)
            status = mb_field_fail(object, MB_BAD_DATA, "'%.60s': its id is not an integer", key);
    }
    qsort(tokens, n_tokens, sizeof *tokens, compare_ids);
    for (i = 0; status == MB_OK && i < n_tokens; i++)
        status = take(n, object, &tokens[i]);
    free(tokens);
    return status;
}

/* A member of added_tokens_decoder. */
static enum mb_status take_described(const struct naming *n, const struct mb_field *object,
                                     const struct numbered *token)
{
    struct mb_added_spec spec = {0};
    struct mb_field field = mb_field_get(object, token->key);
    if (!json_is_object(field.value))
        return mb_field_fail(&field, MB_BAD_DATA, "not an object");
    MB_TRY(mb_field_string(&field, "content", "", &spec.content));
    MB_TRY(mb_load_flags(&field, false, &spec));
    if (spec.content[0] == '\0' || mb_added_has(n->tokenizer, &spec))
        return MB_OK;
    for (size_t i = 0; i < n->tokenizer->n_names; i++)
        spec.is_special |= strcmp(n->tokenizer->names[i].content, spec.content) == 0;
    return mb_added_apply(n->tokenizer, &field, &spec);
}

/* A member of added_tokens.json; tokenizer.json's token of that id counts. */
static enum mb_status take_bare(const struct naming *n, const struct mb_field *object,
                                const struct numbered *token)
{
    const struct mb_vocab *vocab = &n->tokenizer->bpe.vocab;
    struct mb_field field = mb_field_get(object, token->key);
    bool is_special = is_named(n, token->key) || is_extra(n, token->key);
    struct mb_added_spec spec = {.content = token->key, .is_special = is_special, .normalized = !is_special};
    bool is_known =
        token->id >= 0 && token->id < (long long)vocab->n_ids && vocab->tokens[token->id].is_added;
    if (is_known || token->key[0] == '\0' || mb_added_has(n->tokenizer, &spec))
        return MB_OK;
    return mb_added_apply(n->tokenizer, &field, &spec);
}

/* ---------------------------------------------------------------- the files together */

enum mb_status mb_load_added_tokens(struct mb_tokenizer *tokenizer, const struct mb_field *config,
                                    const struct mb_field *map, const struct mb_field *added)
{
    struct mb_field decoder = mb_field_get(config, "added_tokens_decoder"), none = {.err = config->err};
    bool is_described = json_object_get(config->value, "added_tokens_decoder") != NULL;
    struct naming n = {.tokenizer = tokenizer, .config = config, .map = is_described ? &none : map};
    MB_TRY(take_names(&n)); /* a token of added_tokens_decoder that is named is special */
    if (is_described && decoder.value != NULL)
        MB_TRY(take_sorted(&n, &decoder, true, take_described));
    if (!is_described && added->value != NULL)
        MB_TRY(take_sorted(&n, added, false, take_bare));
    n.n_known = (uint32_t)tokenizer->added.n;
    n.adds = true;
    return take_names(&n);
}

enum mb_status mb_load_names(struct mb_tokenizer *tokenizer, const struct mb_field *config)
{
    const struct mb_field none = {.err = config->err};
    const struct naming n = {.tokenizer = tokenizer, .config = config, .map = &none};
    return take_names(&n);
}
