/*
 * test_views.c - tensors that are computed from stored ones: every byte range of them, whatever their
 * strides.
 */
#include "checkpoint/views.h"
#include "cmocka_all.h"
#include "folder.h"
#include <stdlib.h>
#include <string.h>

static const char *folder;

static int begin(void **state)
{
    if (test_folder_begin(state) != 0)
        return -1;
    folder = strdup(test_path("model"));
    test_make_folder(folder);
    test_write_text(folder, "config.json", "{}");
    return 0;
}

static int end(void **state)
{
    free((char *)folder);
    return test_folder_end(state);
}

/* ---------------------------------------------------------------- strides */

enum { N_STORED = 60000 };

static const struct slice {
    uint64_t first, n_rows, n_cols, row_stride, col_stride;
} slices[] = {
    {100, 5, 7, 7, 1},       /* in a row */
    {3, 5, 7, 14, 1},        /* every second row */
    {0, 70, 200, 1, 140},    /* transposed, the first half */
    {70, 70, 200, 1, 140},   /* the second one */
    {1, 70, 200, 2, 140},    /* transposed, every second column */
    {0, 10000, 3, 2, 20000}, /* columns longer than what is read at a time */
    {0, 2, 3, 25000, 3},     /* rows farther apart than that */
    {59999, 1, 1, 1, 1},
};

static void assert_bytes(const struct mb_checkpoint *ckpt, const struct mb_view *view, const uint8_t *whole,
                         uint64_t pos, uint64_t nbytes)
{
    static uint8_t out[4 * N_STORED + 16];
    struct mb_error err;
    memset(out, 0xa5, nbytes + 16);
    assert_int_equal(view->kind->read(ckpt, view, pos, out, nbytes, &err), MB_OK);
    assert_memory_equal(out, whole + pos, nbytes);
    for (size_t i = 0; i < 16; i++)
        assert_int_equal(out[nbytes + i], 0xa5);
}

static void check_slice(const struct mb_checkpoint *ckpt, const struct slice *slice, const uint8_t *data)
{
    static uint8_t whole[4 * N_STORED];
    const struct mb_tensor *stored = mb_checkpoint_find(ckpt, "all");
    uint64_t elem = mb_elem_nbytes(stored), nbytes = slice->n_rows * slice->n_cols * elem;
    struct mb_view view = {.tensor = *stored,
                           .kind = &mb_slice_view,
                           .stored = stored,
                           .first = slice->first,
                           .row_stride = slice->row_stride,
                           .col_stride = slice->col_stride};
    view.tensor.n_dims = 2;
    view.tensor.shape[0] = slice->n_rows;
    view.tensor.shape[1] = slice->n_cols;
    view.tensor.n_elems = slice->n_rows * slice->n_cols;
    view.tensor.nbytes = nbytes;
    for (uint64_t i = 0; i < view.tensor.n_elems; i++) {
        uint64_t from =
            slice->first + i / slice->n_cols * slice->row_stride + i % slice->n_cols * slice->col_stride;
        memcpy(whole + i * elem, data + from * elem, elem);
        assert_int_equal(view.kind->file_pos(&view, i), stored->file_pos + from * elem);
    }
    assert_bytes(ckpt, &view, whole, 0, nbytes);
    for (uint64_t i = 0; i < 40; i++) { /* pieces of any length from anywhere */
        uint64_t pos = i * 7919 % nbytes, n = i * i * 104729 % (nbytes - pos + 1);
        assert_bytes(ckpt, &view, whole, pos, n);
        assert_bytes(ckpt, &view, whole, pos, n < 3 ? n : 3);
    }
}

static void any_bytes_of_a_slice_are_read(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{\"all\":{\"dtype\":\"BF16\",\"shape\":[60000],\"data_offsets\":[0,120000]}}",
        "{\"all\":{\"dtype\":\"F32\",\"shape\":[60000],\"data_offsets\":[0,240000]}}",
        "{\"all\":{\"dtype\":\"U8\",\"shape\":[60000],\"data_offsets\":[0,60000]}}",
    };
    static const size_t nbytes[] = {2 * N_STORED, 4 * N_STORED, N_STORED};
    static uint8_t data[4 * N_STORED];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t h = 0; h < 3; h++) {
        struct mb_checkpoint *ckpt;
        struct mb_error err;
        test_write_safetensors(folder, "model.safetensors", headers[h], data, nbytes[h]);
        assert_int_equal(mb_checkpoint_open(folder, &ckpt, &err), MB_OK);
        for (size_t i = 0; i < sizeof slices / sizeof slices[0]; i++)
            check_slice(ckpt, &slices[i], data);
        mb_checkpoint_close(ckpt);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_bytes_of_a_slice_are_read),
    };
    return cmocka_run_group_tests_name("checkpoint_views", tests, begin, end);
}
