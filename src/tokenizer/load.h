/*
 * load.h - the parts of tokenizer.json, each read by its own function.
 */
#ifndef MB_TOKENIZER_LOAD_H
#define MB_TOKENIZER_LOAD_H

#include "field.h"
#include "tokenizer_impl.h"

enum {
    MB_MERGES_MAX = 1 << 24,
    MB_ADDED_MAX = 1 << 16,
    MB_SEQUENCE_DEPTH_MAX = 4, /* of Sequences in Sequences */
    MB_NAMES_MAX = 256,        /* of special tokens */
};

enum mb_status mb_load_model(struct mb_tokenizer *tokenizer, const struct mb_field *model);

/* Unused ids cost memory: the largest that a file of so many tokens may have. */
size_t mb_load_largest_id(size_t n_tokens);

/* A token that has no other token's content or id. */
enum mb_status mb_load_token(struct mb_vocab *vocab, const struct mb_field *place, const char *content,
                             size_t id);

/* ---------------------------------------------------------------- added tokens */

/* After the model. */
enum mb_status mb_load_added(struct mb_tokenizer *tokenizer, const struct mb_field *added);

/* What a file says of an added token. */
struct mb_added_spec {
    const char *content;
    bool single_word, lstrip, rstrip, normalized, is_special;
};

/* The flags of an object; 'is_special' where it does not say. */
enum mb_status mb_load_flags(const struct mb_field *object, bool is_special, struct mb_added_spec *spec);

/* Adds a token, or gives one that is there other flags. */
enum mb_status mb_added_apply(struct mb_tokenizer *tokenizer, const struct mb_field *field,
                              const struct mb_added_spec *spec);
bool mb_added_has(const struct mb_tokenizer *tokenizer, const struct mb_added_spec *spec);
int32_t mb_added_find(const struct mb_tokenizer *tokenizer, const char *content); /* -1: none */

/* After all are added, and after the normalizer: from now on texts are searched for them. */
enum mb_status mb_added_finish(struct mb_tokenizer *tokenizer, struct mb_error *err);

/*
 * What tokenizer_config.json, special_tokens_map.json and added_tokens.json (value NULL: not there) add to
 * tokenizer.json, and the names of special tokens.
 */
enum mb_status mb_load_added_tokens(struct mb_tokenizer *tokenizer, const struct mb_field *config,
                                    const struct mb_field *map, const struct mb_field *added);

/* The names alone. */
enum mb_status mb_load_names(struct mb_tokenizer *tokenizer, const struct mb_field *config);

/* ---------------------------------------------------------------- the pipeline */

enum mb_status mb_load_normalizer(struct mb_tokenizer *tokenizer, const struct mb_field *field, int depth);
enum mb_status mb_load_pre_tokenizer(struct mb_tokenizer *tokenizer, const struct mb_field *field, int depth);

/* After the added tokens: templates name them. */
enum mb_status mb_load_post_processor(struct mb_tokenizer *tokenizer, const struct mb_field *field,
                                      int depth);
enum mb_status mb_load_decoder(struct mb_tokenizer *tokenizer, const struct mb_field *field, int depth);

/*
 * Calls 'each' for the elements of a Sequence's array member 'key'.  MB_UNSUPPORTED when Sequences are nested
 * too deep.
 */
typedef enum mb_status (*mb_load_fn)(struct mb_tokenizer *tokenizer, const struct mb_field *item, int depth);
enum mb_status mb_load_sequence(struct mb_tokenizer *tokenizer, const struct mb_field *sequence,
                                const char *key, mb_load_fn each, int depth);

/* The steps of Kimi's Python class: it cuts long texts and runs, then splits by the pattern into bytes. */
enum mb_status mb_load_kimi_pre_tokenizer(struct mb_tokenizer *tokenizer, const struct mb_field *field,
                                          const char *pattern);

/* A member {"String": ...} as a copy, owned by the caller. Not empty. */
enum mb_status mb_load_pattern_string(const struct mb_field *object, const char *key, char **text);

/* ---------------------------------------------------------------- other files */

/*
 * The chat templates of a folder: chat_template.jinja and additional_chat_templates/NAME.jinja; where there
 * are none, those of the configuration (value NULL: there is none), and else chat_template.json.
 */
enum mb_status mb_load_templates(struct mb_tokenizer *tokenizer, const char *folder,
                                 const struct mb_field *config);

/* tiktoken.model: tokens with their ranks, and all merges. The status is MB_BAD_DATA for a damaged file. */
enum mb_status mb_load_ranks(struct mb_tokenizer *tokenizer, const char *path, struct mb_error *err);

/* A tokenizer of tiktoken.model ('path') and what tokenizer_config.json says beside it. */
enum mb_status mb_load_tiktoken(struct mb_tokenizer *tokenizer, const char *path,
                                const struct mb_field *config);

enum mb_status mb_load_unsupported(const struct mb_field *field, const char *what);

#endif
