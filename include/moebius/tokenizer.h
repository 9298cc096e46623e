/*
 * tokenizer.h - text to token ids and back (tokenizer.json, tiktoken.model), and chat templates.
 *
 * The results equal those of the `tokenizers` package.  Opening a tokenizer that needs something unsupported
 * fails with an error that names it; no tokenizer gives different ids silently.
 *
 * Threads: an open tokenizer is read-only; any number of threads may use it at once.  After a failure,
 * results
 * (*tokenizer, *ids, *text) are left as they were.  'err' may be NULL.
 */
#ifndef MOEBIUS_TOKENIZER_H
#define MOEBIUS_TOKENIZER_H

#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mb_tokenizer;

/*
 * A folder: reads its tokenizer.json (without one: tiktoken.model, which needs tokenizer_config.json) and, if
 * they are there, what transformers reads beside it: tokenizer_config.json, special_tokens_map.json,
 * added_tokens.json, and chat templates (chat_template.jinja, additional_chat_templates/,
 * chat_template.json). A file: reads it as tokenizer.json, nothing else.
 */
MB_API enum mb_status mb_tokenizer_open(const char *path, struct mb_tokenizer **tokenizer,
                                        struct mb_error *err);

/* NULL: nothing to do. Detokenizers of the tokenizer have to be closed before. */
MB_API void mb_tokenizer_close(struct mb_tokenizer *tokenizer);

MB_API size_t mb_tokenizer_n_vocab(const struct mb_tokenizer *tokenizer); /* largest id + 1 */

/* Whether an id is a token. Vocabularies may have unused ids, and a model may have more ids than tokens. */
MB_API bool mb_tokenizer_has(const struct mb_tokenizer *tokenizer, int32_t id);

/*
 * Encodes 'text': UTF-8, at most 2^30 bytes; U+FFFD replaces bytes that are not UTF-8, as in Python's
 * errors="replace".  Added tokens in the text are recognised.  'add_special' adds the tokens that the
 * post-processor puts around a text.  *ids is malloc'ed, also when it is
 * empty; the caller frees it.
 */
MB_API enum mb_status mb_tokenizer_encode(const struct mb_tokenizer *tokenizer, const char *text,
                                          size_t text_nbytes, bool add_special, int32_t **ids, size_t *n_ids,
                                          struct mb_error *err);

/*
 * The text of ids; unknown ids are MB_BAD_DATA.  'skip_special' leaves special tokens out.  The text may
 * begin or end inside a character where the ids do (a detokenizer waits for the rest).  *text is malloc'ed
 * and terminated; the caller frees it.  text_nbytes does not count the terminator.
 */
MB_API enum mb_status mb_tokenizer_decode(const struct mb_tokenizer *tokenizer, const int32_t *ids,
                                          size_t n_ids, bool skip_special, char **text, size_t *text_nbytes,
                                          struct mb_error *err);

/* The id of a token by its exact content, or -1. */
MB_API int32_t mb_tokenizer_id(const struct mb_tokenizer *tokenizer, const char *content);

/* ---------------------------------------------------------------- text of a stream of tokens */

/*
 * Turns tokens into text while they come.  What it returns is valid UTF-8 and never ends inside a character:
 * the bytes of one that is not complete are held until it is.  All that it returned, put together, is what
 * mb_tokenizer_decode makes of all ids at once, with U+FFFD for bytes that are not UTF-8 (as Python's
 * errors="replace").  Ids that the tokenizer does not have (a model's vocabulary may be padded) have no text.
 *
 * Threads: one thread at a time uses a detokenizer.
 */
struct mb_detokenizer;

/* 'skip_special' leaves special tokens out. The tokenizer has to stay open longer than its detokenizers. */
MB_API enum mb_status mb_detokenizer_open(const struct mb_tokenizer *tokenizer, bool skip_special,
                                          struct mb_detokenizer **detokenizer, struct mb_error *err);
MB_API void mb_detokenizer_close(struct mb_detokenizer *detokenizer); /* NULL: nothing to do */

/*
 * Adds tokens.  *text (terminated, perhaps empty) is what can be shown now that could not be shown before; it
 * is valid until the next call with this detokenizer.  MB_NO_MEMORY: only reset and close may follow.
 * Nothing is allocated once the buffers have grown to the length of the longest token.
 */
MB_API enum mb_status mb_detokenizer_add(struct mb_detokenizer *detokenizer, const int32_t *ids, size_t n_ids,
                                         const char **text, size_t *text_nbytes, struct mb_error *err);

/* No more tokens: *text is what was still held, with U+FFFD for half a character. Then it begins anew. */
MB_API enum mb_status mb_detokenizer_flush(struct mb_detokenizer *detokenizer, const char **text,
                                           size_t *text_nbytes, struct mb_error *err);

/* Forgets what it holds and begins a new text. */
MB_API void mb_detokenizer_reset(struct mb_detokenizer *detokenizer);

/* ---------------------------------------------------------------- chat templates */

struct mb_chat_message {
    const char *role;    /* "system", "user", "assistant" */
    const char *content; /* NULL: none */
};

/* Whether the folder has a chat template. */
MB_API bool mb_tokenizer_has_chat(const struct mb_tokenizer *tokenizer);

/*
 * Where the template comes from that a conversation (with tools) gets: a file, with "chat_template" if it is
 * JSON.  NULL: there is none, or there are several and none is the default.  *n_templates: how many there
 * are.
 */
MB_API const char *mb_tokenizer_chat_place(const struct mb_tokenizer *tokenizer, bool has_tools,
                                           size_t *n_templates);

/*
 * The text of a conversation by the model's own template, to be encoded with add_special = false.  The
 * template may use a part of Jinja (docs/limits.md): MB_UNSUPPORTED names what is missing.  MB_BAD_DATA: the
 * template is wrong, or refuses the conversation.  *text is malloc'ed and terminated; the caller frees it.
 */
MB_API enum mb_status mb_tokenizer_chat(const struct mb_tokenizer *tokenizer,
                                        const struct mb_chat_message *messages, size_t n_messages,
                                        bool add_generation_prompt, char **text, struct mb_error *err);

/*
 * The same by another template: 'template_text' is its text, 'place' names it in messages (a file).  NULL
 * means the plain format: what add_special puts before a text, a system message without a name, then
 * "User: ...\n\nAssistant: ...\n\n".
 */
MB_API enum mb_status mb_tokenizer_chat_with(const struct mb_tokenizer *tokenizer, const char *template_text,
                                             const char *place, const struct mb_chat_message *messages,
                                             size_t n_messages, bool add_generation_prompt, char **text,
                                             struct mb_error *err);

/*
 * How a conversation becomes a text.  Set 'size' to the sizeof; zero is the default of every other member.
 * JSON texts are UTF-8 and terminated; transformers' rules hold: keys of messages that are null are left out,
 * and reasoning_content, thinking and reasoning name the same text.
 */
struct mb_chat_options {
    size_t size;
    const char *template_text; /* NULL: the model's own template */
    const char *place;         /* what messages call template_text (a file); NULL: "the chat template" */
    bool is_plain;             /* the plain format instead of a template; it has no tools and variables */
    bool add_generation_prompt;
    const char *messages;  /* a JSON array instead of struct mb_chat_message: tool_calls, contents in parts */
    const char *tools;     /* a JSON array of what the model may call; NULL: none */
    const char *variables; /* a JSON object of further variables: {"enable_thinking": false}; NULL: none */
    int64_t now;           /* the time of strftime_now, in seconds since 1970; 0: the clock's */
};

/*
 * The text of a conversation, as mb_tokenizer_chat.  MB_USAGE: an option is not what it has to be; the
 * message names it.  Give the messages as an array or as options->messages, not as both.
 */
MB_API enum mb_status mb_tokenizer_chat_text(const struct mb_tokenizer *tokenizer,
                                             const struct mb_chat_message *messages, size_t n_messages,
                                             const struct mb_chat_options *options, char **text,
                                             struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
