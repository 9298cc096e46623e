/*
 * fuzz_chat_json.c - messages, tools and template variables as JSON texts, which end with zero bytes, for a
 * template that goes through all of them.
 */
#include "base/utf8.h"
#include "fuzz.h"
#include <moebius/tokenizer.h>
#include <stdlib.h>
#include <string.h>

static const char TEMPLATE[] =
    "{% for m in messages %}{{ m.role }}{{ m.content }}{{ m.thinking }}{{ m.reasoning_content }}"
    "{% for c in m.tool_calls %}{{ c | tojson }}{% endfor %}{% endfor %}{{ messages | tojson(indent=1) }}"
    "{{ tools | tojson }}{{ x }}{{ enable_thinking }}{{ bos_token }}";

/* The next text of the input, terminated. */
static char *take_text(struct fuzz_input *input)
{
    struct fuzz_input part = fuzz_until(input, 0);
    char *text = malloc(part.n + 1);
    REQUIRE(text != NULL);
    if (part.n > 0)
        memcpy(text, part.p, part.n);
    text[part.n] = '\0';
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mb_tokenizer *tokenizer;
    struct mb_error err = {0};
    struct fuzz_input input = {data, size};
    if (tokenizer == NULL)
        REQUIRE(mb_tokenizer_open(MB_REPO "/models/reference", &tokenizer, &err) == MB_OK);
    char *messages = take_text(&input), *tools = take_text(&input), *variables = take_text(&input),
         *text = NULL;
    const struct mb_chat_options options = {.size = sizeof options,
                                            .template_text = TEMPLATE,
                                            .place = "template",
                                            .messages = messages,
                                            .tools = tools[0] == '\0' ? NULL : tools,
                                            .variables = variables[0] == '\0' ? NULL : variables};
    enum mb_status status = mb_tokenizer_chat_text(tokenizer, NULL, 0, &options, &text, &err);
    if (status == MB_OK)
        REQUIRE(mb_utf8_valid_prefix(text, strlen(text)) == strlen(text));
    else
        REQUIRE((status == MB_USAGE || status == MB_BAD_DATA || status == MB_UNSUPPORTED) &&
                err.msg[0] != '\0');
    free(text);
    free(messages);
    free(tools);
    free(variables);
    return 0;
}
