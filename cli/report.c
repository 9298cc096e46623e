/*
 * report.c - parts of a model by tensor names, counts in words, JSON on stdout.
 */
#include "report.h"
#include "cli.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* The number behind 'word' in a name, with a dot behind it; -1: none. */
static int number_behind(const char *name, const char *word)
{
    const char *at = strstr(name, word);
    if (at == NULL)
        return -1;
    at += strlen(word);
    size_t n_digits = strspn(at, "0123456789");
    return n_digits > 0 && n_digits < 9 && at[n_digits] == '.' ? atoi(at) : -1;
}

static bool is_router(const char *name)
{
    return ends_with(name, ".gate.weight") || ends_with(name, ".router.weight") ||
           ends_with(name, ".e_score_correction_bias") || ends_with(name, ".shared_expert_gate.weight");
}

/* The first rule that fits; a coded blob's name ends where its matrices' names begin. */
static enum cli_part part_of(const char *name, int expert)
{
    if (expert >= 0)
        return CLI_PART_EXPERTS;
    if (is_router(name))
        return CLI_PART_ROUTER;
    if (strstr(name, ".shared_experts.") != NULL || strstr(name, ".shared_expert.") != NULL)
        return CLI_PART_SHARED;
    if (strstr(name, "embed_tokens.") != NULL)
        return CLI_PART_EMBEDDING;
    if (ends_with(name, "_proj.weight") || ends_with(name, "_proj_with_mqa.weight") ||
        strcmp(name, "lm_head.weight") == 0)
        return CLI_PART_LINEAR;
    return CLI_PART_OTHER;
}

struct cli_place cli_place_of(const char *tensor_name)
{
    int expert = number_behind(tensor_name, ".experts.");
    return (struct cli_place){part_of(tensor_name, expert), number_behind(tensor_name, "layers."), expert};
}

const char *cli_part_name(enum cli_part part)
{
    static const char *const names[CLI_N_PARTS] = {"experts",   "shared experts", "other linear",
                                                   "embedding", "router",         "norms and other"};
    return names[part];
}

const char *cli_count(char text[32], uint64_t n)
{
    static const char *const units[] = {"", " k", " M", " G", " T"};
    double value = (double)n;
    size_t unit = 0;
    for (; value >= 999.95 && unit < 4; unit++)
        value /= 1000;
    snprintf(text, 32, unit == 0 ? "%.0f%s" : "%.1f%s", value, units[unit]);
    return text;
}

int cli_print_json(json_t *object)
{
    char *text = object == NULL ? NULL : json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
    json_decref(object);
    if (text == NULL) {
        fputs("moebius: no memory for the report\n", stderr);
        return 4;
    }
    puts(text);
    free(text);
    return 0;
}

json_t *cli_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *cli_json_path(const char *path)
{
    static const char replacement[] = "\xef\xbf\xbd";
    json_t *json = json_string(path);
    char *text = json == NULL ? calloc(3, strlen(path) + 1) : NULL, *to = text;
    if (text == NULL)
        return json;
    for (const char *from = path; *from != '\0'; from++) {
        size_t n = (unsigned char)*from < 0x80 ? 1 : 3;
        memcpy(to, n == 1 ? from : replacement, n);
        to += n;
    }
    json = json_string(text);
    free(text);
    return json;
}

double cli_ratio(double over, double under)
{
    return under == 0 ? 0 : over / under;
}
