/*
 * added.c - a byte trie of added tokens.
 */
#include "added.h"
#include "base/utf8.h"
#include "unicode_tables.h"
#include <utf8proc.h>

static uint32_t find_child(const struct mb_added *added, uint32_t node, uint8_t byte)
{
    uint32_t child = added->nodes[node].child;
    while (child != 0 && added->nodes[child].byte != byte)
        child = added->nodes[child].sibling;
    return child;
}

static uint32_t add_node(struct mb_added *added, uint32_t parent, uint8_t byte)
{
    void *nodes = added->nodes;
    bool ok = added->n_nodes < UINT32_MAX &&
              mb_grow(&nodes, &added->nodes_cap, added->n_nodes, 1, sizeof *added->nodes);
    added->nodes = nodes;
    if (!ok)
        return 0;
    uint32_t node = (uint32_t)added->n_nodes++;
    added->nodes[node] = (struct mb_trie_node){.token = -1, .byte = byte};
    if (node != parent) { /* not the root */
        added->nodes[node].sibling = added->nodes[parent].child;
        added->nodes[parent].child = node;
    }
    return node;
}

bool mb_added_put(struct mb_added *added, const char *content, size_t nbytes, struct mb_added_token token)
{
    if (added->n_nodes == 0) {
        add_node(added, 0, 0);
        if (added->n_nodes == 0)
            return false;
    }
    uint32_t node = 0;
    for (size_t i = 0; i < nbytes; i++) {
        uint32_t child = find_child(added, node, (uint8_t)content[i]);
        if (child == 0)
            child = add_node(added, node, (uint8_t)content[i]);
        if (child == 0)
            return false;
        if (i == 0)
            added->first[(uint8_t)content[0]] = child;
        node = child;
    }
    if (added->nodes[node].token >= 0)
        return true;
    void *tokens = added->tokens;
    bool ok = mb_grow(&tokens, &added->tokens_cap, added->n_tokens, 1, sizeof *added->tokens);
    added->tokens = tokens;
    if (!ok)
        return false;
    added->nodes[node].token = (int32_t)added->n_tokens;
    added->tokens[added->n_tokens++] = token;
    return true;
}

void mb_added_free(struct mb_added *added)
{
    free(added->tokens);
    free(added->nodes);
    *added = (struct mb_added){0};
}

/* The longest token at text[0 ..): its index (and bytes), or -1. */
static int32_t longest_at(const struct mb_added *added, const char *text, size_t n, size_t *nbytes)
{
    int32_t best = -1;
    uint32_t node = added->first[(uint8_t)text[0]];
    for (size_t i = 1; node != 0; i++) {
        if (added->nodes[node].token >= 0) {
            best = added->nodes[node].token;
            *nbytes = i;
        }
        node = i < n ? find_child(added, node, (uint8_t)text[i]) : 0;
    }
    return best;
}

static bool is_later_word(uint32_t code)
{
    for (size_t i = 0; i < sizeof mb_later_categories / sizeof *mb_later_categories; i++) {
        const struct mb_code_range *range = &mb_later_categories[i];
        if (code >= range->first && code <= range->last)
            return range->tag[0] == 'L' || range->tag[0] == 'M' || strcmp(range->tag, "Nd") == 0;
    }
    return false;
}

/* \w of the regex crate: Alphabetic, M, Nd, Pc, Join_Control. */
static bool is_word(uint32_t code)
{
    if (code == 0x200c || code == 0x200d)
        return true;
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    case UTF8PROC_CATEGORY_CN:
        return is_later_word(code);
    default: /* the letters that are symbols: circled, squared and the like (Other_Alphabetic) */
        return (code >= 0x24b6 && code <= 0x24e9) || (code >= 0x1f130 && code <= 0x1f149) ||
               (code >= 0x1f150 && code <= 0x1f169) || (code >= 0x1f170 && code <= 0x1f189);
    }
}

/* Where the character before text[pos] begins; pos > 0. */
static size_t step_back(const char *text, size_t pos)
{
    do
        pos--;
    while (((uint8_t)text[pos] & 0xc0) == 0x80);
    return pos;
}

static bool is_lone_word(const char *text, size_t n, size_t begin, size_t end)
{
    if (begin > 0 && is_word(mb_utf8_get(text + step_back(text, begin))))
        return false;
    return end == n || !is_word(mb_utf8_get(text + end));
}

static void take_white_space(const struct mb_added_token *token, const char *text, size_t n, size_t floor,
                             struct mb_added_match *match)
{
    size_t begin = match->begin, end = match->end;
    while (token->lstrip && begin > 0 && mb_is_white_space(mb_utf8_get(text + step_back(text, begin))))
        begin = step_back(text, begin);
    while (token->rstrip && end < n && mb_is_white_space(mb_utf8_get(text + end)))
        end += mb_utf8_nbytes(text[end]);
    if (token->lstrip)
        match->begin = begin > floor ? begin : floor;
    match->end = end;
}

bool mb_added_next(const struct mb_added *added, const char *text, size_t n, size_t *pos, size_t floor,
                   struct mb_added_match *match)
{
    if (added->n_tokens == 0)
        return false;
    for (size_t i = *pos; i < n; i++) {
        size_t nbytes = 0;
        int32_t index =
            added->first[(uint8_t)text[i]] == 0 ? -1 : longest_at(added, text + i, n - i, &nbytes);
        if (index < 0)
            continue;
        const struct mb_added_token *token = &added->tokens[index];
        *pos = i + nbytes;
        if (token->single_word && !is_lone_word(text, n, i, i + nbytes)) {
            i += nbytes - 1; /* what it covers is passed over, as after a match */
            continue;
        }
        *match = (struct mb_added_match){.begin = i, .end = i + nbytes, .id = token->id};
        take_white_space(token, text, n, floor, match);
        return true;
    }
    return false;
}
