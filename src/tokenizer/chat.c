/*
 * chat.c - a conversation to text: by the model's template, by another one, or in the plain format.
 */
#include "base/error.h"
#include "base/utf8.h"
#include "jinja/jinja.h"
#include "tokenizer_impl.h"
#include <time.h>

/*
 * What a template may use. The largest known template takes some thousand steps a message and a few kB;
 * memory is not reused within a rendering, so it grows with what is joined.
 */
#define STEPS_MAX 20000000u
#define ARENA_NBYTES_BASE ((size_t)64 << 20)
#define ARENA_NBYTES_A_BYTE 64u
#define OUT_NBYTES_BASE ((size_t)16 << 20)
#define OUT_NBYTES_A_BYTE 8u

bool mb_tokenizer_has_chat(const struct mb_tokenizer *tokenizer)
{
    return tokenizer->chat.text != NULL;
}

/* A copy in the arena, with U+FFFD for what is not UTF-8. */
static bool copy_text(struct mb_jinja_run *run, const char *text, struct mb_jinja_value *value)
{
    struct mb_bytes valid = {0};
    char *copy = NULL;
    if (!mb_utf8_replace(&valid, text, strlen(text)))
        mb_jinja_fail(run, MB_NO_MEMORY, "out of memory for the conversation");
    else
        copy = mb_jinja_alloc(run, valid.n);
    if (copy != NULL) {
        if (valid.n > 0)
            memcpy(copy, valid.p, valid.n);
        *value = mb_jinja_text(copy, valid.n);
    }
    free(valid.p);
    return copy != NULL;
}

static bool put_value(struct mb_jinja_run *run, struct mb_jinja_map *map, const char *key,
                      struct mb_jinja_value value)
{
    return mb_jinja_put(run, map, (struct mb_jinja_string){key, strlen(key)}, value);
}

/* Without a text the key is left out, as transformers does. */
static bool put_text(struct mb_jinja_run *run, struct mb_jinja_map *map, const char *key, const char *text)
{
    struct mb_jinja_value value;
    return text == NULL || (copy_text(run, text, &value) && put_value(run, map, key, value));
}

static bool make_messages(struct mb_jinja_run *run, const struct mb_chat_message *messages, size_t n_messages,
                          struct mb_jinja_value *list)
{
    if (!mb_jinja_new_list(run, list))
        return false;
    for (size_t i = 0; i < n_messages; i++) {
        struct mb_jinja_value message;
        if (!mb_jinja_new_map(run, MB_JINJA_DICT, &message) ||
            !put_text(run, message.map, "role", messages[i].role) ||
            !put_text(run, message.map, "content", messages[i].content) ||
            !mb_jinja_append(run, list->list, message))
            return false;
    }
    return true;
}

/* The variables that transformers gives to a template. */
static bool make_variables(struct mb_jinja_run *run, const struct mb_tokenizer *tokenizer,
                           const struct mb_chat_message *messages, size_t n_messages,
                           bool add_generation_prompt, struct mb_jinja_value *variables)
{
    struct mb_jinja_value list;
    if (!mb_jinja_new_map(run, MB_JINJA_DICT, variables) || !make_messages(run, messages, n_messages, &list))
        return false;
    return put_value(run, variables->map, "messages", list) &&
           put_value(run, variables->map, "tools", mb_jinja_none()) &&
           put_value(run, variables->map, "documents", mb_jinja_none()) &&
           put_value(run, variables->map, "add_generation_prompt", mb_jinja_bool(add_generation_prompt)) &&
           put_text(run, variables->map, "bos_token", tokenizer->bos_token) &&
           put_text(run, variables->map, "eos_token", tokenizer->eos_token);
}

static enum mb_status render(const struct mb_tokenizer *tokenizer, const char *template_text,
                             const char *place, const struct mb_chat_message *messages, size_t n_messages,
                             bool add_generation_prompt, struct mb_bytes *out, struct mb_error *err)
{
    size_t in_nbytes = strlen(template_text);
    if (mb_utf8_valid_prefix(template_text, in_nbytes) != in_nbytes)
        return mb_fail(err, MB_BAD_DATA, "%s: not UTF-8", place);
    for (size_t i = 0; i < n_messages; i++)
        in_nbytes += messages[i].content == NULL ? 0 : strlen(messages[i].content);
    if (in_nbytes > SIZE_MAX / 256)
        return mb_fail_memory(err, "the chat template");
    struct mb_jinja_run run = {.place = place,
                               .line = 1,
                               .err = err,
                               .now = (int64_t)time(NULL),
                               .n_steps_max = STEPS_MAX,
                               .arena_nbytes_max = ARENA_NBYTES_BASE + ARENA_NBYTES_A_BYTE * in_nbytes,
                               .out_nbytes_max = OUT_NBYTES_BASE + OUT_NBYTES_A_BYTE * in_nbytes};
    struct mb_jinja_value variables;
    const struct mb_jinja_node *tree = NULL;
    if (make_variables(&run, tokenizer, messages, n_messages, add_generation_prompt, &variables))
        tree = mb_jinja_parse(&run, template_text, strlen(template_text));
    if (tree != NULL)
        mb_jinja_render(&run, tree, variables.map, out);
    mb_jinja_run_free(&run);
    return run.status;
}

/* ---------------------------------------------------------------- the plain format */

static bool put(struct mb_bytes *out, const char *text)
{
    return mb_bytes_put(out, text, strlen(text));
}

/* What add_special would put before the text, as text: the ids come back when the text is encoded. */
static bool put_before(const struct mb_tokenizer *tokenizer, struct mb_bytes *out)
{
    for (size_t i = 0; i < tokenizer->before.n; i++) {
        size_t n;
        const char *token = mb_vocab_content(&tokenizer->bpe.vocab, tokenizer->before.p[i], &n);
        if (!mb_bytes_put(out, token, n))
            return false;
    }
    return true;
}

static enum mb_status write_plain(const struct mb_tokenizer *tokenizer,
                                  const struct mb_chat_message *messages, size_t n_messages,
                                  bool add_generation_prompt, struct mb_bytes *out, struct mb_error *err)
{
    bool ok = put_before(tokenizer, out);
    for (size_t i = 0; ok && i < n_messages; i++) {
        const char *role = messages[i].role == NULL ? "" : messages[i].role;
        const char *name = strcmp(role, "user") == 0        ? "User: "
                           : strcmp(role, "assistant") == 0 ? "Assistant: "
                           : strcmp(role, "system") == 0    ? ""
                                                            : NULL;
        if (name == NULL)
            return mb_fail(err, MB_USAGE, "the plain chat format has no role '%s'", role);
        ok = put(out, name) && put(out, messages[i].content == NULL ? "" : messages[i].content) &&
             put(out, "\n\n");
    }
    ok = ok && (!add_generation_prompt || put(out, "Assistant:"));
    return ok ? MB_OK : mb_fail_memory(err, "the conversation");
}

/* ---------------------------------------------------------------- public */

enum mb_status mb_tokenizer_chat_with(const struct mb_tokenizer *tokenizer, const char *template_text,
                                      const char *place, const struct mb_chat_message *messages,
                                      size_t n_messages, bool add_generation_prompt, char **text,
                                      struct mb_error *err)
{
    struct mb_bytes out = {0};
    enum mb_status status =
        template_text == NULL
            ? write_plain(tokenizer, messages, n_messages, add_generation_prompt, &out, err)
            : render(tokenizer, template_text, place, messages, n_messages, add_generation_prompt, &out, err);
    if (status == MB_OK && !mb_bytes_put(&out, "", 1))
        status = mb_fail_memory(err, "the conversation");
    if (status != MB_OK) {
        free(out.p);
        return status;
    }
    *text = out.p;
    return MB_OK;
}

enum mb_status mb_tokenizer_chat(const struct mb_tokenizer *tokenizer, const struct mb_chat_message *messages,
                                 size_t n_messages, bool add_generation_prompt, char **text,
                                 struct mb_error *err)
{
    if (tokenizer->chat.text == NULL)
        return mb_fail(err, MB_UNSUPPORTED,
                       "the model has no chat template (chat_template.jinja or tokenizer_config.json)");
    return mb_tokenizer_chat_with(tokenizer, tokenizer->chat.text, tokenizer->chat.place, messages,
                                  n_messages, add_generation_prompt, text, err);
}
