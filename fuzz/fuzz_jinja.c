/*
 * fuzz_jinja.c - chat templates over a conversation, with smaller limits than chat.c sets, which stop endless
 * loops early.
 */
#include "base/utf8.h"
#include "fuzz.h"
#include "jinja/jinja.h"
#include <stdlib.h>
#include <string.h>

static const char *const messages[][2] = {{"system", "Be brief."},
                                          {"user", " 1 + 1?\n"},
                                          {"assistant", "<think>\nadd\n</think>\n\n2 \xe2\x82\xac"}};

static struct mb_jinja_value text_value(const char *text)
{
    return mb_jinja_text(text, strlen(text));
}

static void put(struct mb_jinja_run *run, struct mb_jinja_map *map, const char *key,
                struct mb_jinja_value value)
{
    REQUIRE(mb_jinja_put(run, map, text_value(key).string, value));
}

static struct mb_jinja_value make_variables(struct mb_jinja_run *run)
{
    struct mb_jinja_value variables, list;
    REQUIRE(mb_jinja_new_map(run, MB_JINJA_DICT, &variables) && mb_jinja_new_list(run, &list));
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        struct mb_jinja_value message;
        REQUIRE(mb_jinja_new_map(run, MB_JINJA_DICT, &message));
        put(run, message.map, "role", text_value(messages[i][0]));
        put(run, message.map, "content", text_value(messages[i][1]));
        REQUIRE(mb_jinja_append(run, list.list, message));
    }
    put(run, variables.map, "messages", list);
    put(run, variables.map, "tools", mb_jinja_none());
    put(run, variables.map, "add_generation_prompt", mb_jinja_bool(true));
    put(run, variables.map, "bos_token", text_value("<s>"));
    return variables;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mb_error err = {0};
    struct mb_bytes template = {0}, out = {0};
    struct mb_jinja_run run = {.place = "template",
                               .line = 1,
                               .err = &err,
                               .n_steps_max = 20000,
                               .arena_nbytes_max = 1 << 20,
                               .out_nbytes_max = 1 << 18};
    REQUIRE(mb_bytes_reserve(&template, 1) && mb_utf8_replace(&template, (const char *)data, size));
    struct mb_jinja_value variables = make_variables(&run);
    const struct mb_jinja_node *tree = mb_jinja_parse(&run, template.p, template.n);
    enum mb_status status = tree == NULL ? run.status : mb_jinja_render(&run, tree, variables.map, &out);
    REQUIRE(status == run.status);
    if (status == MB_OK) {
        REQUIRE(out.n <= run.out_nbytes_max && mb_utf8_valid_prefix(out.p, out.n) == out.n);
    } else {
        REQUIRE((status == MB_BAD_DATA || status == MB_UNSUPPORTED) &&
                strncmp(err.msg, "template: line ", 15) == 0);
    }
    mb_jinja_run_free(&run);
    free(out.p);
    free(template.p);
    return 0;
}
