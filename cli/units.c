/*
 * units.c - numbers with units as options take them.
 */
#include "units.h"
#include "base/error.h"
#include "base/number.h"
#include <string.h>
#include <strings.h>

struct unit {
    const char *name;
    double value;
};

static bool read_number(const char *text, size_t n, const struct unit *units, size_t n_units, uint64_t *value)
{
    double number;
    size_t n_digits = strspn(text, "0123456789."), at = n_digits + strspn(text + n_digits, " ");
    if (at > n || !mb_number_parse(text, n_digits, &number))
        return false;
    size_t i = 0;
    while (i < n_units &&
           (strlen(units[i].name) != n - at || strncasecmp(text + at, units[i].name, n - at) != 0))
        i++;
    if (i == n_units || !(number * units[i].value < 0x1p60))
        return false;
    *value = (uint64_t)(number * units[i].value);
    return true;
}

bool cli_unit_bytes(const char *text, size_t n, uint64_t *nbytes)
{
    static const struct unit units[] = {
        {"", 1},       {"B", 1},        {"K", 0x1p10},   {"M", 0x1p20},   {"G", 0x1p30},
        {"T", 0x1p40}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
        {"KB", 1e3},   {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},
    };
    return read_number(text, n, units, sizeof units / sizeof *units, nbytes);
}

bool cli_unit_ns(const char *text, size_t n, uint64_t *ns)
{
    static const struct unit units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
    return read_number(text, n, units, sizeof units / sizeof *units, ns);
}

const char *cli_next_word(const char **list, size_t *n)
{
    const char *word = *list;
    *n = 0;
    if (word == NULL)
        return NULL;
    *n = strcspn(word, ",");
    *list = word[*n] == ',' ? word + *n + 1 : NULL;
    return word;
}

static bool read_link(const char *text, struct mb_link_options *link)
{
    const char *rest = text, *word;
    size_t n = 0;
    double depth;
    *link = (struct mb_link_options){.size = sizeof *link};
    word = cli_next_word(&rest, &n);
    if (!cli_unit_bytes(word, n, &link->bytes_per_s) || link->bytes_per_s == 0)
        return false;
    if ((word = cli_next_word(&rest, &n)) != NULL && !cli_unit_ns(word, n, &link->latency_ns))
        return false;
    if ((word = cli_next_word(&rest, &n)) == NULL)
        return true;
    if (!mb_number_parse(word, n, &depth) || !(depth >= 1 && depth <= MB_LINK_DEPTH_MAX))
        return false;
    link->depth = (unsigned)depth;
    return rest == NULL;
}

enum mb_status cli_link(const char *text, struct mb_link_options *link, struct mb_error *err)
{
    if (read_link(text, link))
        return MB_OK;
    return mb_fail(err, MB_USAGE,
                   "--link '%.60s': bytes a second, a latency and reads in flight (at most %d), such as "
                   "3GB,80us,8",
                   text, MB_LINK_DEPTH_MAX);
}
