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
};

enum mb_status mb_load_model(struct mb_tokenizer *tokenizer, const struct mb_field *model);

/* After the model and the normalizer: added tokens are normalized by it. */
enum mb_status mb_load_added(struct mb_tokenizer *tokenizer, const struct mb_field *added);
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

/* tokenizer_config.json and chat_template.jinja of a folder, where they exist. */
enum mb_status mb_load_config(struct mb_tokenizer *tokenizer, const char *folder, struct mb_error *err);

/* tiktoken.model: tokens with their ranks, and all merges. The status is MB_BAD_DATA for a damaged file. */
enum mb_status mb_load_ranks(struct mb_tokenizer *tokenizer, const char *path, struct mb_error *err);

/* A tokenizer of tiktoken.model ('path') and what tokenizer_config.json says beside it. */
enum mb_status mb_load_tiktoken(struct mb_tokenizer *tokenizer, const char *path,
                                const struct mb_field *config);

enum mb_status mb_load_unsupported(const struct mb_field *field, const char *what);

#endif
