/*
 * zfp.c - zfp, Debian's library, loaded when it is first used.
 *
 * zfp's tolerance is no promise for every weight, so it is searched: the largest power of two whose decoded
 * weights keep the bound; where none does, zfp's form without loss.  A matrix of one row or column is coded
 * in one dimension, others in two.
 *
 *     i16 exponent of the tolerance, or LOSSLESS; then zfp's stream
 */
#include "base/bytes.h"
#include "base/error.h"
#include "functions.h"
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { LOSSLESS = 32767, TYPE_FLOAT = 3, N_FIRST = 6, N_TRIES = 24, MAJOR = 1 };

/* Of zfp.h, version 1: all structs are zfp's own. */
static struct {
    void *(*stream_open)(void *bits);
    void (*stream_close)(void *stream);
    double (*set_accuracy)(void *stream, double tolerance);
    void (*set_reversible)(void *stream);
    size_t (*maximum_nbytes)(const void *stream, const void *field);
    void (*set_bits)(void *stream, void *bits);
    void (*rewind)(void *stream);
    size_t (*compress)(void *stream, const void *field);
    size_t (*decompress)(void *stream, void *field);
    void *(*field_1d)(void *values, unsigned type, size_t nx);
    void *(*field_2d)(void *values, unsigned type, size_t nx, size_t ny);
    void (*field_free)(void *field);
    void *(*bits_open)(void *bytes, size_t nbytes);
    void (*bits_close)(void *bits);
} zfp;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct mb_error missing;

static const struct {
    const char *name;
    void *function;
} functions[] = {
    {"zfp_stream_open", &zfp.stream_open},
    {"zfp_stream_close", &zfp.stream_close},
    {"zfp_stream_set_accuracy", &zfp.set_accuracy},
    {"zfp_stream_set_reversible", &zfp.set_reversible},
    {"zfp_stream_maximum_size", &zfp.maximum_nbytes},
    {"zfp_stream_set_bit_stream", &zfp.set_bits},
    {"zfp_stream_rewind", &zfp.rewind},
    {"zfp_compress", &zfp.compress},
    {"zfp_decompress", &zfp.decompress},
    {"zfp_field_1d", &zfp.field_1d},
    {"zfp_field_2d", &zfp.field_2d},
    {"zfp_field_free", &zfp.field_free},
    {"stream_open", &zfp.bits_open},
    {"stream_close", &zfp.bits_close},
};

static void load(void)
{
    void *library = dlopen("libzfp.so.1", RTLD_NOW | RTLD_LOCAL);
    const unsigned *version = library == NULL ? NULL : dlsym(library, "zfp_library_version");
    if (library == NULL) {
        mb_error_set(&missing, MB_UNSUPPORTED, "zfp: libzfp.so.1 is not installed (Debian: libzfp1)");
        return;
    }
    if (version == NULL || *version >> 12 != MAJOR) {
        mb_error_set(&missing, MB_UNSUPPORTED, "zfp: libzfp.so.1 is of another version than 1.x");
        return;
    }
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = dlsym(library, functions[i].name);
        if (function == NULL) {
            mb_error_set(&missing, MB_UNSUPPORTED, "zfp: libzfp.so.1 has no %s", functions[i].name);
            return;
        }
        memcpy(functions[i].function, &function, sizeof function);
    }
}

enum mb_status mb_codec_zfp_check(struct mb_error *err)
{
    pthread_once(&once, load);
    return mb_pass_on(err, missing.status, &missing);
}

/* ---------------------------------------------------------------- one stream */

static void *field_of(float *values, size_t n_rows, size_t n_cols)
{
    return n_rows == 1 || n_cols == 1 ? zfp.field_1d(values, TYPE_FLOAT, n_rows * n_cols)
                                      : zfp.field_2d(values, TYPE_FLOAT, n_cols, n_rows);
}

static void set_exponent(void *stream, int exponent)
{
    if (exponent == LOSSLESS)
        zfp.set_reversible(stream);
    else
        zfp.set_accuracy(stream, ldexp(1, exponent));
}

/* What a try of one exponent needs. */
struct coder {
    const struct mb_codec_matrix *matrix;
    void *stream, *field, *decoded_field, *bits;
    uint8_t *bytes;
    float *decoded;
    size_t bytes_cap;
};

static void free_coder(struct coder *c)
{
    if (c->field != NULL)
        zfp.field_free(c->field);
    if (c->decoded_field != NULL)
        zfp.field_free(c->decoded_field);
    if (c->bits != NULL)
        zfp.bits_close(c->bits);
    if (c->stream != NULL)
        zfp.stream_close(c->stream);
    free(c->bytes);
    free(c->decoded);
}

static bool open_coder(struct coder *c)
{
    const struct mb_codec_matrix *m = c->matrix;
    c->stream = zfp.stream_open(NULL);
    c->field = field_of((float *)m->values, m->n_rows, m->n_cols);
    c->decoded = malloc(m->n_rows * m->n_cols * sizeof *c->decoded);
    if (c->stream == NULL || c->field == NULL || c->decoded == NULL)
        return false;
    c->decoded_field = field_of(c->decoded, m->n_rows, m->n_cols);
    zfp.set_reversible(c->stream); /* needs most */
    c->bytes_cap = zfp.maximum_nbytes(c->stream, c->field) + 4096;
    c->bytes = calloc(c->bytes_cap, 1);
    if (c->bytes == NULL || c->decoded_field == NULL)
        return false;
    c->bits = zfp.bits_open(c->bytes, c->bytes_cap);
    if (c->bits == NULL)
        return false;
    zfp.set_bits(c->stream, c->bits);
    return true;
}

/* Bytes of the stream when the bound holds; 0: it does not. */
static size_t try_exponent(struct coder *c, int exponent)
{
    size_t n = c->matrix->n_rows * c->matrix->n_cols;
    set_exponent(c->stream, exponent);
    zfp.rewind(c->stream);
    size_t nbytes = zfp.compress(c->stream, c->field);
    zfp.rewind(c->stream);
    if (nbytes == 0 || zfp.decompress(c->stream, c->decoded_field) == 0)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)c->matrix->values[i] - (double)c->decoded[i]) <= c->matrix->eps))
            return 0;
    return nbytes;
}

static size_t search(struct coder *c, int *exponent)
{
    int first = (int)floor(log2(c->matrix->eps)) + N_FIRST;
    for (*exponent = first; *exponent > first - N_TRIES; --*exponent) {
        size_t nbytes = try_exponent(c, *exponent);
        if (nbytes > 0)
            return nbytes;
    }
    *exponent = LOSSLESS;
    return try_exponent(c, LOSSLESS);
}

static enum mb_status encode(int mode, const struct mb_codec_matrix *matrix, uint8_t *out, size_t out_cap,
                             size_t *out_nbytes, struct mb_error *err)
{
    (void)mode;
    struct coder c = {.matrix = matrix};
    int exponent = 0;
    size_t nbytes = 0;
    enum mb_status status =
        open_coder(&c) ? MB_OK : mb_fail_memory(err, "zfp"); /* it fails for no other reason */
    if (status == MB_OK) {
        nbytes = search(&c, &exponent);
        if (nbytes == 0)
            status = mb_fail(err, MB_BAD_DATA, "zfp: even its form without loss does not keep the bound");
        else if (nbytes + 2 > out_cap)
            status = mb_fail(err, MB_NO_SPACE, "zfp: the output has too little space");
    }
    if (status == MB_OK) {
        mb_store_u16(out, (uint16_t)exponent);
        memcpy(out + 2, c.bytes, nbytes);
        *out_nbytes = nbytes + 2;
    }
    free_coder(&c);
    return status;
}

static enum mb_status decode(int mode, const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols,
                             float *out, struct mb_error *err)
{
    (void)mode;
    if (nbytes <= 2)
        return mb_fail(err, MB_BAD_DATA, "zfp: %zu bytes", nbytes);
    /* zfp reads whole words, so from a copy with room after it. */
    size_t cap = nbytes - 2 + 64;
    uint8_t *copy = calloc(cap, 1);
    void *stream = zfp.stream_open(NULL), *field = field_of(out, n_rows, n_cols);
    void *bits = copy == NULL ? NULL : zfp.bits_open(copy, cap);
    size_t n_read = 0;
    bool is_open = stream != NULL && field != NULL && bits != NULL;
    if (is_open) {
        memcpy(copy, bytes + 2, nbytes - 2);
        set_exponent(stream, (int16_t)mb_load_u16(bytes));
        zfp.set_bits(stream, bits);
        zfp.rewind(stream);
        n_read = zfp.decompress(stream, field);
    }
    if (field != NULL)
        zfp.field_free(field);
    if (stream != NULL)
        zfp.stream_close(stream);
    if (bits != NULL)
        zfp.bits_close(bits);
    free(copy);
    if (!is_open)
        return mb_fail_memory(err, "zfp");
    return n_read > 0 ? MB_OK : mb_fail(err, MB_BAD_DATA, "zfp: the stream is damaged");
}

const struct mb_codec_functions mb_codec_zfp = {.encode = encode, .decode = decode};
