/*
 * conversation.c - messages in memory and as jsonl.
 */
#include "conversation.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "cli.h"
#include "output_file.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char *copy_text(const char *text)
{
    struct mb_bytes copy = {0};
    bool ok = mb_utf8_replace(&copy, text, strlen(text)) && mb_bytes_put(&copy, "", 1);
    return cli_check_memory(ok ? copy.p : NULL);
}

static void make_room(struct cli_conversation *c)
{
    void *messages = c->messages;
    cli_check_memory(mb_grow(&messages, &c->cap, c->n, 1, sizeof *c->messages) ? messages : NULL);
    c->messages = messages;
}

static void cut(struct cli_conversation *c, size_t n)
{
    while (c->n > n)
        free((char *)c->messages[--c->n].content);
}

void cli_conversation_close(struct cli_conversation *c)
{
    cut(c, 0);
    free(c->messages);
}

void cli_conversation_add(struct cli_conversation *c, const char *role, const char *text)
{
    make_room(c);
    c->messages[c->n++] = (struct mb_chat_message){role, copy_text(text)};
}

static bool is_role(const struct cli_conversation *c, size_t i, const char *role)
{
    return i < c->n && strcmp(c->messages[i].role, role) == 0;
}

const char *cli_conversation_system(const struct cli_conversation *c)
{
    return is_role(c, 0, "system") ? c->messages[0].content : NULL;
}

void cli_conversation_set_system(struct cli_conversation *c, const char *text)
{
    if (is_role(c, 0, "system")) {
        free((char *)c->messages[0].content);
        memmove(c->messages, c->messages + 1, --c->n * sizeof *c->messages);
    }
    if (text[0] == '\0')
        return;
    make_room(c);
    memmove(c->messages + 1, c->messages, c->n++ * sizeof *c->messages);
    c->messages[0] = (struct mb_chat_message){"system", copy_text(text)};
}

void cli_conversation_reset(struct cli_conversation *c)
{
    cut(c, is_role(c, 0, "system"));
}

bool cli_conversation_undo(struct cli_conversation *c)
{
    for (size_t i = c->n; i-- > 0;)
        if (is_role(c, i, "user")) {
            cut(c, i);
            return true;
        }
    return false;
}

char *cli_conversation_take_reply(struct cli_conversation *c)
{
    bool is_reply = c->n > 0 && is_role(c, c->n - 1, "assistant");
    return is_reply ? (char *)c->messages[--c->n].content : NULL;
}

/* ---------------------------------------------------------------- files */

static enum mb_status write_message(FILE *file, const struct mb_chat_message *message, const char *path,
                                    struct mb_error *err)
{
    json_t *json =
        cli_check_memory(json_pack("{s:s, s:s}", "role", message->role, "content", message->content));
    char *line = cli_check_memory(mb_json_text(json, 0, NULL));
    bool ok = fputs(line, file) >= 0 && putc('\n', file) != EOF;
    free(line);
    json_decref(json);
    return ok ? MB_OK : mb_fail_errno(err, path, "write");
}

enum mb_status cli_conversation_save(const struct cli_conversation *c, const char *path, bool replaces,
                                     struct mb_error *err)
{
    struct cli_output_file output = {0};
    struct stat there;
    if (!replaces && lstat(path, &there) == 0)
        return mb_fail(err, MB_USAGE, "%s: the file exists; /save --force replaces it", path);
    enum mb_status status = cli_output_open(&output, path, "", err);
    for (size_t i = 0; status == MB_OK && i < c->n; i++)
        status = write_message(output.file, &c->messages[i], path, err);
    return cli_output_close(&output, status, err);
}

static enum mb_status take_message(struct cli_conversation *c, const json_t *json, struct mb_error *err)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    const char *role = json_string_value(json_object_get(json, "role"));
    const char *content = json_string_value(json_object_get(json, "content"));
    if (role == NULL || content == NULL)
        return mb_fail(err, MB_BAD_DATA, "not an object with the texts \"role\" and \"content\"");
    if (strcmp(role, "system") == 0 && c->n > 0)
        return mb_fail(err, MB_BAD_DATA, "a system message that is not the first message");
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(role, roles[i]) == 0) {
            cli_conversation_add(c, roles[i], content);
            return MB_OK;
        }
    return mb_fail(err, MB_BAD_DATA, "role '%s' is not system, user or assistant", role);
}

static enum mb_status take_line(struct cli_conversation *c, const char *line, size_t nbytes,
                                struct mb_error *err)
{
    json_t *json;
    MB_TRY(mb_json_parse(line, nbytes, 0, &json, err));
    enum mb_status status = take_message(c, json, err);
    json_decref(json);
    return status;
}

static enum mb_status take_lines(struct cli_conversation *c, const char *path, const char *text,
                                 size_t nbytes, struct mb_error *err)
{
    const char *end = text + nbytes;
    for (size_t n_line = 1; text < end; n_line++) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        line_end = line_end == NULL ? end : line_end;
        bool is_empty = strspn(text, " \t\r") >= (size_t)(line_end - text);
        enum mb_status status = is_empty ? MB_OK : take_line(c, text, (size_t)(line_end - text), err);
        if (status != MB_OK)
            return mb_fail_in(err, status, "%s: line %zu", path, n_line);
        text = line_end + (line_end < end);
    }
    return c->n == 0 ? mb_fail(err, MB_BAD_DATA, "%s: no messages in it", path) : MB_OK;
}

enum mb_status cli_conversation_load(struct cli_conversation *c, const char *path, struct mb_error *err)
{
    struct cli_conversation loaded = {0};
    char *text;
    size_t nbytes;
    MB_TRY(cli_read_text(path, &text, &nbytes, err));
    enum mb_status status = take_lines(&loaded, path, text, nbytes, err);
    free(text);
    if (status != MB_OK) {
        cli_conversation_close(&loaded);
        return status;
    }
    cli_conversation_close(c);
    *c = loaded;
    return MB_OK;
}
