/*
 * fuzz_kernels.c - blobs that keep every rule, made from any bytes: they are accepted, and all kernels of all
 * instruction sets agree on them. Goes deeper than fuzz_blob, which has to guess the rules.
 */
#include "codec/encode.h"
#include "fuzz.h"
#include "products.h"
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { N_WEIGHTS_MAX = 6000, N_ROWS_MAX = 64 };

/* A matrix as it is being made. */
struct making {
    struct fuzz_input input;
    struct mb_blob_matrix info;
    uint8_t *records;
    struct mb_group *groups;
    size_t n_groups;
};

/* The k-th kind that has a meaning, raw among them. */
static uint8_t pick_kind(uint8_t k)
{
    for (unsigned kind = k & 0x7f;; kind = (kind + 1) & 0x7f)
        if (mb_kind_is_legal((uint8_t)kind))
            return (uint8_t)(kind | (kind == MB_KIND_RAW ? 0 : k & 0x80));
}

/* Finite values: an exponent of ones loses a bit. */
static void pick_values(struct making *m, uint8_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = fuzz_u16(&m->input);
        if (m->info.dtype == MB_F32)
            mb_store_u32(values + 4 * i, (bits << 16 | bits) & 0xfeffffff);
        else
            mb_store_u16(values + 2 * i, (uint16_t)(bits & (m->info.dtype == MB_F16 ? 0xfbff : 0xfeff)));
    }
}

/* Indices that the widths can hold, from bytes: mostly inner ones, or of any size, or the largest. */
static void pick_indices(struct making *m, const struct mb_widths *widths, bool with_outliers, int8_t *q,
                         size_t n)
{
    int inner = mb_inner_max(widths->a), outer = inner + mb_tail_half(widths->b);
    for (size_t i = 0; i < n; i++) {
        int value = (int8_t)fuzz_u8(&m->input);
        int max = value & 1 ? outer : inner;
        q[i] = (int8_t)(value / 2 % (max + 1));
        if (with_outliers && value == 64)
            q[i] = MB_Q_OUTLIER;
    }
}

static size_t make_group(struct making *m, size_t group, size_t n, uint8_t *out)
{
    static int8_t q[N_WEIGHTS_MAX];
    static uint8_t values[4 * N_WEIGHTS_MAX];
    uint8_t kind = pick_kind(fuzz_u8(&m->input));
    struct mb_widths widths = {.is_raw = kind == MB_KIND_RAW};
    if (widths.is_raw) {
        pick_values(m, values, n);
        return mb_write_group(&widths, m->info.dtype, q, n, values, out, &m->groups[group]);
    }
    widths.a = mb_kind_a(kind);
    widths.b = mb_kind_b(kind);
    pick_indices(m, &widths, kind & MB_KIND_OUTLIERS, q, n);
    pick_values(m, values, kind & MB_KIND_OUTLIERS ? n : 0);
    int inner = mb_inner_max(widths.a), outer = inner + mb_tail_half(widths.b);
    for (size_t i = 0; i < n; i++) {
        widths.n_outliers += abs(q[i]) > outer;
        widths.n_escapes += abs(q[i]) > inner && abs(q[i]) <= outer;
    }
    return mb_write_group(&widths, m->info.dtype, q, n, values, out, &m->groups[group]);
}

static void make_matrix(struct making *m)
{
    m->info = (struct mb_blob_matrix){.name = "w", .name_nbytes = 1, .form = MB_FORM_PATCHED};
    m->info.dtype = (enum mb_dtype)(fuzz_u8(&m->input) % 3);
    m->info.n_cols = 1 + fuzz_u16(&m->input) % (N_WEIGHTS_MAX / 2);
    m->info.n_rows = 1 + fuzz_u8(&m->input) % N_ROWS_MAX;
    if (m->info.n_rows > N_WEIGHTS_MAX / m->info.n_cols)
        m->info.n_rows = N_WEIGHTS_MAX / m->info.n_cols;
    m->info.eps = mb_float_of_bits((fuzz_u32(&m->input) & 0x7effffff) | 1);
    if (m->info.eps > 0x1p119) /* 127 steps have to be a float */
        m->info.eps *= 0x1p-8;
    m->info.step = mb_step_of_eps(m->info.eps);
    size_t group_rows = mb_group_rows(m->info.n_cols);
    m->n_groups = (m->info.n_rows + group_rows - 1) / group_rows;
    m->records = malloc(m->info.n_rows * m->info.n_cols * 8 + 64 * m->n_groups);
    m->groups = calloc(m->n_groups, sizeof *m->groups);
    REQUIRE(m->records != NULL && m->groups != NULL);
    for (size_t g = 0; g < m->n_groups; g++) {
        uint64_t left = m->info.n_rows - g * group_rows;
        size_t n = (left < group_rows ? left : group_rows) * m->info.n_cols;
        m->info.data_nbytes += make_group(m, g, n, m->records + m->info.data_nbytes);
    }
    m->info.directory_nbytes = mb_directory_nbytes(m->info.form, m->groups, m->n_groups);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct making m = {.input = {data, size}};
    struct mb_blob blob;
    struct mb_error err = {0};
    make_matrix(&m);
    size_t header_nbytes = mb_blob_header_nbytes(&m.info, 1),
           nbytes = header_nbytes + m.info.data_nbytes + m.info.directory_nbytes;
    uint8_t *bytes = fuzz_guarded(nbytes + MB_SLACK_NBYTES), *payload = bytes + header_nbytes;
    REQUIRE(bytes != NULL);
    memcpy(payload, m.records, m.info.data_nbytes);
    mb_directory_write(m.info.form, m.groups, m.n_groups, payload + m.info.data_nbytes);
    mb_blob_write_header(&m.info, 1, XXH3_64bits(payload, nbytes - header_nbytes), bytes);
    memset(bytes + nbytes, 0xff, MB_SLACK_NBYTES);
    REQUIRE(mb_blob_open(bytes, nbytes, &blob, &err) == MB_OK);
    fuzz_products(&blob.matrix[0], XXH3_64bits(data, size));
    mb_blob_close(&blob);
    free(m.groups);
    free(m.records);
    return 0;
}
