/*
 * list.c - the one list of families.
 */
#include "family.h"
#include <stdio.h>
#include <string.h>

/* mb_family_NAME is in NAME.c. */
/* clang-format never comes to an end with this list. */
/* clang-format off */
#define FAMILIES(X) \
    X(deepseek_v2) \
    X(deepseek_v3) \
    X(dots1) \
    X(ernie4_5_moe) \
    X(glm4_moe) \
    X(glm4_moe_lite) \
    X(granitemoe) \
    X(granitemoeshared) \
    X(minimax_m2) \
    X(mixtral) \
    X(olmoe) \
    X(phimoe) \
    X(qwen2_moe) \
    X(qwen3_moe)
/* clang-format on */

#define DECLARE(name) extern const struct mb_family mb_family_##name;
FAMILIES(DECLARE)

#define ADDRESS(name) &mb_family_##name,
static const struct mb_family *const families[] = {FAMILIES(ADDRESS) NULL};

static const char *spelled(const struct mb_family *family, const char *architecture)
{
    for (size_t i = 0; i < MB_ARCHITECTURES_MAX && family->architectures[i] != NULL; i++)
        if (strcmp(family->architectures[i], architecture) == 0)
            return family->architectures[i];
    return NULL;
}

const struct mb_family *mb_family_find(const char *architecture, const char *model_type,
                                       const char **as_spelled)
{
    for (size_t i = 0; families[i] != NULL; i++) {
        if (architecture != NULL)
            *as_spelled = spelled(families[i], architecture);
        else if (model_type != NULL && strcmp(families[i]->model_type, model_type) == 0)
            *as_spelled = families[i]->architectures[0];
        else
            *as_spelled = NULL;
        if (*as_spelled != NULL)
            return families[i];
    }
    return NULL;
}

void mb_family_list(char *text, size_t nbytes)
{
    size_t n = 0;
    text[0] = 0;
    for (size_t i = 0; families[i] != NULL; i++)
        for (size_t k = 0; k < MB_ARCHITECTURES_MAX && families[i]->architectures[k] != NULL && n < nbytes;
             k++)
            n += (size_t)snprintf(text + n, nbytes - n, "%s%s", n == 0 ? "" : ", ",
                                  families[i]->architectures[k]);
}
