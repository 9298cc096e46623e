/*
 * report.c - parts of a model and counts in words, JSON on stdout.
 */
#include "report.h"
#include "base/utf8.h"
#include "cli.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *cli_role_name(enum mb_role role)
{
    static const char *const names[MB_N_ROLES] = {"experts",   "shared experts", "other linear",
                                                  "embedding", "router",         "norms and other"};
    return names[role];
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
    struct mb_bytes text = {0};
    json_t *json = mb_utf8_replace(&text, path, strlen(path))
                       ? json_stringn(text.p == NULL ? "" : text.p, text.n)
                       : NULL;
    free(text.p);
    return json;
}

double cli_ratio(double over, double under)
{
    return under == 0 ? 0 : over / under;
}

void cli_print_notes(const char *notes)
{
    while (*notes != '\0') {
        size_t n = strcspn(notes, "\n");
        fprintf(stderr, "note: %.*s\n", (int)n, notes);
        notes += n + (notes[n] == '\n');
    }
}
