/*
 * load_pipeline.c - normalizer, pre-tokenizer, post-processor and decoder of tokenizer.json.
 *
 * Each is an object with a type; we refuse an unknown type by its name.
 */
#include "base/error.h"
#include "base/utf8.h"
#include "load.h"

enum mb_status mb_load_unsupported(const struct mb_field *field, const char *what)
{
    char shown[64];
    return mb_field_fail(field, MB_UNSUPPORTED, "'%s' is not supported", mb_field_shown(shown, what));
}

enum mb_status mb_load_sequence(struct mb_tokenizer *tokenizer, const struct mb_field *sequence,
                                const char *key, mb_load_fn each, int depth)
{
    struct mb_field items = mb_field_get(sequence, key);
    if (!json_is_array(items.value))
        return mb_field_fail(&items, MB_BAD_DATA, "not an array");
    if (depth >= MB_SEQUENCE_DEPTH_MAX)
        return mb_field_fail(sequence, MB_UNSUPPORTED, "Sequences nested more than %d deep",
                             MB_SEQUENCE_DEPTH_MAX);
    for (size_t i = 0; i < json_array_size(items.value); i++) {
        struct mb_field item = mb_field_at(&items, i);
        MB_TRY(each(tokenizer, &item, depth + 1));
    }
    return MB_OK;
}

static enum mb_status copy_string(const struct mb_field *place, const char *text, char **copy)
{
    *copy = strdup(text);
    return *copy != NULL ? MB_OK : mb_fail_memory(place->err, "the steps of the tokenizer");
}

enum mb_status mb_load_pattern_string(const struct mb_field *object, const char *key, char **text)
{
    struct mb_field pattern = mb_field_get(object, key);
    const char *string;
    if (!json_is_object(pattern.value))
        return mb_field_fail(&pattern, MB_BAD_DATA, "not an object");
    MB_TRY(mb_field_string(&pattern, "String", NULL, &string));
    if (string == NULL)
        return mb_load_unsupported(&pattern, "Regex");
    if (string[0] == 0)
        return mb_field_fail(&pattern, MB_BAD_DATA, "an empty String");
    return copy_string(&pattern, string, text);
}

/*
 * Parts that make a text longer multiply: four that put a thousand characters in a character's place make
 * 10^12 of one.  Known tokenizers stay below 12 (a space before the text, spaces become a character of three
 * bytes).
 */
static enum mb_status check_growth(const struct mb_field *field, double growth)
{
    enum { GROWTH_MAX = 256 };
    return growth <= GROWTH_MAX
               ? MB_OK
               : mb_field_fail(field, MB_UNSUPPORTED, "makes a text more than %d times as long", GROWTH_MAX);
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

static enum mb_status check_normalizers(const struct mb_normalizers *all, const struct mb_field *field)
{
    double growth = 1;
    for (size_t i = 0; i < all->n; i++) {
        if (all->items[i].kind == MB_NORMALIZE_PREPEND)
            growth *= 1 + (double)strlen(all->items[i].what);
        else if (all->items[i].kind == MB_NORMALIZE_REPLACE)
            growth *= growth_of(all->items[i].what, all->items[i].with);
    }
    return check_growth(field, growth);
}

enum mb_status mb_load_normalizer(struct mb_tokenizer *tokenizer, const struct mb_field *field, int depth)
{
    enum { NORMALIZERS_MAX = 32 };
    const char *type, *text;
    if (field->value == NULL)
        return MB_OK;
    MB_TRY(mb_field_type(field, &type));
    if (strcmp(type, "Sequence") == 0)
        return mb_load_sequence(tokenizer, field, "normalizers", mb_load_normalizer, depth);
    enum mb_normalizer_kind kind;
    if (strcmp(type, "NFC") == 0)
        kind = MB_NORMALIZE_NFC;
    else if (strcmp(type, "Prepend") == 0)
        kind = MB_NORMALIZE_PREPEND;
    else if (strcmp(type, "Replace") == 0)
        kind = MB_NORMALIZE_REPLACE;
    else
        return mb_load_unsupported(field, type);
    if (tokenizer->normalizers.n >= NORMALIZERS_MAX)
        return mb_field_fail(field, MB_UNSUPPORTED, "more than %d normalizers", NORMALIZERS_MAX);
    struct mb_normalizer *normalizer = add_normalizer(tokenizer, kind);
    if (normalizer == NULL)
        return mb_fail_memory(field->err, "the steps of the tokenizer");
    if (kind == MB_NORMALIZE_NFC)
        return MB_OK;
    bool is_replace = kind == MB_NORMALIZE_REPLACE;
    if (is_replace)
        MB_TRY(mb_load_pattern_string(field, "pattern", &normalizer->what));
    MB_TRY(mb_field_string(field, is_replace ? "content" : "prepend", "", &text));
    MB_TRY(copy_string(field, text, is_replace ? &normalizer->with : &normalizer->what));
    return check_normalizers(&tokenizer->normalizers, field);
}

/* ---------------------------------------------------------------- pre-tokenizer */

/* What GPT-2 cuts by; ByteLevel uses it when use_regex is true. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static enum mb_status add_pretoken_step(struct mb_tokenizer *tokenizer, const struct mb_field *field,
                                        enum mb_pretoken_kind kind, struct mb_pretoken_step **step)
{
    struct mb_pretoken_steps *steps = &tokenizer->pretoken_steps;
    if (tokenizer->bpe.is_byte_level)
        return mb_field_fail(field, MB_UNSUPPORTED, "a pre-tokenizer after ByteLevel is not supported");
    if (steps->n == MB_PRETOKEN_STEPS_MAX)
        return mb_field_fail(field, MB_UNSUPPORTED, "more than %d pre-tokenizers", MB_PRETOKEN_STEPS_MAX);
    *step = &steps->items[steps->n++];
    **step = (struct mb_pretoken_step){.kind = kind};
    return MB_OK;
}

/* Compiles what was translated. */
static enum mb_status compile(const struct mb_field *field, const struct mb_bytes *translated,
                              struct mb_pretoken_step *step)
{
    struct mb_error inner;
    enum mb_status status = mb_pattern_compile(translated->p, &step->pattern, &inner);
    return status == MB_OK ? MB_OK : mb_field_fail(field, status, "%s", inner.msg);
}

static enum mb_status translate(const struct mb_field *field, const char *pattern, bool is_literal,
                                struct mb_bytes *translated)
{
    struct mb_error inner;
    enum mb_status status = mb_pattern_translate(pattern, strlen(pattern), is_literal, translated, &inner);
    return status == MB_OK ? MB_OK : mb_field_fail(field, status, "%s", inner.msg);
}

static enum mb_status add_split(struct mb_tokenizer *tokenizer, const struct mb_field *field,
                                const char *pattern, bool is_literal, enum mb_behaviour behaviour,
                                bool invert)
{
    struct mb_pretoken_step *step = NULL;
    struct mb_bytes translated = {0};
    MB_TRY(add_pretoken_step(tokenizer, field, MB_PRETOKEN_SPLIT, &step));
    step->behaviour = behaviour;
    step->invert = invert;
    enum mb_status status = translate(field, pattern, is_literal, &translated);
    if (status == MB_OK)
        status = compile(field, &translated, step);
    free(translated.p);
    return status;
}

static enum mb_status load_digits(struct mb_tokenizer *tokenizer, const struct mb_field *field)
{
    bool is_individual;
    struct mb_pretoken_step *step = NULL;
    struct mb_bytes translated = {0};
    MB_TRY(mb_field_bool(field, "individual_digits", false, &is_individual));
    MB_TRY(add_pretoken_step(tokenizer, field, MB_PRETOKEN_SPLIT, &step));
    step->behaviour = is_individual ? MB_SPLIT_ISOLATED : MB_SPLIT_CONTIGUOUS;
    enum mb_status status = mb_pattern_digits(&translated)
                                ? compile(field, &translated, step)
                                : mb_fail_memory(field->err, "the steps of the tokenizer");
    free(translated.p);
    return status;
}

static enum mb_status load_split(struct mb_tokenizer *tokenizer, const struct mb_field *field)
{
    static const char *const names[] = {"Removed", "Isolated", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    struct mb_field pattern = mb_field_get(field, "pattern");
    const char *regex = NULL, *string = NULL, *behaviour = NULL;
    bool invert = false;
    if (!json_is_object(pattern.value))
        return mb_field_fail(&pattern, MB_BAD_DATA, "not an object");
    MB_TRY(mb_field_string(&pattern, "Regex", NULL, &regex));
    MB_TRY(mb_field_string(&pattern, "String", NULL, &string));
    MB_TRY(mb_field_string(field, "behavior", "", &behaviour));
    MB_TRY(mb_field_bool(field, "invert", false, &invert));
    if ((regex == NULL) == (string == NULL) || (string != NULL && string[0] == 0))
        return mb_field_fail(&pattern, MB_BAD_DATA, "neither a Regex nor a String");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(behaviour, names[i]) == 0)
            return add_split(tokenizer, field, regex != NULL ? regex : string, regex == NULL,
                             (enum mb_behaviour)i, invert);
    pattern = mb_field_get(field, "behavior");
    return mb_load_unsupported(&pattern, behaviour);
}

static enum mb_status load_byte_level(struct mb_tokenizer *tokenizer, const struct mb_field *field)
{
    bool add_prefix_space = true, use_regex = true;
    struct mb_pretoken_step *step = NULL;
    MB_TRY(mb_field_bool(field, "add_prefix_space", true, &add_prefix_space));
    MB_TRY(mb_field_bool(field, "use_regex", true, &use_regex));
    if (add_prefix_space)
        MB_TRY(add_pretoken_step(tokenizer, field, MB_PRETOKEN_PREFIX, &step));
    if (use_regex)
        MB_TRY(add_split(tokenizer, field, gpt2_pattern, false, MB_SPLIT_ISOLATED, false));
    if (tokenizer->bpe.is_byte_level)
        return mb_field_fail(field, MB_UNSUPPORTED, "a second ByteLevel is not supported");
    tokenizer->bpe.is_byte_level = true;
    return MB_OK;
}

/* Whether a normalizer adds or removes characters. */
static bool changes_lengths(const struct mb_normalizers *normalizers)
{
    for (size_t i = 0; i < normalizers->n; i++)
        if (normalizers->items[i].kind != MB_NORMALIZE_NFC)
            return true;
    return false;
}

static enum mb_status load_metaspace(struct mb_tokenizer *tokenizer, const struct mb_field *field)
{
    const char *replacement = NULL, *scheme = NULL;
    bool split = true, add_prefix_space = true;
    struct mb_pretoken_step *step = NULL;
    MB_TRY(mb_field_string(field, "replacement", "\xe2\x96\x81", &replacement));
    MB_TRY(mb_field_bool(field, "add_prefix_space", true, &add_prefix_space)); /* of old files */
    MB_TRY(mb_field_string(field, "prepend_scheme", add_prefix_space ? "always" : "never", &scheme));
    MB_TRY(mb_field_bool(field, "split", true, &split));
    MB_TRY(add_pretoken_step(tokenizer, field, MB_PRETOKEN_METASPACE, &step));
    static const char *const names[] = {"always", "first", "never"};
    size_t i = 0;
    while (i < 3 && strcmp(scheme, names[i]) != 0)
        i++;
    if (i == 3)
        return mb_load_unsupported(field, scheme);
    step->scheme = (enum mb_prefix_scheme)i;
    /* The package asks which original character a word begins with: that would have to be kept. */
    if (step->scheme == MB_PREFIX_FIRST && changes_lengths(&tokenizer->normalizers))
        return mb_load_unsupported(field, "first, after a normalizer that adds or removes characters");
    if (replacement[0] == 0 || strlen(replacement) != mb_utf8_nbytes(replacement[0]))
        return mb_field_fail(field, MB_BAD_DATA, "its replacement is not one character");
    memcpy(step->replacement, replacement, strlen(replacement) + 1);
    if (!split)
        return MB_OK;
    return add_split(tokenizer, field, replacement, true, MB_SPLIT_WITH_NEXT, false);
}

enum mb_status mb_load_pre_tokenizer(struct mb_tokenizer *tokenizer, const struct mb_field *field, int depth)
{
    const char *type;
    if (field->value == NULL)
        return MB_OK;
    MB_TRY(mb_field_type(field, &type));
    if (strcmp(type, "Sequence") == 0)
        return mb_load_sequence(tokenizer, field, "pretokenizers", mb_load_pre_tokenizer, depth);
    if (strcmp(type, "Split") == 0)
        return load_split(tokenizer, field);
    if (strcmp(type, "Digits") == 0)
        return load_digits(tokenizer, field);
    if (strcmp(type, "ByteLevel") == 0)
        return load_byte_level(tokenizer, field);
    if (strcmp(type, "Metaspace") == 0)
        return load_metaspace(tokenizer, field);
    return mb_load_unsupported(field, type);
}

enum mb_status mb_load_kimi_pre_tokenizer(struct mb_tokenizer *tokenizer, const struct mb_field *field,
                                          const char *pattern)
{
    struct mb_pretoken_step *step = NULL;
    MB_TRY(add_pretoken_step(tokenizer, field, MB_PRETOKEN_CUT, &step));
    MB_TRY(add_split(tokenizer, field, pattern, false, MB_SPLIT_ISOLATED, false));
    tokenizer->bpe.is_byte_level = true;
    return MB_OK;
}

/* ---------------------------------------------------------------- post-processor */

/* The ids of a template's special token. */
static enum mb_status template_ids(struct mb_tokenizer *tokenizer, const struct mb_field *processor,
                                   const char *name, struct mb_ids *to)
{
    struct mb_field all = mb_field_get(processor, "special_tokens");
    struct mb_field token = mb_field_get(&all, name);
    struct mb_field ids = mb_field_get(&token, "ids");
    const struct mb_vocab *vocab = &tokenizer->bpe.vocab;
    if (!json_is_array(ids.value))
        return mb_field_fail(&token, MB_BAD_DATA, "has no ids");
    for (size_t i = 0; i < json_array_size(ids.value); i++) {
        const json_t *value = json_array_get(ids.value, i);
        json_int_t number = json_integer_value(value);
        if (!json_is_integer(value) || number < 0 || (size_t)number >= vocab->n_ids ||
            !vocab->tokens[number].exists)
            return mb_field_fail(&ids, MB_BAD_DATA, "an id that no token has");
        int32_t id = (int32_t)number;
        if (!mb_ids_put(to, &id, 1))
            return mb_fail_memory(processor->err, "the steps of the tokenizer");
    }
    return MB_OK;
}

/* What a template puts around the text. */
struct edges {
    struct mb_ids before, after;
    bool has_text;
};

static enum mb_status load_piece(struct mb_tokenizer *tokenizer, const struct mb_field *processor,
                                 const struct mb_field *piece, struct edges *edges)
{
    struct mb_field special = mb_field_get(piece, "SpecialToken"), sequence = mb_field_get(piece, "Sequence");
    const char *name = NULL;
    MB_TRY(mb_field_string(special.value != NULL ? &special : &sequence, "id", NULL, &name));
    if (name == NULL)
        return mb_field_fail(piece, MB_BAD_DATA, "neither a SpecialToken nor a Sequence");
    if (special.value != NULL)
        return template_ids(tokenizer, processor, name, edges->has_text ? &edges->after : &edges->before);
    if (edges->has_text || strcmp(name, "A") != 0)
        return mb_load_unsupported(piece, "a template with the text twice");
    edges->has_text = true;
    return MB_OK;
}

static enum mb_status load_pieces(struct mb_tokenizer *tokenizer, const struct mb_field *processor,
                                  const struct mb_field *single, struct edges *edges)
{
    for (size_t i = 0; i < json_array_size(single->value); i++) {
        struct mb_field piece = mb_field_at(single, i);
        MB_TRY(load_piece(tokenizer, processor, &piece, edges));
    }
    if (!edges->has_text)
        return mb_load_unsupported(single, "a template without the text");
    return mb_ids_put(&tokenizer->after, edges->after.p, edges->after.n)
               ? MB_OK
               : mb_fail_memory(processor->err, "the steps of the tokenizer");
}

static enum mb_status load_template(struct mb_tokenizer *tokenizer, const struct mb_field *field)
{
    struct mb_field single = mb_field_get(field, "single");
    struct edges edges = {0};
    if (!json_is_array(single.value))
        return mb_load_unsupported(&single, "template");
    /* The package takes what the first one made of a text for a pair of texts. */
    if (tokenizer->before.n + tokenizer->after.n > 0)
        return mb_load_unsupported(field, "a template after another one");
    enum mb_status status = load_pieces(tokenizer, field, &single, &edges);
    free(edges.after.p);
    if (status != MB_OK) {
        free(edges.before.p);
        return status;
    }
    free(tokenizer->before.p);
    tokenizer->before = edges.before;
    return MB_OK;
}

enum mb_status mb_load_post_processor(struct mb_tokenizer *tokenizer, const struct mb_field *field, int depth)
{
    const char *type;
    if (field->value == NULL)
        return MB_OK;
    MB_TRY(mb_field_type(field, &type));
    if (strcmp(type, "Sequence") == 0)
        return mb_load_sequence(tokenizer, field, "processors", mb_load_post_processor, depth);
    if (strcmp(type, "ByteLevel") == 0) /* changes offsets only */
        return MB_OK;
    if (strcmp(type, "TemplateProcessing") == 0)
        return load_template(tokenizer, field);
    return mb_load_unsupported(field, type);
}

/* ---------------------------------------------------------------- decoder */

static enum mb_status add_step(struct mb_tokenizer *tokenizer, const struct mb_field *field,
                               enum mb_decode_kind kind, struct mb_decode_step **step)
{
    if (tokenizer->n_decode_steps == MB_DECODE_STEPS_MAX)
        return mb_field_fail(field, MB_UNSUPPORTED, "more than %d decoders", MB_DECODE_STEPS_MAX);
    /*
     * A Strip is for the whole text here, the other steps for one token each.  ByteFallback makes one text of
     * several tokens, and what comes after it, up to Fuse, sees neither.
     */
    bool after_bytes = tokenizer->n_decode_steps > 0 &&
                       tokenizer->decode_steps[tokenizer->n_decode_steps - 1].kind == MB_DECODE_BYTE_FALLBACK;
    if ((kind == MB_DECODE_STRIP) != tokenizer->is_joined || (after_bytes && !tokenizer->is_joined))
        return mb_load_unsupported(field, "a decoder in this place");
    tokenizer->is_joined |= kind == MB_DECODE_BYTE_LEVEL;
    *step = &tokenizer->decode_steps[tokenizer->n_decode_steps++];
    **step = (struct mb_decode_step){.kind = kind};
    return MB_OK;
}

static enum mb_status load_strip(struct mb_tokenizer *tokenizer, const struct mb_field *field)
{
    struct mb_decode_step *step = NULL;
    const char *content;
    MB_TRY(add_step(tokenizer, field, MB_DECODE_STRIP, &step));
    MB_TRY(mb_field_string(field, "content", "", &content));
    MB_TRY(mb_field_size(field, "start", 1 << 20, &step->n_start));
    MB_TRY(mb_field_size(field, "stop", 1 << 20, &step->n_stop));
    if (content[0] == 0 || strlen(content) != mb_utf8_nbytes(content[0]))
        return mb_field_fail(field, MB_BAD_DATA, "its content is not one character");
    return copy_string(field, content, &step->what);
}

static enum mb_status load_replace_decoder(struct mb_tokenizer *tokenizer, const struct mb_field *field)
{
    struct mb_decode_step *step = NULL;
    const char *with;
    MB_TRY(add_step(tokenizer, field, MB_DECODE_REPLACE, &step));
    MB_TRY(mb_load_pattern_string(field, "pattern", &step->what));
    MB_TRY(mb_field_string(field, "content", "", &with));
    MB_TRY(copy_string(field, with, &step->with));
    double growth = 1;
    for (size_t i = 0; i < tokenizer->n_decode_steps; i++)
        if (tokenizer->decode_steps[i].kind == MB_DECODE_REPLACE)
            growth *= growth_of(tokenizer->decode_steps[i].what, tokenizer->decode_steps[i].with);
    return check_growth(field, growth);
}

static enum mb_status load_metaspace_decoder(struct mb_tokenizer *tokenizer, const struct mb_field *field)
{
    struct mb_decode_step *step = NULL;
    const char *replacement = "", *scheme;
    bool add_prefix_space = true;
    MB_TRY(mb_field_bool(field, "add_prefix_space", true, &add_prefix_space));
    MB_TRY(mb_field_string(field, "prepend_scheme", add_prefix_space ? "always" : "never", &scheme));
    MB_TRY(mb_field_string(field, "replacement", "\xe2\x96\x81", &replacement));
    MB_TRY(add_step(tokenizer, field, MB_DECODE_METASPACE, &step));
    if (replacement[0] == 0)
        return mb_field_fail(field, MB_BAD_DATA, "its replacement is empty");
    step->drop_first = strcmp(scheme, "never") != 0;
    return copy_string(field, replacement, &step->what);
}

enum mb_status mb_load_decoder(struct mb_tokenizer *tokenizer, const struct mb_field *field, int depth)
{
    const char *type;
    struct mb_decode_step *step = NULL;
    if (field->value == NULL)
        return mb_load_unsupported(field, "null");
    MB_TRY(mb_field_type(field, &type));
    if (strcmp(type, "Sequence") == 0)
        return mb_load_sequence(tokenizer, field, "decoders", mb_load_decoder, depth);
    if (strcmp(type, "ByteLevel") == 0)
        return add_step(tokenizer, field, MB_DECODE_BYTE_LEVEL, &step);
    if (strcmp(type, "ByteFallback") == 0)
        return add_step(tokenizer, field, MB_DECODE_BYTE_FALLBACK, &step);
    if (strcmp(type, "Fuse") == 0) {
        tokenizer->is_joined = true;
        return MB_OK;
    }
    if (strcmp(type, "Strip") == 0)
        return load_strip(tokenizer, field);
    if (strcmp(type, "Replace") == 0)
        return load_replace_decoder(tokenizer, field);
    if (strcmp(type, "Metaspace") == 0)
        return load_metaspace_decoder(tokenizer, field);
    return mb_load_unsupported(field, type);
}
