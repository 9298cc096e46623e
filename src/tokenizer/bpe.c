/*
 * bpe.c - byte pair encoding of one word: the pair of lowest rank goes first, the leftmost among equals.
 *
 * Short words: ranks of all pairs in an array, searched again after each merge.  Long words (a text
 * without word boundaries is one): a heap of pairs over a linked list of symbols, n log n whatever the text.
 */
#define XXH_INLINE_ALL
#include "bpe.h"
#include "base/utf8.h"
#include <stdio.h>
#include <xxhash.h>

enum {
    SHORT_MAX = 32, /* symbols; above it the heap is faster */
    CACHE_KEY_NBYTES = 27,
    CACHE_IDS_MAX = 7,
    CACHE_ENTRIES_MIN = 64,
    CACHE_ENTRIES_MAX = 1 << 14,
};

/* One cache line. Words of up to 27 bytes and 7 ids: nearly all; a collision overwrites. */
struct mb_word_entry {
    uint32_t hash;
    uint8_t nbytes; /* 0: empty */
    uint8_t n_ids;
    char word[CACHE_KEY_NBYTES + 3]; /* + 3: the ids begin at a multiple of 4 */
    int32_t ids[CACHE_IDS_MAX];
};
_Static_assert(sizeof(struct mb_word_entry) == 64, "an entry is a cache line");

struct symbol {
    int32_t id;
    int32_t prev, next; /* -1: none */
    bool is_dead;
};

struct candidate {
    uint64_t order; /* rank, then position: the lowest goes first */
    int32_t id;     /* what the pair becomes */
};

struct mb_long_word {
    struct symbol *symbols;
    struct candidate *heap;
    size_t symbols_cap, heap_cap, n_heap;
};

/* ---------------------------------------------------------------- tables */

size_t mb_byte_char(uint8_t byte, char out[4])
{
    bool is_visible = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
    if (is_visible)
        return mb_utf8_put(out, byte);
    /* The others are numbered from U+0100, in order: 0-32, 127-160, 173. */
    unsigned n = byte <= ' ' ? byte : byte <= 0xa0 ? 33u + byte - 127u : 67u;
    return mb_utf8_put(out, 256 + n);
}

int mb_char_byte(uint32_t code)
{
    if ((code >= '!' && code <= '~') || (code >= 0xa1 && code <= 0xff && code != 0xad))
        return (int)code;
    if (code < 256 || code > 256 + 67)
        return -1;
    unsigned n = code - 256;
    return (int)(n <= 32 ? n : n <= 66 ? n + 127 - 33 : 0xad);
}

bool mb_bpe_init_merges(struct mb_bpe *bpe, size_t n)
{
    unsigned bits = 6;
    while (((size_t)1 << bits) < n + n / 2)
        bits++;
    size_t n_slots = (size_t)1 << bits;
    bpe->merges = malloc(n_slots * sizeof *bpe->merges);
    if (bpe->merges == NULL)
        return false;
    for (size_t i = 0; i < n_slots; i++)
        bpe->merges[i].pair = MB_NO_PAIR;
    bpe->slot_shift = 64 - bits;
    bpe->multiplier = mb_random_seed() | 1;
    return true;
}

static inline uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The pair's slot, or the empty one where it would go. */
static inline struct mb_merge *find_merge(const struct mb_bpe *bpe, uint64_t pair)
{
    size_t mask = ((size_t)1 << (64 - bpe->slot_shift)) - 1;
    size_t i = (size_t)(pair * bpe->multiplier >> bpe->slot_shift);
    while (bpe->merges[i].pair != pair && bpe->merges[i].pair != MB_NO_PAIR)
        i = (i + 1) & mask;
    return &bpe->merges[i];
}

bool mb_bpe_add_merge(struct mb_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    uint64_t pair = pair_of(left, right);
    struct mb_merge *merge = find_merge(bpe, pair);
    if (merge->pair == pair)
        return false;
    *merge = (struct mb_merge){.pair = pair, .rank = rank, .id = id};
    return true;
}

void mb_bpe_index_bytes(struct mb_bpe *bpe)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        size_t n = mb_byte_char((uint8_t)byte, text);
        bpe->byte_ids[byte] = mb_vocab_find(&bpe->vocab, text, n);
        snprintf(text, sizeof text, "<0x%02X>", byte);
        bpe->fallback_ids[byte] = mb_vocab_find(&bpe->vocab, text, 6);
    }
}

void mb_bpe_free(struct mb_bpe *bpe)
{
    mb_vocab_free(&bpe->vocab);
    free(bpe->merges);
}

/* ---------------------------------------------------------------- a call's work */

bool mb_bpe_work_init(struct mb_bpe_work *work, const struct mb_bpe *bpe, size_t text_nbytes)
{
    size_t n = CACHE_ENTRIES_MIN;
    while (n < CACHE_ENTRIES_MAX && n < text_nbytes / 8)
        n *= 2;
    *work = (struct mb_bpe_work){.bpe = bpe, .n_cache = n};
    work->cache = aligned_alloc(64, n * sizeof *work->cache);
    if (work->cache == NULL)
        return false;
    memset(work->cache, 0, n * sizeof *work->cache);
    return true;
}

void mb_bpe_work_free(struct mb_bpe_work *work)
{
    if (work->long_word != NULL) {
        free(work->long_word->symbols);
        free(work->long_word->heap);
    }
    free(work->long_word);
    free(work->cache);
    free(work->symbols.p);
    free(work->mapped.p);
    free(work->ids.p);
}

/* ---------------------------------------------------------------- symbols of a word */

/* The <0xNN> tokens of an unknown character; false when one is missing, and nothing was appended. */
static bool fall_back(const struct mb_bpe *bpe, const char *text, size_t n, int32_t ids[4])
{
    for (size_t i = 0; i < n; i++) {
        ids[i] = bpe->fallback_ids[(uint8_t)text[i]];
        if (ids[i] < 0)
            return false;
    }
    return true;
}

/*
 * Appends the symbol of one character.  *n_unk counts unknown characters that wait: they become one
 * unknown token each (or one for all with fuse_unk) before the next known character.
 */
static bool put_symbol(struct mb_bpe_work *work, int32_t id, const char *text, size_t n, size_t *n_unk)
{
    const struct mb_bpe *bpe = work->bpe;
    if (id < 0) {
        int32_t bytes[4];
        if (bpe->byte_fallback && fall_back(bpe, text, n, bytes))
            return mb_ids_put(&work->symbols, bytes, n);
        if (bpe->unk_id < 0)
            return true;
        if (*n_unk > 0 && bpe->fuse_unk)
            return true;
        if (*n_unk > 0)
            return mb_ids_put(&work->symbols, &bpe->unk_id, 1);
        *n_unk = 1;
        return true;
    }
    if (*n_unk > 0 && !mb_ids_put(&work->symbols, &bpe->unk_id, 1))
        return false;
    *n_unk = 0;
    return mb_ids_put(&work->symbols, &id, 1);
}

/* A token of the model; added ones are no pieces of words. -1: none. */
static int32_t find_piece(const struct mb_bpe *bpe, const char *text, size_t n)
{
    int32_t id = mb_vocab_find(&bpe->vocab, text, n);
    return id >= 0 && bpe->vocab.tokens[id].is_model ? id : -1;
}

static bool split_word(struct mb_bpe_work *work, const char *word, size_t nbytes)
{
    const struct mb_bpe *bpe = work->bpe;
    size_t n_unk = 0, step;
    work->symbols.n = 0;
    for (size_t i = 0; i < nbytes; i += step) {
        char mapped[4];
        const char *text = word + i;
        size_t n = step = mb_utf8_nbytes(word[i]);
        int32_t id;
        if (bpe->is_byte_level) {
            step = 1;
            n = mb_byte_char((uint8_t)word[i], mapped);
            text = mapped;
            id = bpe->byte_ids[(uint8_t)word[i]];
        } else {
            id = find_piece(bpe, text, n);
        }
        if (!put_symbol(work, id, text, n, &n_unk))
            return false;
    }
    return n_unk == 0 || mb_ids_put(&work->symbols, &bpe->unk_id, 1);
}

enum { NO_TOKEN = -1, NO_MEMORY = -2 };

/* The token that the whole word is, or one of the two above. */
static int32_t whole_word(struct mb_bpe_work *work, const char *word, size_t nbytes)
{
    const struct mb_bpe *bpe = work->bpe;
    if (!bpe->is_byte_level)
        return find_piece(bpe, word, nbytes);
    if (nbytes > MB_TOKEN_NBYTES_MAX)
        return NO_TOKEN;
    work->mapped.n = 0;
    if (!mb_bytes_reserve(&work->mapped, nbytes * 2 + 4))
        return NO_MEMORY;
    for (size_t i = 0; i < nbytes; i++)
        work->mapped.n += mb_byte_char((uint8_t)word[i], work->mapped.p + work->mapped.n);
    return find_piece(bpe, work->mapped.p, work->mapped.n);
}

/* ---------------------------------------------------------------- short words */

static inline uint64_t rank_and_id(const struct mb_bpe *bpe, int32_t left, int32_t right)
{
    const struct mb_merge *merge = find_merge(bpe, pair_of(left, right));
    return merge->pair == MB_NO_PAIR ? UINT64_MAX : (uint64_t)merge->rank << 32 | (uint32_t)merge->id;
}

/* Merges ids[0 .. n) in place; returns how many remain. */
static size_t merge_short(const struct mb_bpe *bpe, int32_t *ids, size_t n)
{
    uint64_t pairs[SHORT_MAX]; /* pairs[i]: ids i and i + 1 */
    for (size_t i = 0; i + 1 < n; i++)
        pairs[i] = rank_and_id(bpe, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            best = pairs[i] < pairs[best] ? i : best;
        if (pairs[best] == UINT64_MAX)
            break;
        ids[best] = (int32_t)(uint32_t)pairs[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            pairs[i - 1] = pairs[i];
        }
        if (best > 0)
            pairs[best - 1] = rank_and_id(bpe, ids[best - 1], ids[best]);
        if (best + 1 < n)
            pairs[best] = rank_and_id(bpe, ids[best], ids[best + 1]);
    }
    return n;
}

/* ---------------------------------------------------------------- long words */

static void heap_push(struct mb_long_word *word, struct candidate item)
{
    size_t i = word->n_heap++;
    while (i > 0 && word->heap[(i - 1) / 2].order > item.order) {
        word->heap[i] = word->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    word->heap[i] = item;
}

static struct candidate heap_pop(struct mb_long_word *word)
{
    struct candidate top = word->heap[0], item = word->heap[--word->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= word->n_heap)
            break;
        if (child + 1 < word->n_heap && word->heap[child + 1].order < word->heap[child].order)
            child++;
        if (word->heap[child].order >= item.order)
            break;
        word->heap[i] = word->heap[child];
        i = child;
    }
    word->heap[i] = item;
    return top;
}

static void push_pair(const struct mb_bpe *bpe, struct mb_long_word *word, int32_t pos)
{
    const struct symbol *left = &word->symbols[pos];
    if (left->next < 0)
        return;
    const struct mb_merge *merge = find_merge(bpe, pair_of(left->id, word->symbols[left->next].id));
    if (merge->pair != MB_NO_PAIR)
        heap_push(word,
                  (struct candidate){.order = (uint64_t)merge->rank << 32 | (uint32_t)pos, .id = merge->id});
}

/* Arrays for n symbols: at first n - 1 candidates, and every merge takes one away and adds at most two. */
static struct mb_long_word *long_word_for(struct mb_bpe_work *work, size_t n)
{
    if (work->long_word == NULL && (work->long_word = calloc(1, sizeof *work->long_word)) == NULL)
        return NULL;
    struct mb_long_word *word = work->long_word;
    void *symbols = word->symbols, *heap = word->heap;
    bool ok = mb_grow(&symbols, &word->symbols_cap, 0, n, sizeof *word->symbols);
    ok = mb_grow(&heap, &word->heap_cap, 0, 2 * n, sizeof *word->heap) && ok;
    word->symbols = symbols;
    word->heap = heap;
    return ok ? word : NULL;
}

static void merge_at(const struct mb_bpe *bpe, struct mb_long_word *word, int32_t pos, int32_t id)
{
    struct symbol *left = &word->symbols[pos], *right = &word->symbols[left->next];
    left->id = id;
    left->next = right->next;
    right->is_dead = true;
    if (left->next >= 0)
        word->symbols[left->next].prev = pos;
    if (left->prev >= 0)
        push_pair(bpe, word, left->prev);
    push_pair(bpe, word, pos);
}

/* Merges work->symbols in place. */
static bool merge_long(struct mb_bpe_work *work)
{
    size_t n = work->symbols.n;
    const struct mb_bpe *bpe = work->bpe;
    struct mb_long_word *word = long_word_for(work, n);
    if (word == NULL)
        return false;
    word->n_heap = 0;
    for (size_t i = 0; i < n; i++)
        word->symbols[i] = (struct symbol){
            .id = work->symbols.p[i], .prev = (int32_t)i - 1, .next = i + 1 < n ? (int32_t)i + 1 : -1};
    for (size_t i = 0; i < n; i++)
        push_pair(bpe, word, (int32_t)i);
    while (word->n_heap > 0) {
        struct candidate top = heap_pop(word);
        int32_t pos = (int32_t)(uint32_t)top.order;
        const struct symbol *left = &word->symbols[pos];
        if (left->is_dead || left->next < 0)
            continue;
        /* One of the two may have been merged since: then the new pair has a candidate of its own. */
        const struct mb_merge *now = find_merge(bpe, pair_of(left->id, word->symbols[left->next].id));
        if (now->pair != MB_NO_PAIR && now->id == top.id)
            merge_at(bpe, word, pos, top.id);
    }
    size_t n_left = 0;
    for (int32_t i = n == 0 ? -1 : 0; i >= 0; i = word->symbols[i].next)
        work->symbols.p[n_left++] = word->symbols[i].id;
    work->symbols.n = n_left;
    return true;
}

/* ---------------------------------------------------------------- words */

static bool encode_word(struct mb_bpe_work *work, const char *word, size_t nbytes)
{
    const struct mb_bpe *bpe = work->bpe;
    int32_t whole = bpe->ignore_merges ? whole_word(work, word, nbytes) : NO_TOKEN;
    if (whole == NO_MEMORY)
        return false;
    if (whole != NO_TOKEN) {
        work->symbols.n = 0;
        return mb_ids_put(&work->symbols, &whole, 1);
    }
    if (!split_word(work, word, nbytes))
        return false;
    if (work->symbols.n > SHORT_MAX)
        return merge_long(work);
    work->symbols.n = merge_short(bpe, work->symbols.p, work->symbols.n);
    return true;
}

bool mb_bpe_word(struct mb_bpe_work *work, const char *word, size_t nbytes)
{
    struct mb_word_entry *entry = NULL;
    uint32_t hash = 0;
    if (nbytes <= CACHE_KEY_NBYTES) {
        hash = (uint32_t)XXH3_64bits_withSeed(word, nbytes, work->bpe->vocab.seed);
        entry = &work->cache[hash & (work->n_cache - 1)];
        if (entry->hash == hash && entry->nbytes == nbytes && memcmp(entry->word, word, nbytes) == 0)
            return mb_ids_put(&work->ids, entry->ids, entry->n_ids);
    }
    if (!encode_word(work, word, nbytes))
        return false;
    if (entry != NULL && work->symbols.n <= CACHE_IDS_MAX) {
        entry->hash = hash;
        entry->nbytes = (uint8_t)nbytes;
        entry->n_ids = (uint8_t)work->symbols.n;
        memcpy(entry->word, word, nbytes);
        if (work->symbols.n > 0)
            memcpy(entry->ids, work->symbols.p, work->symbols.n * sizeof *entry->ids);
    }
    return mb_ids_put(&work->ids, work->symbols.p, work->symbols.n);
}
