/*
 * chat.c - a conversation to text: by the model's template, by another one, or in the plain format.
 */
#include "base/error.h"
#include "base/json.h"
#include "base/options.h"
#include "base/utf8.h"
#include "chat_json.h"
#include "tokenizer_impl.h"
#include <stdio.h>
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
    return tokenizer->n_templates > 0;
}

static const struct mb_chat_template *find_template(const struct mb_tokenizer *tokenizer, const char *name)
{
    for (size_t i = 0; i < tokenizer->n_templates; i++)
        if (strcmp(tokenizer->templates[i].name, name) == 0)
            return &tokenizer->templates[i];
    return NULL;
}

/* As transformers chooses: with tools the one for them. NULL: there is none, or several and no default. */
static const struct mb_chat_template *choose_template(const struct mb_tokenizer *tokenizer, bool has_tools)
{
    const struct mb_chat_template *for_tools = has_tools ? find_template(tokenizer, "tool_use") : NULL;
    return for_tools != NULL ? for_tools : find_template(tokenizer, "default");
}

const char *mb_tokenizer_chat_place(const struct mb_tokenizer *tokenizer, bool has_tools, size_t *n_templates)
{
    const struct mb_chat_template *chosen = choose_template(tokenizer, has_tools);
    *n_templates = tokenizer->n_templates;
    return chosen == NULL ? NULL : chosen->place;
}

static enum mb_status fail_no_template(const struct mb_tokenizer *tokenizer, struct mb_error *err)
{
    char names[200] = "";
    if (tokenizer->n_templates == 0)
        return mb_fail(err, MB_UNSUPPORTED,
                       "the model has no chat template (chat_template.jinja or tokenizer_config.json)");
    for (size_t i = 0, n = 0; i < tokenizer->n_templates && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%.40s", i == 0 ? "" : ", ",
                              tokenizer->templates[i].name);
    return mb_fail(err, MB_UNSUPPORTED,
                   "the model has several chat templates and none is the default (%s): give one as a file",
                   names);
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

/* What a rendering is made of: the conversation and its JSON texts, parsed. */
struct source {
    const struct mb_tokenizer *tokenizer;
    const struct mb_chat_message *messages;
    size_t n_messages;
    const struct mb_chat_options *options;
    const char *template_text, *place;
    json_t *json_messages, *json_tools, *json_variables; /* NULL: not given */
};

/* bos_token and the like. */
static bool put_names(struct mb_jinja_run *run, const struct mb_tokenizer *tokenizer,
                      struct mb_jinja_map *map)
{
    for (size_t i = 0; i < tokenizer->n_names; i++)
        if (!put_text(run, map, tokenizer->names[i].key, tokenizer->names[i].content))
            return false;
    return true;
}

/* The variables that transformers gives to a template. */
static bool make_variables(struct mb_jinja_run *run, const struct source *source,
                           struct mb_jinja_value *variables)
{
    const struct mb_tokenizer *tokenizer = source->tokenizer;
    struct mb_jinja_value list, tools = mb_jinja_none();
    if (!mb_jinja_new_map(run, MB_JINJA_DICT, variables) ||
        !(source->json_messages != NULL ? mb_chat_json_messages(run, source->json_messages, &list)
                                        : make_messages(run, source->messages, source->n_messages, &list)) ||
        (source->json_tools != NULL && !mb_chat_json_value(run, source->json_tools, &tools)))
        return false;
    return put_value(run, variables->map, "messages", list) &&
           put_value(run, variables->map, "tools", tools) &&
           put_value(run, variables->map, "documents", mb_jinja_none()) &&
           put_value(run, variables->map, "add_generation_prompt",
                     mb_jinja_bool(source->options->add_generation_prompt)) &&
           put_names(run, tokenizer, variables->map) &&
           (source->json_variables == NULL ||
            mb_chat_json_variables(run, source->json_variables, variables->map));
}

static size_t length_or_0(const char *text)
{
    return text == NULL ? 0 : strlen(text);
}

static enum mb_status render(const struct source *source, struct mb_bytes *out, struct mb_error *err)
{
    const struct mb_chat_options *options = source->options;
    size_t n_template = strlen(source->template_text), in_nbytes = n_template;
    if (mb_utf8_valid_prefix(source->template_text, n_template) != n_template)
        return mb_fail(err, MB_BAD_DATA, "%s: not UTF-8", source->place);
    for (size_t i = 0; i < source->n_messages; i++)
        in_nbytes += length_or_0(source->messages[i].content);
    in_nbytes +=
        length_or_0(options->messages) + length_or_0(options->tools) + length_or_0(options->variables);
    if (in_nbytes > SIZE_MAX / 256)
        return mb_fail_memory(err, "the chat template");
    struct mb_jinja_run run = {.place = source->place,
                               .line = 1,
                               .err = err,
                               .now = options->now != 0 ? options->now : (int64_t)time(NULL),
                               .n_steps_max = STEPS_MAX,
                               .arena_nbytes_max = ARENA_NBYTES_BASE + ARENA_NBYTES_A_BYTE * in_nbytes,
                               .out_nbytes_max = OUT_NBYTES_BASE + OUT_NBYTES_A_BYTE * in_nbytes};
    struct mb_jinja_value variables;
    const struct mb_jinja_node *tree = NULL;
    if (make_variables(&run, source, &variables))
        tree = mb_jinja_parse(&run, source->template_text, n_template);
    if (tree != NULL)
        mb_jinja_render(&run, tree, variables.map, out);
    mb_jinja_run_free(&run);
    return run.status;
}

/* *json: the array or object that an option's text is. */
static enum mb_status read_json(const char *text, const char *what, bool is_object, json_t **json,
                                struct mb_error *err)
{
    struct mb_error inner = {0};
    if (text == NULL)
        return MB_OK;
    enum mb_status status = mb_json_parse(text, strlen(text), 0, json, &inner);
    if (status == MB_NO_MEMORY)
        return mb_fail_memory(err, what);
    if (status != MB_OK)
        return mb_fail(err, MB_USAGE, "%s: %s", what, inner.msg);
    if (is_object ? !json_is_object(*json) : !json_is_array(*json))
        return mb_fail(err, MB_USAGE, "%s: not a JSON %s", what, is_object ? "object" : "array");
    return MB_OK;
}

static enum mb_status check_messages(const json_t *messages, struct mb_error *err)
{
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (!json_is_object(json_array_get(messages, i)))
            return mb_fail(err, MB_USAGE, "messages: the one at %zu is not a JSON object", i);
    return MB_OK;
}

static enum mb_status read_all_json(struct source *source, struct mb_error *err)
{
    MB_TRY(read_json(source->options->messages, "messages", false, &source->json_messages, err));
    MB_TRY(check_messages(source->json_messages, err));
    MB_TRY(read_json(source->options->tools, "tools", false, &source->json_tools, err));
    MB_TRY(read_json(source->options->variables, "template variables", true, &source->json_variables, err));
    static const char *const others[] = {"messages", "tools"};
    for (size_t i = 0; i < 2; i++)
        if (json_object_get(source->json_variables, others[i]) != NULL)
            return mb_fail(err, MB_USAGE, "template variables: '%s' has an option of its own", others[i]);
    return MB_OK;
}

static enum mb_status render_source(struct source *source, struct mb_bytes *out, struct mb_error *err)
{
    enum mb_status status = read_all_json(source, err);
    if (status == MB_OK)
        status = render(source, out, err);
    json_decref(source->json_messages);
    json_decref(source->json_tools);
    json_decref(source->json_variables);
    return status;
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

static enum mb_status write_text(const struct mb_tokenizer *tokenizer, const struct mb_chat_message *messages,
                                 size_t n_messages, const struct mb_chat_options *options,
                                 struct mb_bytes *out, struct mb_error *err)
{
    if (options->messages != NULL && n_messages > 0)
        return mb_fail(err, MB_USAGE, "messages: given as an array and as JSON");
    if (options->is_plain &&
        (options->messages != NULL || options->tools != NULL || options->variables != NULL))
        return mb_fail(err, MB_USAGE, "the plain chat format has no messages in JSON, tools or variables");
    if (options->is_plain)
        return write_plain(tokenizer, messages, n_messages, options->add_generation_prompt, out, err);
    struct source source = {.tokenizer = tokenizer,
                            .messages = messages,
                            .n_messages = n_messages,
                            .options = options,
                            .template_text = options->template_text,
                            .place = options->place != NULL ? options->place : "the chat template"};
    if (source.template_text == NULL) {
        const struct mb_chat_template *chosen = choose_template(tokenizer, options->tools != NULL);
        if (chosen == NULL)
            return fail_no_template(tokenizer, err);
        source.template_text = chosen->text;
        source.place = chosen->place;
    }
    return render_source(&source, out, err);
}

enum mb_status mb_tokenizer_chat_text(const struct mb_tokenizer *tokenizer,
                                      const struct mb_chat_message *messages, size_t n_messages,
                                      const struct mb_chat_options *given, char **text, struct mb_error *err)
{
    struct mb_chat_options options;
    struct mb_bytes out = {0};
    MB_TRY(MB_OPTIONS_TAKE(options, given, err));
    enum mb_status status = write_text(tokenizer, messages, n_messages, &options, &out, err);
    if (status == MB_OK && !mb_bytes_put(&out, "", 1))
        status = mb_fail_memory(err, "the conversation");
    if (status != MB_OK) {
        free(out.p);
        return status;
    }
    *text = out.p;
    return MB_OK;
}

enum mb_status mb_tokenizer_chat_with(const struct mb_tokenizer *tokenizer, const char *template_text,
                                      const char *place, const struct mb_chat_message *messages,
                                      size_t n_messages, bool add_generation_prompt, char **text,
                                      struct mb_error *err)
{
    const struct mb_chat_options options = {.size = sizeof options,
                                            .template_text = template_text,
                                            .place = place,
                                            .is_plain = template_text == NULL,
                                            .add_generation_prompt = add_generation_prompt};
    return mb_tokenizer_chat_text(tokenizer, messages, n_messages, &options, text, err);
}

enum mb_status mb_tokenizer_chat(const struct mb_tokenizer *tokenizer, const struct mb_chat_message *messages,
                                 size_t n_messages, bool add_generation_prompt, char **text,
                                 struct mb_error *err)
{
    const struct mb_chat_options options = {.size = sizeof options,
                                            .add_generation_prompt = add_generation_prompt};
    return mb_tokenizer_chat_text(tokenizer, messages, n_messages, &options, text, err);
}
