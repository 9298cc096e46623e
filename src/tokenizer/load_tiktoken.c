/*
 * load_tiktoken.c - a folder with tiktoken.model: the tokenizer of Moonlight and Kimi.
 *
 * The file has the tokens, one a line: their bytes in base64, and their rank.  A token's rank is its id, and
 * says how early its bytes are joined.  All else (the pattern that cuts texts, the special tokens) is in the
 * Python class that tokenizer_config.json names, and in that configuration.
 */
#include "base/error.h"
#include "base/file.h"
#include "load.h"
#include <stdio.h>

enum {
    RANKS_NBYTES_MAX = 64 << 20,
    RANK_TOKEN_NBYTES_MAX = 1024, /* the longest known has 128; the time to load grows with its square */
    N_SPECIAL = 256,              /* ids after the ranks */
};

/* ---------------------------------------------------------------- the file of ranks */

struct rank_file {
    const char *path, *text;
    size_t nbytes, i_line; /* from 1 */
    size_t n_tokens;       /* lines that are not empty */
    struct mb_error *err;
};

static enum mb_status fail_line(const struct rank_file *file, const char *what)
{
    return mb_fail(file->err, MB_BAD_DATA, "%s: line %zu: %s", file->path, file->i_line, what);
}

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c == '\0' ? NULL : strchr(digits, c);
    return at == NULL ? -1 : (int)(at - digits);
}

/* The bytes of n characters of base64, at most n / 4 * 3. 0: it is none. */
static size_t decode_base64(const char *text, size_t n, uint8_t *bytes)
{
    size_t n_pad = 0, nbytes = 0;
    if (n == 0 || n % 4 != 0)
        return 0;
    while (n_pad < 2 && text[n - 1 - n_pad] == '=')
        n_pad++;
    for (size_t i = 0; i < n; i += 4) {
        uint32_t group = 0;
        for (size_t k = 0; k < 4; k++) {
            int digit = i + k >= n - n_pad ? 0 : base64_digit(text[i + k]);
            if (digit < 0)
                return 0;
            group = group << 6 | (uint32_t)digit;
        }
        for (size_t k = 0; k < 3; k++)
            bytes[nbytes++] = (uint8_t)(group >> (16 - 8 * k));
    }
    return nbytes - n_pad;
}

/* A rank: digits alone, less than the number of tokens. */
static bool parse_rank(const struct rank_file *file, const char *text, size_t n, size_t *rank)
{
    *rank = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *rank = *rank * 10 + (size_t)(text[i] - '0');
        if (*rank >= file->n_tokens)
            return false;
    }
    return n > 0;
}

static enum mb_status put_rank(const struct rank_file *file, struct mb_vocab *vocab, const uint8_t *bytes,
                               size_t nbytes, size_t rank)
{
    char shown[2 * RANK_TOKEN_NBYTES_MAX + 4];
    size_t n = 0;
    for (size_t i = 0; i < nbytes; i++)
        n += mb_byte_char(bytes[i], shown + n);
    switch (mb_vocab_put(vocab, shown, n, (int32_t)rank)) {
    case MB_VOCAB_PUT:
        vocab->tokens[rank].is_model = true;
        return MB_OK;
    case MB_VOCAB_SAME_CONTENT:
        return fail_line(file, "the same token is on an earlier line");
    case MB_VOCAB_SAME_ID:
        return fail_line(file, "the same rank is on an earlier line");
    default:
        return mb_fail_memory(file->err, "the vocabulary");
    }
}

static enum mb_status load_line(const struct rank_file *file, struct mb_vocab *vocab, const char *line,
                                size_t n)
{
    static const char blanks[] = " \t";
    enum { BASE64_MAX = (RANK_TOKEN_NBYTES_MAX + 2) / 3 * 4 };
    uint8_t bytes[BASE64_MAX];
    size_t n_base64 = 0, rank_begin, n_rank = 0, rank;
    while (n_base64 < n && strchr(blanks, line[n_base64]) == NULL)
        n_base64++;
    rank_begin = n_base64;
    while (rank_begin < n && strchr(blanks, line[rank_begin]) != NULL)
        rank_begin++;
    while (rank_begin + n_rank < n && strchr(blanks, line[rank_begin + n_rank]) == NULL)
        n_rank++;
    if (n_base64 > BASE64_MAX)
        return fail_line(file, "a token of more than 1024 bytes");
    size_t nbytes = decode_base64(line, n_base64, bytes);
    if (nbytes == 0)
        return fail_line(file, "not a token in base64 and its rank");
    if (nbytes > RANK_TOKEN_NBYTES_MAX)
        return fail_line(file, "a token of more than 1024 bytes");
    if (!parse_rank(file, line + rank_begin, n_rank, &rank))
        return mb_fail(
            file->err, MB_BAD_DATA,
            "%s: line %zu: its rank '%.*s' is not a number below %zu, which is how many tokens the "
            "file has",
            file->path, file->i_line, n_rank < 24 ? (int)n_rank : 24, line + rank_begin, file->n_tokens);
    return put_rank(file, vocab, bytes, nbytes, rank);
}

/* The next line at *pos (which moves past it), without its end. */
static const char *next_line(const struct rank_file *file, size_t *pos, size_t *n)
{
    const char *line = file->text + *pos, *end = memchr(line, '\n', file->nbytes - *pos);
    *n = end == NULL ? file->nbytes - *pos : (size_t)(end - line);
    *pos += *n + (end != NULL);
    if (*n > 0 && line[*n - 1] == '\r')
        --*n;
    return line;
}

static size_t count_tokens(const struct rank_file *file)
{
    size_t n_tokens = 0, n;
    for (size_t pos = 0; pos < file->nbytes;) {
        next_line(file, &pos, &n);
        n_tokens += n > 0;
    }
    return n_tokens;
}

static enum mb_status load_lines(struct rank_file *file, struct mb_vocab *vocab)
{
    size_t n;
    file->n_tokens = count_tokens(file);
    if (file->n_tokens == 0 || memchr(file->text, '\0', file->nbytes) != NULL)
        return mb_fail(file->err, MB_BAD_DATA, "%s: %s", file->path,
                       file->n_tokens == 0 ? "has no tokens" : "holds a zero byte");
    if (file->n_tokens > MB_VOCAB_ID_MAX - N_SPECIAL)
        return mb_fail(file->err, MB_BAD_DATA, "%s: %zu tokens, at most %d are allowed", file->path,
                       file->n_tokens, MB_VOCAB_ID_MAX - N_SPECIAL);
    if (!mb_vocab_init(vocab, file->n_tokens + N_SPECIAL))
        return mb_fail_memory(file->err, "the vocabulary");
    for (size_t pos = 0; pos < file->nbytes;) {
        file->i_line++;
        const char *line = next_line(file, &pos, &n);
        if (n > 0)
            MB_TRY(load_line(file, vocab, line, n));
    }
    return MB_OK; /* as many ranks as tokens, none twice: there is no gap */
}

/* ---------------------------------------------------------------- merges */

/* Two tokens whose bytes one after the other are a third one. */
struct join {
    int32_t left, right, id;
};

struct joins {
    struct join *p;
    size_t n, cap;
};

/* Every way to cut a token in two that are tokens; characters of a token show its bytes. false: no memory. */
static bool put_joins(const struct mb_vocab *vocab, int32_t id, struct joins *joins)
{
    size_t n;
    const char *text = mb_vocab_content(vocab, id, &n);
    for (size_t i = 1; i < n; i++) {
        if (((uint8_t)text[i] & 0xc0) == 0x80)
            continue;
        struct join join = {.left = mb_vocab_find(vocab, text, i), .id = id};
        join.right = join.left < 0 ? -1 : mb_vocab_find(vocab, text + i, n - i);
        if (join.right < 0)
            continue;
        void *p = joins->p;
        bool ok = mb_grow(&p, &joins->cap, joins->n, 1, sizeof *joins->p);
        joins->p = p;
        if (!ok)
            return false;
        joins->p[joins->n++] = join;
    }
    return true;
}

/*
 * tiktoken joins the two neighbours whose bytes together have the lowest rank, wherever the border between
 * them is: every cut of a token is a merge of that rank.
 */
static bool load_joins(struct mb_bpe *bpe, struct joins *joins)
{
    size_t n_tokens = bpe->vocab.n_ids;
    for (size_t id = 0; id < n_tokens; id++)
        if (!put_joins(&bpe->vocab, (int32_t)id, joins))
            return false;
    if (!mb_bpe_init_merges(bpe, joins->n))
        return false;
    for (size_t i = 0; i < joins->n; i++)
        mb_bpe_add_merge(bpe, joins->p[i].left, joins->p[i].right, (uint32_t)joins->p[i].id, joins->p[i].id);
    return true;
}

static enum mb_status load_text(struct mb_tokenizer *tokenizer, struct rank_file *file)
{
    struct mb_bpe *bpe = &tokenizer->bpe;
    struct joins joins = {0};
    MB_TRY(load_lines(file, &bpe->vocab));
    bool ok = load_joins(bpe, &joins);
    free(joins.p);
    if (!ok)
        return mb_fail_memory(file->err, "the merges");
    mb_bpe_index_bytes(bpe);
    for (size_t byte = 0; byte < 256; byte++)
        if (bpe->byte_ids[byte] < 0)
            return mb_fail(file->err, MB_BAD_DATA, "%s: has no token for the byte 0x%02zx", file->path, byte);
    bpe->unk_id = -1;
    bpe->ignore_merges = true;
    return MB_OK;
}

enum mb_status mb_load_ranks(struct mb_tokenizer *tokenizer, const char *path, struct mb_error *err)
{
    char *text;
    struct rank_file file = {.path = path, .err = err};
    MB_TRY(mb_read_file(path, RANKS_NBYTES_MAX, &text, &file.nbytes, err));
    file.text = text;
    enum mb_status status = load_text(tokenizer, &file);
    free(text);
    return status;
}

/* ---------------------------------------------------------------- special tokens */

/* What the configuration says of a special token. */
struct special {
    const char *content;
    bool is_special;
};

static enum mb_status read_special(const struct mb_field *field, struct special *special)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip"};
    if (!json_is_object(field->value))
        return mb_field_fail(field, MB_BAD_DATA, "not an object");
    for (size_t i = 0; i < 3; i++) {
        bool is_set;
        MB_TRY(mb_field_bool(field, flags[i], false, &is_set));
        if (is_set)
            return mb_load_unsupported(field, flags[i]);
    }
    MB_TRY(mb_field_bool(field, "special", false, &special->is_special));
    MB_TRY(mb_field_string(field, "content", "", &special->content));
    size_t nbytes = strlen(special->content);
    if (nbytes == 0 || nbytes > MB_ADDED_NBYTES_MAX)
        return mb_field_fail(field, MB_BAD_DATA, "its content has %zu bytes, not 1 to %d", nbytes,
                             MB_ADDED_NBYTES_MAX);
    return MB_OK;
}

static enum mb_status put_special(struct mb_tokenizer *tokenizer, const struct mb_field *field, size_t id,
                                  const struct special *special)
{
    struct mb_vocab *vocab = &tokenizer->bpe.vocab;
    struct mb_added_token token = {.id = (int32_t)id};
    size_t nbytes = strlen(special->content);
    char shown[64];
    enum mb_vocab_put put = mb_vocab_put(vocab, special->content, nbytes, (int32_t)id);
    if (put == MB_VOCAB_SAME_CONTENT)
        return mb_field_fail(field, MB_BAD_DATA, "token '%s' comes twice",
                             mb_field_shown(shown, special->content));
    if (put != MB_VOCAB_PUT || !mb_added_put(&tokenizer->raw_added, special->content, nbytes, token))
        return mb_fail_memory(field->err, "the vocabulary");
    vocab->tokens[id].is_added = true;
    vocab->tokens[id].is_special = special->is_special;
    return MB_OK;
}

/* Every name is that of an id after the ranks. */
static enum mb_status check_special_ids(const struct mb_field *decoder, size_t n_ranks)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)decoder->value, key, value)
    {
        char text[24], shown[64];
        size_t id = strtoull(key, NULL, 10);
        snprintf(text, sizeof text, "%zu", id);
        if (strcmp(key, text) != 0 || id < n_ranks || id >= n_ranks + N_SPECIAL)
            return mb_field_fail(decoder, MB_BAD_DATA,
                                 "'%s' is not among the %d ids after the ranks of tiktoken.model, %zu to %zu",
                                 mb_field_shown(shown, key), N_SPECIAL, n_ranks, n_ranks + N_SPECIAL - 1);
    }
    return MB_OK;
}

/* Those that the configuration names; the others are reserved. */
static enum mb_status load_specials(struct mb_tokenizer *tokenizer, const struct mb_field *config)
{
    struct mb_field decoder = mb_field_get(config, "added_tokens_decoder");
    size_t n_ranks = tokenizer->bpe.vocab.n_ids;
    if (decoder.value != NULL && !json_is_object(decoder.value))
        return mb_field_fail(&decoder, MB_BAD_DATA, "not an object");
    MB_TRY(check_special_ids(&decoder, n_ranks));
    for (size_t id = n_ranks; id < n_ranks + N_SPECIAL; id++) {
        char key[24], reserved[48];
        snprintf(key, sizeof key, "%zu", id);
        snprintf(reserved, sizeof reserved, "<|reserved_token_%zu|>", id);
        struct special special = {.content = reserved};
        struct mb_field field = mb_field_get(&decoder, key);
        if (field.value != NULL)
            MB_TRY(read_special(&field, &special));
        MB_TRY(put_special(tokenizer, &decoder, id, &special));
    }
    tokenizer->added_are_text = true;
    return MB_OK;
}

/* A token that the configuration names is special, whatever its entry says. NULL names none. */
static enum mb_status mark_special(struct mb_tokenizer *tokenizer, const struct mb_field *field,
                                   const char *content)
{
    char shown[64];
    if (content == NULL)
        return MB_OK;
    int32_t id = mb_tokenizer_id(tokenizer, content);
    if (id < 0 || !tokenizer->bpe.vocab.tokens[id].is_added)
        return mb_field_fail(field, MB_BAD_DATA, "there is no special token '%s' in added_tokens_decoder",
                             mb_field_shown(shown, content));
    tokenizer->bpe.vocab.tokens[id].is_special = true;
    return MB_OK;
}

static enum mb_status mark_specials(struct mb_tokenizer *tokenizer, const struct mb_field *config)
{
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    struct mb_field list = mb_field_get(config, "additional_special_tokens");
    const char *content;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct mb_field field = mb_field_get(config, keys[i]);
        MB_TRY(mb_field_token_name(&field, &content));
        MB_TRY(mark_special(tokenizer, &field, content));
    }
    if (list.value != NULL && !json_is_array(list.value))
        return mb_field_fail(&list, MB_BAD_DATA, "not an array");
    for (size_t i = 0; i < json_array_size(list.value); i++) {
        struct mb_field field = mb_field_at(&list, i);
        MB_TRY(mb_field_token_name(&field, &content));
        MB_TRY(mark_special(tokenizer, &field, content));
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- which class */

/* "moonshotai/Moonlight-16B-A3B--tokenization_moonshot.TikTokenTokenizer": what is before -- is a repository.
 */
static bool is_known_class(const char *name)
{
    const char *repository = strstr(name, "--");
    if (repository != NULL)
        name = repository + 2;
    return strcmp(name, "tokenization_moonshot.TikTokenTokenizer") == 0 ||
           strcmp(name, "tokenization_kimi.TikTokenTokenizer") == 0;
}

/* The Python class: a file of ranks says neither how texts are cut nor which special tokens there are. */
static enum mb_status check_class(const struct mb_field *config)
{
    struct mb_field map = mb_field_get(config, "auto_map");
    struct mb_field class = mb_field_get(&map, "AutoTokenizer");
    const char *name = json_string_value(class.value), *tokenizer_class;
    char shown[64];
    MB_TRY(mb_field_string(config, "tokenizer_class", "no tokenizer_class", &tokenizer_class));
    if (json_is_array(class.value))
        name = json_string_value(json_array_get(class.value, 0));
    if (name != NULL && is_known_class(name) && strcmp(tokenizer_class, "TikTokenTokenizer") == 0)
        return MB_OK;
    if (name == NULL || is_known_class(name))
        name = tokenizer_class;
    return mb_fail(config->err, MB_UNSUPPORTED,
                   "%s: tiktoken.model is read for TikTokenTokenizer of tokenization_moonshot and "
                   "tokenization_kimi alone, this is '%s'",
                   config->path, mb_field_shown(shown, name));
}

/* The split pattern of both classes. */
static const char kimi_pattern[] = "[\\p{Han}]+"
                                   "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*"
                                   "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
                                   "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+"
                                   "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
                                   "|\\p{N}{1,3}"
                                   "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
                                   "|\\s*[\\r\\n]+"
                                   "|\\s+(?!\\S)"
                                   "|\\s+";

enum mb_status mb_load_tiktoken(struct mb_tokenizer *tokenizer, const char *path,
                                const struct mb_field *config)
{
    MB_TRY(check_class(config));
    MB_TRY(mb_load_ranks(tokenizer, path, config->err));
    MB_TRY(load_specials(tokenizer, config));
    MB_TRY(mark_specials(tokenizer, config));
    tokenizer->decode_steps[tokenizer->n_decode_steps++].kind = MB_DECODE_BYTE_LEVEL;
    return mb_load_kimi_pre_tokenizer(tokenizer, config, kimi_pattern);
}
