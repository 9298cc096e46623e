/*
 * perturbation.c - the words for errors.
 */
#include "base/error.h"
#include <moebius/perturb.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    bool has_bound, is_random;
} kinds[] = {
    [MB_PERTURB_NONE] = {"none", false, false},     [MB_PERTURB_NORMAL] = {"normal", true, true},
    [MB_PERTURB_UNIFORM] = {"uniform", true, true}, [MB_PERTURB_CODEC] = {"codec", true, false},
    [MB_PERTURB_RANDOM] = {"random", false, true},  [MB_PERTURB_ZERO] = {"zero", false, false},
    [MB_PERTURB_DROP] = {"drop", false, false},     [MB_PERTURB_GAUSS_ISO] = {"gauss-iso", true, true},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

bool mb_perturbation_has_bound(enum mb_perturbation_kind kind)
{
    return kinds[kind].has_bound;
}

bool mb_perturbation_is_random(enum mb_perturbation_kind kind)
{
    return kinds[kind].is_random;
}

static const char *skip_blanks(const char *text)
{
    return text + strspn(text, " \t");
}

/* "codec:NAME" */
static enum mb_status parse_codec(const char *word, size_t n, struct mb_perturbation *p, struct mb_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name), word);
    p->kind = MB_PERTURB_CODEC;
    MB_TRY(mb_codec_find(name, &p->codec, err));
    MB_TRY(mb_codec_check(p->codec, err));
    if (strcmp(name, "ours") == 0)
        p->codec = NULL;
    return MB_OK;
}

static enum mb_status parse_kind(const char *word, size_t n, struct mb_perturbation *p, struct mb_error *err)
{
    static const char other[] = "codec:";
    size_t n_other = sizeof other - 1;
    if (n > n_other && memcmp(word, other, n_other) == 0)
        return parse_codec(word + n_other, n - n_other, p, err);
    for (size_t i = 0; i < N_KINDS; i++) {
        if (strlen(kinds[i].name) != n || memcmp(kinds[i].name, word, n) != 0)
            continue;
        p->kind = (enum mb_perturbation_kind)i;
        return MB_OK;
    }
    return mb_fail(err, MB_USAGE,
                   "error '%.60s': no such error; there are normal, uniform, codec, codec:NAME and gauss-iso "
                   "with a bound, and random, zero, drop and none",
                   word);
}

static bool takes_bound(const struct mb_perturbation *p)
{
    if (p->codec != NULL)
        return p->codec->takes == MB_CODEC_TAKES_BOUND || p->codec->takes == MB_CODEC_TAKES_RANGE;
    return kinds[p->kind].has_bound;
}

enum mb_status mb_perturbation_parse(const char *text, struct mb_perturbation *perturbation,
                                     struct mb_error *err)
{
    char bound[64];
    *perturbation = (struct mb_perturbation){.kind = MB_PERTURB_NONE};
    const char *word = skip_blanks(text);
    size_t n = strcspn(word, " \t");
    MB_TRY(parse_kind(word, n, perturbation, err));
    const char *rest = skip_blanks(word + n);
    size_t n_rest = strcspn(rest, " \t");
    int n_shown = (int)(n < 60 ? n : 60);
    if (*skip_blanks(rest + n_rest) != 0 || n_rest >= sizeof bound)
        return mb_fail(err, MB_USAGE, "error '%.60s': more than an error and its bound", text);
    if (!takes_bound(perturbation))
        return n_rest == 0 ? MB_OK
                           : mb_fail(err, MB_USAGE, "error '%.60s': %.*s has no bound", text, n_shown, word);
    if (n_rest == 0)
        return mb_fail(err, MB_USAGE, "error '%.60s': needs a bound, as in '%.*s 30%%'", text, n_shown, word);
    snprintf(bound, sizeof bound, "%.*s", (int)n_rest, rest);
    MB_TRY(mb_bound_parse(bound, &perturbation->bound, err));
    return perturbation->bound.kind != MB_BOUND_EXACT
               ? MB_OK
               : mb_fail(err, MB_USAGE, "error '%.60s': a bound of 0 is no error; write none", text);
}
