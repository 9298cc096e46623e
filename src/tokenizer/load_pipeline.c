/*
 * load_pipeline.c - normalizer, pre-tokenizer, post-processor and decoder of tokenizer.json.
 *
 * Each is an object with a type; what is not known is refused by name.
 */
#include "base/error.h"
#include "base/utf8.h"
#include "load.h"

enum mb_status mb_load_unsupported(const struct mb_json *json, const char *what)
{
    char shown[64];
    return mb_json_fail(json, MB_UNSUPPORTED, "'%s' is not supported", mb_json_shown(shown, what));
}

enum mb_status mb_load_sequence(struct mb_tokenizer *tokenizer, const struct mb_json *sequence,
                                const char *key, mb_load_fn each, int depth)
{
    struct mb_json items = mb_json_get(sequence, key);
    if (!json_is_array(items.value))
        return mb_json_fail(&items, MB_BAD_DATA, "not an array");
    if (depth >= MB_SEQUENCE_DEPTH_MAX)
        return mb_json_fail(sequence, MB_UNSUPPORTED, "Sequences nested more than %d deep",
                            MB_SEQUENCE_DEPTH_MAX);
    for (size_t i = 0; i < json_array_size(items.value); i++) {
        struct mb_json item = mb_json_at(&items, i);
        enum mb_status status = each(tokenizer, &item, depth + 1);
        if (status != MB_OK)
            return status;
    }
    return MB_OK;
}

static enum mb_status copy_string(const struct mb_json *place, const char *text, char **copy)
{
    *copy = strdup(text);
    return *copy != NULL ? MB_OK : mb_fail_memory(place->err, "the steps of the tokenizer");
}

enum mb_status mb_load_pattern_string(const struct mb_json *object, const char *key, char **text)
{
    struct mb_json pattern = mb_json_get(object, key);
    const char *string;
    if (!json_is_object(pattern.value))
        return mb_json_fail(&pattern, MB_BAD_DATA, "not an object");
    enum mb_status status = mb_json_string(&pattern, "String", NULL, &string);
    if (status != MB_OK)
        return status;
    if (string == NULL)
        return mb_load_unsupported(&pattern, "Regex");
    if (string[0] == 0)
        return mb_json_fail(&pattern, MB_BAD_DATA, "an empty String");
    return copy_string(&pattern, string, text);
}

/*
 * Parts that make a text longer multiply: four that put a thousand characters in a character's place make
 * 10^12 of one.  Known tokenizers stay below 12 (a space in front, spaces become a character of three bytes).
 */
static enum mb_status check_growth(const struct mb_json *json, double growth)
{
    enum { GROWTH_MAX = 256 };
    return growth <= GROWTH_MAX
               ? MB_OK
               : mb_json_fail(json, MB_UNSUPPORTED, "makes a text more than %d times as long", GROWTH_MAX);
}

/* How many times as long a text can get when 'with' takes the place of 'what'. */
static double growth_of(const char *what, const char *with)
{
    double growth = (double)strlen(with) / (double)strlen(what);
    return growth > 1 ? growth : 1;
}

/* ---------------------------------------------------------------- normalizer */

static struct mb_normalizer *add_normalizer(struct mb_tokenizer *tokenizer, enum mb_normalizer_kind kind)
{
    struct mb_normalizers *all = &tokenizer->normalizers;
    void *grown = realloc(all->items, (all->n + 1) * sizeof *all->items);
    if (grown == NULL)
        return NULL;
    all->items = grown;
    all->items[all->n] = (struct mb_normalizer){.kind = kind};
    return &all->items[all->n++];
}

static enum mb_status check_normalizers(const struct mb_normalizers *all, const struct mb_json *json)
{
    double growth = 1;
    for (size_t i = 0; i < all->n; i++) {
        if (all->items[i].kind == MB_NORMALIZE_PREPEND)
            growth *= 1 + (double)strlen(all->items[i].what);
        else if (all->items[i].kind == MB_NORMALIZE_REPLACE)
            growth *= growth_of(all->items[i].what, all->items[i].with);
    }
    return check_growth(json, growth);
}

enum mb_status mb_load_normalizer(struct mb_tokenizer *tokenizer, const struct mb_json *json, int depth)
{
    enum { NORMALIZERS_MAX = 32 };
    const char *type, *text;
    if (json->value == NULL)
        return MB_OK;
    enum mb_status status = mb_json_type(json, &type);
    if (status != MB_OK)
        return status;
    if (strcmp(type, "Sequence") == 0)
        return mb_load_sequence(tokenizer, json, "normalizers", mb_load_normalizer, depth);
    enum mb_normalizer_kind kind;
    if (strcmp(type, "NFC") == 0)
        kind = MB_NORMALIZE_NFC;
    else if (strcmp(type, "Prepend") == 0)
        kind = MB_NORMALIZE_PREPEND;
    else if (strcmp(type, "Replace") == 0)
        kind = MB_NORMALIZE_REPLACE;
    else
        return mb_load_unsupported(json, type);
    if (tokenizer->normalizers.n >= NORMALIZERS_MAX)
        return mb_json_fail(json, MB_UNSUPPORTED, "more than %d normalizers", NORMALIZERS_MAX);
    struct mb_normalizer *normalizer = add_normalizer(tokenizer, kind);
    if (normalizer == NULL)
        return mb_fail_memory(json->err, "the steps of the tokenizer");
    if (kind == MB_NORMALIZE_NFC)
        return MB_OK;
    if (kind == MB_NORMALIZE_REPLACE &&
        (status = mb_load_pattern_string(json, "pattern", &normalizer->what)) != MB_OK)
        return status;
    status = mb_json_string(json, kind == MB_NORMALIZE_PREPEND ? "prepend" : "content", "", &text);
    if (status == MB_OK)
        status =
            copy_string(json, text, kind == MB_NORMALIZE_PREPEND ? &normalizer->what : &normalizer->with);
    return status == MB_OK ? check_normalizers(&tokenizer->normalizers, json) : status;
}

/* ---------------------------------------------------------------- pre-tokenizer */

/* What GPT-2 cuts by; ByteLevel uses it when use_regex is true. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static enum mb_status add_stage(struct mb_tokenizer *tokenizer, const struct mb_json *json,
                                enum mb_stage_kind kind, struct mb_stage **stage)
{
    struct mb_stages *stages = &tokenizer->stages;
    if (tokenizer->bpe.is_byte_level)
        return mb_json_fail(json, MB_UNSUPPORTED, "a pre-tokenizer behind ByteLevel");
    if (stages->n == MB_STAGES_MAX)
        return mb_json_fail(json, MB_UNSUPPORTED, "more than %d pre-tokenizers", MB_STAGES_MAX);
    *stage = &stages->items[stages->n++];
    **stage = (struct mb_stage){.kind = kind};
    return MB_OK;
}

/* Compiles what was translated and prefixes errors with the place. */
static enum mb_status compile(const struct mb_json *json, const struct mb_bytes *translated,
                              struct mb_stage *stage)
{
    struct mb_error inner;
    enum mb_status status = mb_pattern_compile(translated->p, &stage->pattern, &inner);
    return status == MB_OK ? MB_OK : mb_json_fail(json, status, "%s", inner.msg);
}

static enum mb_status add_split(struct mb_tokenizer *tokenizer, const struct mb_json *json,
                                const char *pattern, bool is_literal, enum mb_behaviour behaviour,
                                bool invert)
{
    struct mb_stage *stage = NULL;
    struct mb_bytes translated = {0};
    struct mb_error inner;
    enum mb_status status = add_stage(tokenizer, json, MB_STAGE_SPLIT, &stage);
    if (status != MB_OK)
        return status;
    stage->behaviour = behaviour;
    stage->invert = invert;
    status = mb_pattern_translate(pattern, strlen(pattern), is_literal, &translated, &inner);
    status =
        status == MB_OK ? compile(json, &translated, stage) : mb_json_fail(json, status, "%s", inner.msg);
    free(translated.p);
    return status;
}

static enum mb_status load_digits(struct mb_tokenizer *tokenizer, const struct mb_json *json)
{
    bool is_individual;
    struct mb_stage *stage = NULL;
    struct mb_bytes translated = {0};
    enum mb_status status = mb_json_bool(json, "individual_digits", false, &is_individual);
    if (status == MB_OK)
        status = add_stage(tokenizer, json, MB_STAGE_SPLIT, &stage);
    if (status != MB_OK)
        return status;
    stage->behaviour = is_individual ? MB_SPLIT_ISOLATED : MB_SPLIT_CONTIGUOUS;
    status = mb_pattern_digits(&translated) ? compile(json, &translated, stage)
                                            : mb_fail_memory(json->err, "the steps of the tokenizer");
    free(translated.p);
    return status;
}

static enum mb_status load_split(struct mb_tokenizer *tokenizer, const struct mb_json *json)
{
    static const char *const names[] = {"Removed", "Isolated", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    struct mb_json pattern = mb_json_get(json, "pattern");
    const char *regex = NULL, *string = NULL, *behaviour = NULL;
    bool invert = false;
    if (!json_is_object(pattern.value))
        return mb_json_fail(&pattern, MB_BAD_DATA, "not an object");
    enum mb_status status = mb_json_string(&pattern, "Regex", NULL, &regex);
    if (status == MB_OK)
        status = mb_json_string(&pattern, "String", NULL, &string);
    if (status == MB_OK)
        status = mb_json_string(json, "behavior", "", &behaviour);
    if (status == MB_OK)
        status = mb_json_bool(json, "invert", false, &invert);
    if (status != MB_OK)
        return status;
    if ((regex == NULL) == (string == NULL) || (string != NULL && string[0] == 0))
        return mb_json_fail(&pattern, MB_BAD_DATA, "neither a Regex nor a String");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(behaviour, names[i]) == 0)
            return add_split(tokenizer, json, regex != NULL ? regex : string, regex == NULL,
                             (enum mb_behaviour)i, invert);
    pattern = mb_json_get(json, "behavior");
    return mb_load_unsupported(&pattern, behaviour);
}

static enum mb_status load_byte_level(struct mb_tokenizer *tokenizer, const struct mb_json *json)
{
    bool add_prefix_space = true, use_regex = true;
    struct mb_stage *stage = NULL;
    enum mb_status status = mb_json_bool(json, "add_prefix_space", true, &add_prefix_space);
    if (status == MB_OK)
        status = mb_json_bool(json, "use_regex", true, &use_regex);
    if (status == MB_OK && add_prefix_space)
        status = add_stage(tokenizer, json, MB_STAGE_PREFIX, &stage);
    if (status == MB_OK && use_regex)
        status = add_split(tokenizer, json, gpt2_pattern, false, MB_SPLIT_ISOLATED, false);
    if (status == MB_OK && tokenizer->bpe.is_byte_level)
        status = mb_json_fail(json, MB_UNSUPPORTED, "a second ByteLevel");
    tokenizer->bpe.is_byte_level = true;
    return status;
}

static enum mb_status load_metaspace(struct mb_tokenizer *tokenizer, const struct mb_json *json)
{
    const char *replacement = NULL, *scheme = NULL;
    bool split = true, add_prefix_space = true;
    struct mb_stage *stage = NULL;
    enum mb_status status = mb_json_string(json, "replacement", "\xe2\x96\x81", &replacement);
    if (status == MB_OK)
        status = mb_json_bool(json, "add_prefix_space", true, &add_prefix_space); /* of old files */
    if (status == MB_OK)
        status = mb_json_string(json, "prepend_scheme", add_prefix_space ? "always" : "never", &scheme);
    if (status == MB_OK)
        status = mb_json_bool(json, "split", true, &split);
    if (status == MB_OK)
        status = add_stage(tokenizer, json, MB_STAGE_METASPACE, &stage);
    if (status != MB_OK)
        return status;
    static const char *const names[] = {"always", "first", "never"};
    size_t i = 0;
    while (i < 3 && strcmp(scheme, names[i]) != 0)
        i++;
    if (i == 3)
        return mb_load_unsupported(json, scheme);
    stage->scheme = (enum mb_prefix_scheme)i;
    if (replacement[0] == 0 || strlen(replacement) != mb_utf8_nbytes(replacement[0]))
        return mb_json_fail(json, MB_BAD_DATA, "its replacement is not one character");
    memcpy(stage->replacement, replacement, strlen(replacement) + 1);
    if (!split)
        return MB_OK;
    return add_split(tokenizer, json, replacement, true, MB_SPLIT_WITH_NEXT, false);
}

enum mb_status mb_load_pre_tokenizer(struct mb_tokenizer *tokenizer, const struct mb_json *json, int depth)
{
    const char *type;
    if (json->value == NULL)
        return MB_OK;
    enum mb_status status = mb_json_type(json, &type);
    if (status != MB_OK)
        return status;
    if (strcmp(type, "Sequence") == 0)
        return mb_load_sequence(tokenizer, json, "pretokenizers", mb_load_pre_tokenizer, depth);
    if (strcmp(type, "Split") == 0)
        return load_split(tokenizer, json);
    if (strcmp(type, "Digits") == 0)
        return load_digits(tokenizer, json);
    if (strcmp(type, "ByteLevel") == 0)
        return load_byte_level(tokenizer, json);
    if (strcmp(type, "Metaspace") == 0)
        return load_metaspace(tokenizer, json);
    return mb_load_unsupported(json, type);
}

/* ---------------------------------------------------------------- post-processor */

/* The ids that a template's special token stands for. */
static enum mb_status template_ids(struct mb_tokenizer *tokenizer, const struct mb_json *processor,
                                   const char *name, struct mb_ids *to)
{
    struct mb_json all = mb_json_get(processor, "special_tokens");
    struct mb_json token = mb_json_get(&all, name);
    struct mb_json ids = mb_json_get(&token, "ids");
    const struct mb_vocab *vocab = &tokenizer->bpe.vocab;
    if (!json_is_array(ids.value))
        return mb_json_fail(&token, MB_BAD_DATA, "has no ids");
    for (size_t i = 0; i < json_array_size(ids.value); i++) {
        const json_t *value = json_array_get(ids.value, i);
        json_int_t number = json_integer_value(value);
        if (!json_is_integer(value) || number < 0 || (size_t)number >= vocab->n_ids ||
            !vocab->tokens[number].exists)
            return mb_json_fail(&ids, MB_BAD_DATA, "an id that no token has");
        int32_t id = (int32_t)number;
        if (!mb_ids_put(to, &id, 1))
            return mb_fail_memory(processor->err, "the steps of the tokenizer");
    }
    return MB_OK;
}

static enum mb_status load_template(struct mb_tokenizer *tokenizer, const struct mb_json *json)
{
    struct mb_json single = mb_json_get(json, "single");
    struct mb_ids before = {0}, after = {0};
    bool has_text = false;
    enum mb_status status = MB_OK;
    if (!json_is_array(single.value))
        return mb_load_unsupported(&single, "template");
    for (size_t i = 0; status == MB_OK && i < json_array_size(single.value); i++) {
        struct mb_json piece = mb_json_at(&single, i);
        struct mb_json special = mb_json_get(&piece, "SpecialToken"),
                       sequence = mb_json_get(&piece, "Sequence");
        const char *name = NULL;
        status = mb_json_string(special.value != NULL ? &special : &sequence, "id", NULL, &name);
        if (status == MB_OK && name == NULL)
            status = mb_json_fail(&piece, MB_BAD_DATA, "neither a SpecialToken nor a Sequence");
        else if (status == MB_OK && special.value != NULL)
            status = template_ids(tokenizer, json, name, has_text ? &after : &before);
        else if (status == MB_OK && (has_text || strcmp(name, "A") != 0))
            status = mb_load_unsupported(&piece, "a template with the text twice");
        else
            has_text = true;
    }
    if (status == MB_OK && !has_text)
        status = mb_load_unsupported(&single, "a template without the text");
    /* What an earlier processor put around the text stays inside. */
    if (status == MB_OK && !(mb_ids_put(&before, tokenizer->before.p, tokenizer->before.n) &&
                             mb_ids_put(&tokenizer->after, after.p, after.n)))
        status = mb_fail_memory(json->err, "the steps of the tokenizer");
    free(after.p);
    if (status != MB_OK) {
        free(before.p);
        return status;
    }
    free(tokenizer->before.p);
    tokenizer->before = before;
    return MB_OK;
}

enum mb_status mb_load_post_processor(struct mb_tokenizer *tokenizer, const struct mb_json *json, int depth)
{
    const char *type;
    if (json->value == NULL)
        return MB_OK;
    enum mb_status status = mb_json_type(json, &type);
    if (status != MB_OK)
        return status;
    if (strcmp(type, "Sequence") == 0)
        return mb_load_sequence(tokenizer, json, "processors", mb_load_post_processor, depth);
    if (strcmp(type, "ByteLevel") == 0) /* changes offsets only */
        return MB_OK;
    if (strcmp(type, "TemplateProcessing") == 0)
        return load_template(tokenizer, json);
    return mb_load_unsupported(json, type);
}

/* ---------------------------------------------------------------- decoder */

static enum mb_status add_step(struct mb_tokenizer *tokenizer, const struct mb_json *json,
                               enum mb_decode_kind kind, struct mb_decode_step **step)
{
    if (tokenizer->n_decode_steps == MB_DECODE_STEPS_MAX)
        return mb_json_fail(json, MB_UNSUPPORTED, "more than %d decoders", MB_DECODE_STEPS_MAX);
    /* Steps work on one token; what follows ByteLevel, ByteFallback or Strip would see joined text. */
    enum mb_decode_kind last = tokenizer->n_decode_steps == 0
                                   ? MB_DECODE_REPLACE
                                   : tokenizer->decode_steps[tokenizer->n_decode_steps - 1].kind;
    bool is_joined =
        last == MB_DECODE_BYTE_LEVEL || last == MB_DECODE_STRIP || last == MB_DECODE_BYTE_FALLBACK;
    if (is_joined && kind != MB_DECODE_STRIP)
        return mb_json_fail(json, MB_UNSUPPORTED, "a decoder in this place");
    *step = &tokenizer->decode_steps[tokenizer->n_decode_steps++];
    **step = (struct mb_decode_step){.kind = kind};
    return MB_OK;
}

static enum mb_status load_strip(struct mb_tokenizer *tokenizer, const struct mb_json *json)
{
    struct mb_decode_step *step = NULL;
    const char *content;
    enum mb_status status = add_step(tokenizer, json, MB_DECODE_STRIP, &step);
    if (status == MB_OK)
        status = mb_json_string(json, "content", "", &content);
    if (status == MB_OK)
        status = mb_json_size(json, "start", 1 << 20, &step->n_start);
    if (status == MB_OK)
        status = mb_json_size(json, "stop", 1 << 20, &step->n_stop);
    if (status != MB_OK)
        return status;
    if (content[0] == 0 || strlen(content) != mb_utf8_nbytes(content[0]))
        return mb_json_fail(json, MB_BAD_DATA, "its content is not one character");
    return copy_string(json, content, &step->what);
}

static enum mb_status load_replace_decoder(struct mb_tokenizer *tokenizer, const struct mb_json *json)
{
    struct mb_decode_step *step = NULL;
    const char *with;
    enum mb_status status = add_step(tokenizer, json, MB_DECODE_REPLACE, &step);
    if (status == MB_OK)
        status = mb_load_pattern_string(json, "pattern", &step->what);
    if (status == MB_OK)
        status = mb_json_string(json, "content", "", &with);
    if (status == MB_OK)
        status = copy_string(json, with, &step->with);
    double growth = 1;
    for (size_t i = 0; i < tokenizer->n_decode_steps && status == MB_OK; i++)
        if (tokenizer->decode_steps[i].kind == MB_DECODE_REPLACE)
            growth *= growth_of(tokenizer->decode_steps[i].what, tokenizer->decode_steps[i].with);
    return status == MB_OK ? check_growth(json, growth) : status;
}

static enum mb_status load_metaspace_decoder(struct mb_tokenizer *tokenizer, const struct mb_json *json)
{
    struct mb_decode_step *step = NULL;
    const char *replacement = "", *scheme;
    bool add_prefix_space = true;
    enum mb_status status = mb_json_bool(json, "add_prefix_space", true, &add_prefix_space);
    if (status == MB_OK)
        status = mb_json_string(json, "prepend_scheme", add_prefix_space ? "always" : "never", &scheme);
    if (status == MB_OK)
        status = mb_json_string(json, "replacement", "\xe2\x96\x81", &replacement);
    if (status == MB_OK)
        status = add_step(tokenizer, json, MB_DECODE_METASPACE, &step);
    if (status != MB_OK)
        return status;
    if (replacement[0] == 0)
        return mb_json_fail(json, MB_BAD_DATA, "its replacement is empty");
    step->drop_first = strcmp(scheme, "never") != 0;
    return copy_string(json, replacement, &step->what);
}

enum mb_status mb_load_decoder(struct mb_tokenizer *tokenizer, const struct mb_json *json, int depth)
{
    const char *type;
    struct mb_decode_step *step = NULL;
    if (json->value == NULL)
        return mb_load_unsupported(json, "null");
    enum mb_status status = mb_json_type(json, &type);
    if (status != MB_OK)
        return status;
    if (strcmp(type, "Sequence") == 0)
        return mb_load_sequence(tokenizer, json, "decoders", mb_load_decoder, depth);
    if (strcmp(type, "ByteLevel") == 0)
        return add_step(tokenizer, json, MB_DECODE_BYTE_LEVEL, &step);
    if (strcmp(type, "ByteFallback") == 0)
        return add_step(tokenizer, json, MB_DECODE_BYTE_FALLBACK, &step);
    if (strcmp(type, "Fuse") == 0) /* joins the tokens, as they are joined here anyway */
        return MB_OK;
    if (strcmp(type, "Strip") == 0)
        return load_strip(tokenizer, json);
    if (strcmp(type, "Replace") == 0)
        return load_replace_decoder(tokenizer, json);
    if (strcmp(type, "Metaspace") == 0)
        return load_metaspace_decoder(tokenizer, json);
    return mb_load_unsupported(json, type);
}
