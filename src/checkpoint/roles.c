/*
 * roles.c - what a tensor is, by its name: the one place that knows how models name their parts.
 */
#include "roles.h"
#include <stdlib.h>
#include <string.h>

bool mb_name_ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), n_end = strlen(end);
    return n >= n_end && strcmp(name + n - n_end, end) == 0;
}

/* What follows the first 'word' in a name; NULL: it is not there. */
static const char *after_word(const char *name, const char *word)
{
    const char *at = strstr(name, word);
    return at == NULL ? NULL : at + strlen(word);
}

/* ---------------------------------------------------------------- experts */

static const char ROUTED[] = ".experts.", SHARED[] = ".shared_experts.", SHARED_ONE[] = ".shared_expert.";

static enum mb_projection projection_named(const char *matrix)
{
    static const struct {
        const char *name;
        enum mb_projection projection;
    } matrices[] = {
        {"gate_proj.weight", MB_PROJECTION_GATE}, {"w1.weight", MB_PROJECTION_GATE}, /* w1: Mixtral */
        {"up_proj.weight", MB_PROJECTION_UP},     {"w3.weight", MB_PROJECTION_UP},
        {"down_proj.weight", MB_PROJECTION_DOWN}, {"w2.weight", MB_PROJECTION_DOWN},
    };
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++)
        if (strcmp(matrix, matrices[i].name) == 0)
            return matrices[i].projection;
    return MB_PROJECTION_NONE;
}

static const char *after_shared(const char *name)
{
    const char *at = after_word(name, SHARED);
    return at != NULL ? at : after_word(name, SHARED_ONE);
}

/* "....experts.7.gate_proj.weight", "....shared_experts.up_proj.weight". */
static enum mb_projection projection_of(const char *name)
{
    const char *at = after_word(name, ROUTED);
    if (at == NULL) {
        at = after_shared(name);
        return at == NULL ? MB_PROJECTION_NONE : projection_named(at);
    }
    size_t n_digits = strspn(at, "0123456789");
    return n_digits > 0 && at[n_digits] == '.' ? projection_named(at + n_digits + 1) : MB_PROJECTION_NONE;
}

/* The number that follows 'word' in a name and ends with a dot; -1: there is none, or it is no index. */
static int number_after(const char *name, const char *word)
{
    const char *at = after_word(name, word);
    if (at == NULL)
        return -1;
    size_t n_digits = strspn(at, "0123456789");
    return n_digits > 0 && n_digits < 9 && at[n_digits] == '.' ? atoi(at) : -1;
}

/* ---------------------------------------------------------------- roles */

static bool is_router(const char *name)
{
    return mb_name_ends_with(name, ".gate.weight") || mb_name_ends_with(name, ".router.weight") ||
           mb_name_ends_with(name, ".router.layer.weight") || /* Granite */
           mb_name_ends_with(name, ".e_score_correction_bias") ||
           mb_name_ends_with(name, ".shared_expert_gate.weight");
}

bool mb_is_linear_name(const char *name)
{
    return mb_name_ends_with(name, "_proj.weight") || mb_name_ends_with(name, "kv_a_proj_with_mqa.weight") ||
           strcmp(name, "lm_head.weight") == 0;
}

/* The first rule that fits; a coded blob's name ends where its matrices' names begin. */
static enum mb_role role_of(const char *name, int expert)
{
    if (expert >= 0)
        return MB_ROLE_EXPERT;
    if (is_router(name))
        return MB_ROLE_ROUTER;
    if (after_shared(name) != NULL)
        return MB_ROLE_SHARED_EXPERT;
    if (strstr(name, "embed_tokens.") != NULL)
        return MB_ROLE_EMBEDDING;
    return mb_is_linear_name(name) ? MB_ROLE_LINEAR : MB_ROLE_OTHER;
}

bool mb_may_have_exponents(const char *name)
{
    return mb_name_ends_with(name, ".down_proj.weight") || mb_name_ends_with(name, ".w2.weight");
}

struct mb_tensor_role mb_role_of(const char *name)
{
    int expert = number_after(name, ROUTED);
    return (struct mb_tensor_role){
        .role = role_of(name, expert),
        .layer = number_after(name, "layers."),
        .expert = expert,
        .projection = projection_of(name),
    };
}
