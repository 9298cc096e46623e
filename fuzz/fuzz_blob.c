/*
 * fuzz_blob.c - coded blobs of any bytes, both checksums made right. An accepted blob goes through the
 * kernels of all instruction sets.
 */
#include "fuzz.h"
#include "products.h"
#include <stdlib.h>
#include <string.h>

/* Tables take no more memory than the blob itself, times a small number. */
static void check_views(const struct mb_blob *blob)
{
    REQUIRE(blob->tables_nbytes <= 8 * blob->nbytes + 4096);
    for (size_t i = 0; i < blob->n_matrices; i++) {
        const struct mb_coded_matrix *w = &blob->matrix[i];
        REQUIRE(w->n_rows > 0 && w->n_cols > 0 && w->n_cols <= MB_COLS_MAX && w->n_groups > 0);
        fuzz_products(w, blob->nbytes * 5 + i);
    }
}

/* In parts of a size that the bytes say, the verdict is the same. */
static void check_in_parts(const uint8_t *bytes, size_t size, enum mb_status status)
{
    static struct mb_blob_check *check;
    struct mb_blob blob;
    const size_t memory_nbytes = 8 * size + 4096, step = 1 + (size * 7 + bytes[size / 2]) % size;
    void *memory = malloc(memory_nbytes);
    check = check == NULL ? mb_blob_check_new() : check;
    REQUIRE(memory != NULL && check != NULL);
    mb_blob_check_begin(check, bytes, size, memory, memory_nbytes);
    for (size_t n = 0; n < size; n += step)
        mb_blob_check_add(check, n);
    REQUIRE(mb_blob_check_end(check, &blob, NULL) == status);
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mb_blob blob;
    struct mb_error err = {0};
    uint8_t *exact = fuzz_guarded(size), *roomy = fuzz_guarded(size + MB_SLACK_NBYTES);
    if (exact == NULL || roomy == NULL || size == 0)
        return 0;
    memcpy(exact, data, size);
    fuzz_repair_blob(exact, size);
    enum mb_status status = mb_blob_open(exact, size, &blob, &err);
    check_in_parts(exact, size, status);
    if (status != MB_OK) {
        REQUIRE((status == MB_BAD_DATA || status == MB_UNSUPPORTED) && err.msg[0] != 0);
        return 0;
    }
    mb_blob_close(&blob);
    memmove(roomy, exact, size); /* the two overlap */
    memset(roomy + size, 0xff, MB_SLACK_NBYTES);
    REQUIRE(mb_blob_open(roomy, size, &blob, &err) == MB_OK);
    check_views(&blob);
    mb_blob_close(&blob);
    return 0;
}
