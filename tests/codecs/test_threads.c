/*
 * test_threads.c - several threads that code at once get the bytes and weights that one gets.
 */
#include "base/pool.h"
#include "cmocka_all.h"
#include "matrices.h"
#include <stdlib.h>
#include <string.h>

enum { ROWS = 16, COLS = 512, N_TASKS = 12, N_THREADS = 4 };

struct work {
    const struct mb_codec *codec;
    struct mb_codec_matrix matrix;
    const uint8_t *bytes;
    const float *decoded;
    size_t nbytes;
    bool is_same[N_TASKS];
};

static void code_again(void *ctx, size_t task, int thread)
{
    (void)thread;
    struct work *work = ctx;
    size_t cap = mb_codec_nbytes_max(ROWS, COLS), nbytes = 0;
    uint8_t *bytes = malloc(cap);
    float *decoded = malloc(sizeof *decoded * ROWS * COLS);
    work->is_same[task] = bytes != NULL && decoded != NULL &&
                          mb_codec_encode(work->codec, &work->matrix, bytes, cap, &nbytes, NULL) == MB_OK &&
                          nbytes == work->nbytes && memcmp(bytes, work->bytes, nbytes) == 0 &&
                          mb_codec_decode(work->codec, bytes, nbytes, ROWS, COLS, decoded, NULL) == MB_OK &&
                          memcmp(decoded, work->decoded, sizeof *decoded * ROWS * COLS) == 0;
    free(bytes);
    free(decoded);
}

static void threads_get_the_same_bytes(void **state)
{
    (void)state;
    struct mb_pool *pool;
    size_t n_codecs, cap = mb_codec_nbytes_max(ROWS, COLS);
    const struct mb_codec *codecs = mb_codecs(&n_codecs);
    struct test_matrix m = test_matrix_make(TEST_OUTLIERS, ROWS, COLS, 1);
    uint8_t *bytes = malloc(cap);
    float *decoded = malloc(sizeof *decoded * ROWS * COLS);
    assert_non_null(bytes);
    assert_non_null(decoded);
    assert_int_equal(mb_pool_create(N_THREADS, &pool, NULL), MB_OK);
    for (size_t c = 0; c < n_codecs; c++) {
        struct work work = {.codec = &codecs[c],
                            .matrix = test_codec_matrix(&m, 0.3 * m.mean_abs),
                            .bytes = bytes,
                            .decoded = decoded};
        if (mb_codec_check(&codecs[c], NULL) != MB_OK) {
            print_message("left out: %s\n", codecs[c].name);
            continue;
        }
        assert_int_equal(mb_codec_encode(&codecs[c], &work.matrix, bytes, cap, &work.nbytes, NULL), MB_OK);
        assert_int_equal(mb_codec_decode(&codecs[c], bytes, work.nbytes, ROWS, COLS, decoded, NULL), MB_OK);
        mb_pool_run(pool, N_TASKS, code_again, &work);
        for (size_t t = 0; t < N_TASKS; t++)
            if (!work.is_same[t])
                fail_msg("%s: another thread got other bytes or weights", codecs[c].name);
    }
    mb_pool_destroy(pool);
    free(bytes);
    free(decoded);
    test_matrix_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_get_the_same_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
