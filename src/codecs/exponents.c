/*
 * exponents.c - bf16 without loss: the eight exponent bits of each weight by a range coder (rANS, order 0,
 * frequencies of the matrix), sign and mantissa as they are.
 *
 *     u32 bytes of the exponents' words
 *     u16 n - 1, then n times: u8 exponent, u16 frequency; frequencies add up to 4096
 *     u32 states of the four lanes, then the words (u16), both in the order in which the decoder reads them
 *     u8 sign and mantissa of each weight
 *
 * Lane i codes weights i, i + 4, ...; states are in [2^16, 2^32).
 */
#include "base/bytes.h"
#include "base/error.h"
#include "functions.h"
#include <stdlib.h>
#include <string.h>

enum { N_LANES = 4, SCALE_BITS = 12, SCALE = 1 << SCALE_BITS, LOW = 1 << 16 };

/* Each symbol that exists gets at least 1 of 4096, the most frequent one takes what is left or missing. */
static void scale_frequencies(const uint64_t counts[256], size_t n, uint16_t frequencies[256])
{
    size_t most = 0;
    long sum = 0;
    for (size_t s = 0; s < 256; s++) {
        frequencies[s] = (uint16_t)(counts[s] * SCALE / n);
        if (counts[s] > 0 && frequencies[s] == 0)
            frequencies[s] = 1;
        sum += frequencies[s];
        most = counts[s] > counts[most] ? s : most;
    }
    /* At most 255 too many, and the most frequent one has at least 16: others give too. */
    for (size_t s = most; sum > SCALE; s = (s + 1) % 256)
        while (sum > SCALE && frequencies[s] > 8) {
            frequencies[s]--;
            sum--;
        }
    frequencies[most] = (uint16_t)(frequencies[most] + SCALE - sum);
}

static unsigned exponent_of(uint16_t h)
{
    return h >> 7 & 0xff;
}

static uint8_t *put_table(const uint16_t frequencies[256], uint8_t *at)
{
    uint8_t *count = at;
    unsigned n = 0;
    at += 2;
    for (unsigned s = 0; s < 256; s++)
        if (frequencies[s] > 0) {
            *at = (uint8_t)s;
            mb_store_u16(at + 1, frequencies[s]);
            at += 3;
            n++;
        }
    mb_store_u16(count, (uint16_t)(n - 1));
    return at;
}

/* Codes the exponents backwards; words[n] on are empty, and the first word that is used is returned. */
static size_t code_exponents(const uint8_t *weights, size_t n, const uint16_t frequencies[256],
                             uint32_t states[N_LANES], uint16_t *words)
{
    uint32_t starts[256], start = 0;
    size_t first = n;
    for (unsigned s = 0; s < 256; s++) {
        starts[s] = start;
        start += frequencies[s];
    }
    for (size_t k = 0; k < N_LANES; k++)
        states[k] = LOW;
    for (size_t i = n; i-- > 0;) {
        unsigned s = exponent_of(mb_load_u16(weights + 2 * i));
        uint32_t x = states[i % N_LANES], f = frequencies[s];
        if ((uint64_t)x >= (uint64_t)f << (32 - SCALE_BITS)) {
            words[--first] = (uint16_t)x;
            x >>= 16;
        }
        states[i % N_LANES] = (x / f << SCALE_BITS) + x % f + starts[s];
    }
    return first;
}

static enum mb_status encode(int mode, const struct mb_codec_matrix *matrix, uint8_t *out, size_t out_cap,
                             size_t *out_nbytes, struct mb_error *err)
{
    (void)mode;
    const uint8_t *weights = matrix->weights;
    size_t n = matrix->n_rows * matrix->n_cols;
    if (matrix->dtype != MB_BF16 || n == 0)
        return mb_fail(err, MB_UNSUPPORTED, "bf16-exponents: weights are not bf16");
    if (out_cap < 4 + 2 + 3 * 256 + 4 * N_LANES + 3 * n)
        return mb_fail(err, MB_NO_SPACE, "bf16-exponents: the output has too little space");
    uint64_t counts[256] = {0};
    for (size_t i = 0; i < n; i++)
        counts[exponent_of(mb_load_u16(weights + 2 * i))]++;
    uint16_t frequencies[256], *words = malloc((n + 1) * sizeof *words);
    uint32_t states[N_LANES];
    if (words == NULL)
        return mb_fail_memory(err, "coded exponents");
    scale_frequencies(counts, n, frequencies);
    uint8_t *at = put_table(frequencies, out + 4);
    size_t first = code_exponents(weights, n, frequencies, states, words);
    memcpy(at, states, sizeof states);
    memcpy(at + sizeof states, words + first, 2 * (n - first));
    at += sizeof states + 2 * (n - first);
    mb_store_u32(out, (uint32_t)(2 * (n - first)));
    for (size_t i = 0; i < n; i++) {
        uint16_t h = mb_load_u16(weights + 2 * i);
        *at++ = (uint8_t)((h >> 8 & 0x80) | (h & 0x7f));
    }
    *out_nbytes = (size_t)(at - out);
    free(words);
    return MB_OK;
}

/* What the decoder knows of each of the 4096 slots. */
struct slot {
    uint16_t frequency, offset; /* offset: of the slot in its symbol */
    uint8_t symbol;
};

struct stream {
    struct slot slots[SCALE];
    uint32_t states[N_LANES];
    const uint8_t *words, *words_end, *rests;
};

static bool read_table(const uint8_t **at, const uint8_t *end, struct slot slots[SCALE])
{
    size_t n = (size_t)mb_load_u16(*at) + 1, start = 0;
    *at += 2;
    if (n > 256 || (size_t)(end - *at) < 3 * n)
        return false;
    for (size_t k = 0; k < n; k++, *at += 3) {
        uint16_t frequency = mb_load_u16(*at + 1);
        if (frequency == 0 || frequency > SCALE - start)
            return false;
        for (uint16_t i = 0; i < frequency; i++)
            slots[start + i] = (struct slot){.frequency = frequency, .offset = i, .symbol = **at};
        start += frequency;
    }
    return start == SCALE;
}

static bool open_stream(const uint8_t *bytes, size_t nbytes, size_t n, struct stream *stream)
{
    const uint8_t *at = bytes + 4, *end = bytes + nbytes;
    if (nbytes < 6)
        return false;
    size_t words_nbytes = mb_load_u32(bytes);
    if (!read_table(&at, end, stream->slots) || (size_t)(end - at) < sizeof stream->states)
        return false;
    memcpy(stream->states, at, sizeof stream->states);
    at += sizeof stream->states;
    if (words_nbytes % 2 != 0 || (size_t)(end - at) != words_nbytes + n)
        return false;
    stream->words = at;
    stream->words_end = stream->rests = at + words_nbytes;
    return true;
}

static enum mb_status decode(int mode, const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols,
                             float *out, struct mb_error *err)
{
    (void)mode;
    struct stream stream;
    size_t n = n_rows * n_cols;
    if (!open_stream(bytes, nbytes, n, &stream))
        return mb_fail(err, MB_BAD_DATA, "bf16-exponents: %zu bytes for %zu weights", nbytes, n);
    for (size_t i = 0; i < n; i++) {
        uint32_t x = stream.states[i % N_LANES];
        const struct slot *slot = &stream.slots[x % SCALE];
        x = slot->frequency * (x >> SCALE_BITS) + slot->offset;
        if (x < LOW) {
            if (stream.words == stream.words_end)
                return mb_fail(err, MB_BAD_DATA, "bf16-exponents: the words end early");
            x = x << 16 | mb_load_u16(stream.words);
            stream.words += 2;
        }
        stream.states[i % N_LANES] = x;
        uint32_t rest = stream.rests[i];
        out[i] = mb_float_of_bits((rest & 0x80) << 24 | (uint32_t)slot->symbol << 23 | (rest & 0x7f) << 16);
    }
    if (stream.words != stream.words_end)
        return mb_fail(err, MB_BAD_DATA, "bf16-exponents: words are left");
    return MB_OK;
}

const struct mb_codec_functions mb_codec_exponents = {.encode = encode, .decode = decode};
