/*
 * fuzz_encoder.c - any bytes as weights, any bound, any wanted indices: all instruction sets write the same
 * records, and every decoded weight is within the bound.
 */
#include "base/bytes.h"
#include "codec/encode.h"
#include "fuzz.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { N_WEIGHTS_MAX = 4096 };

struct records {
    uint8_t *bytes;
    size_t nbytes, n_groups;
    struct mb_group *groups;
    enum mb_status status;
    size_t bad_index;
};

static struct records encode(const struct mb_kernels *k, const struct mb_coding *coding,
                             const uint8_t *weights, size_t n_rows)
{
    size_t cap = mb_encode_bound(coding->dtype, n_rows, coding->n_cols);
    size_t group_rows = mb_group_rows(coding->n_cols);
    struct records r = {.n_groups = (n_rows + group_rows - 1) / group_rows};
    r.bytes = malloc(cap);
    r.groups = calloc(r.n_groups, sizeof *r.groups);
    REQUIRE(r.bytes != NULL && r.groups != NULL);
    r.status = k->encode_rows(coding, weights, n_rows, r.bytes, cap, &r.nbytes, r.groups, &r.bad_index);
    REQUIRE(r.status == MB_OK || r.status == MB_BAD_DATA);
    return r;
}

static void free_records(struct records *r)
{
    free(r->bytes);
    free(r->groups);
}

static void check_same(const struct records *a, const struct records *b)
{
    REQUIRE(a->status == b->status);
    if (a->status == MB_BAD_DATA)
        REQUIRE(a->bad_index == b->bad_index);
    else
        REQUIRE(a->nbytes == b->nbytes && memcmp(a->bytes, b->bytes, a->nbytes) == 0 &&
                memcmp(a->groups, b->groups, a->n_groups * sizeof *a->groups) == 0);
}

/* As a blob the records are accepted, and the bound holds. */
static void check_bound(const struct records *r, const struct mb_coding *coding, const uint8_t *weights,
                        size_t n_rows)
{
    struct mb_blob_matrix info = {.name = "w",
                                  .name_nbytes = 1,
                                  .dtype = coding->dtype,
                                  .form = coding->form,
                                  .n_rows = n_rows,
                                  .n_cols = coding->n_cols,
                                  .eps = coding->eps,
                                  .step = coding->step,
                                  .data_nbytes = r->nbytes,
                                  .directory_nbytes =
                                      mb_directory_nbytes(coding->form, r->groups, r->n_groups)};
    size_t header_nbytes = mb_blob_header_nbytes(&info, 1);
    size_t nbytes = header_nbytes + r->nbytes + info.directory_nbytes, n = n_rows * coding->n_cols;
    uint8_t *bytes = calloc(1, nbytes + MB_SLACK_NBYTES);
    float *decoded = malloc(n * sizeof *decoded);
    struct mb_blob blob;
    struct mb_error err = {0};
    REQUIRE(bytes != NULL && decoded != NULL);
    memcpy(bytes + header_nbytes, r->bytes, r->nbytes);
    mb_directory_write(coding->form, r->groups, r->n_groups, bytes + header_nbytes + r->nbytes);
    mb_blob_write_header(&info, 1, XXH3_64bits(bytes + header_nbytes, nbytes - header_nbytes), bytes);
    REQUIRE(mb_blob_open(bytes, nbytes, &blob, &err) == MB_OK);
    mb_kernels_by_isa("scalar")->decode_rows(&blob.matrix[0], 0, n_rows, decoded);
    for (size_t i = 0; i < n; i++)
        REQUIRE(fabs((double)decoded[i] - (double)mb_load_value(coding->dtype, weights, i)) <= coding->eps);
    mb_blob_close(&blob);
    free(decoded);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct mb_coding coding = {.dtype = (enum mb_dtype)(fuzz_u8(&input) % 3), .form = MB_FORM_PATCHED};
    uint32_t bits = fuzz_u32(&input);
    coding.eps = (double)mb_float_of_bits(bits & 0x7fffffff);
    if (!isfinite(coding.eps))
        return 0;
    bool is_wanted = bits >> 31 != 0; /* then a finer step, and bytes of the weights as indices */
    coding.step = is_wanted ? mb_step_of_rho(coding.eps, 0.5 + 0.5 * (bits & 7)) : mb_step_of_eps(coding.eps);
    size_t elem_nbytes = mb_dtype_nbytes(coding.dtype), n = input.n < 2 ? 0 : (input.n - 2) / elem_nbytes;
    n = n < N_WEIGHTS_MAX ? n : N_WEIGHTS_MAX;
    if (n == 0)
        return 0;
    coding.n_cols = 1 + fuzz_u16(&input) % n;
    size_t n_rows = n / coding.n_cols;
    uint8_t *weights = malloc(n_rows * coding.n_cols * elem_nbytes); /* of exactly their size */
    REQUIRE(weights != NULL);
    memcpy(weights, input.p, n_rows * coding.n_cols * elem_nbytes);
    coding.wanted = is_wanted ? (const int8_t *)weights : NULL;
    struct records scalar = encode(mb_kernels_by_isa("scalar"), &coding, weights, n_rows);
    static const char *const isas[] = {"avx2", "avx512"};
    for (size_t i = 0; i < 2; i++) {
        const struct mb_kernels *k = mb_kernels_by_isa(isas[i]);
        if (k == NULL)
            continue;
        struct records fast = encode(k, &coding, weights, n_rows);
        check_same(&scalar, &fast);
        free_records(&fast);
    }
    if (scalar.status == MB_OK)
        check_bound(&scalar, &coding, weights, n_rows);
    free_records(&scalar);
    free(weights);
    return 0;
}
