/*
 * test_experts.c - experts acquired and released, changed matrices laid over the model's, damaged folders,
 * and memory that is out.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "starve.h"
#include "weights.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_HIDDEN = 48, N_INNER = 40, LAYER = 1, N_EXPERTS = 2, N_PARTS = 3, UP = 1 };

static int begin(void **state)
{
    struct mb_compress_options options = {.size = sizeof options};
    struct mb_compress_report report;
    struct mb_error err;
    struct test_model model = test_model_small();
    if (test_folder_begin(state) != 0)
        return -1;
    test_write_model(test_path("plain"), &model);
    enum mb_status status = mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err);
    if (status != MB_OK)
        print_error("%s\n", err.msg);
    return status == MB_OK ? 0 : -1;
}

static void open_weights(const char *folder, struct test_weights *weights)
{
    struct mb_error err;
    if (test_weights_open(test_path(folder), 1, weights, &err) != MB_OK)
        fail_msg("%s", err.msg);
}

static const struct mb_expert_part *parts_of(size_t expert)
{
    return test_expert_parts(expert, N_HIDDEN, N_INNER);
}

static enum mb_status bind_all(struct mb_store *store, struct mb_error *err)
{
    for (size_t e = 0; e < N_EXPERTS; e++) {
        enum mb_status status = mb_store_bind_expert(store, LAYER, e, parts_of(e), N_PARTS, err);
        if (status != MB_OK)
            return status;
    }
    return MB_OK;
}

static void open_bound(const char *folder, struct test_weights *weights)
{
    struct mb_error err;
    open_weights(folder, weights);
    if (bind_all(weights->store, &err) != MB_OK)
        fail_msg("%s", err.msg);
}

static void values_of(const struct mb_matrix *matrix, float values[N_HIDDEN * N_INNER])
{
    if (matrix->is_coded)
        mb_kernels()->decode_rows(&matrix->coded, 0, matrix->n_rows, values);
    else
        memcpy(values, matrix->dense, N_HIDDEN * N_INNER * mb_dtype_nbytes(matrix->dtype));
}

/* ---------------------------------------------------------------- experts */

/* The same values as a blob that is opened by hand. */
static void an_acquired_expert_is_the_stored_one(void **state)
{
    (void)state;
    static const uint32_t experts[] = {1, 0};
    static float values[N_HIDDEN * N_INNER], expected[N_HIDDEN * N_INNER];
    struct mb_expert_view out[2];
    struct test_weights w;
    struct mb_blob blob;
    struct mb_error err;
    const void *bytes;
    open_bound("coded", &w);
    assert_int_equal(mb_store_acquire(w.store, LAYER, experts, 2, out, &err), MB_OK);
    for (size_t i = 0; i < 2; i++) {
        char name[100];
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%u.moebius", LAYER, experts[i]);
        assert_int_equal(mb_checkpoint_map(w.ckpt, mb_checkpoint_find(w.ckpt, name), &bytes, &err), MB_OK);
        uint64_t nbytes = mb_checkpoint_find(w.ckpt, name)->nbytes;
        assert_int_equal(mb_blob_open(bytes, nbytes, &blob, &err), MB_OK);
        assert_int_equal(blob.n_matrices, N_PARTS);
        for (size_t k = 0; k < N_PARTS; k++) {
            const struct mb_matrix *matrix = out[i].matrices[k];
            size_t number = mb_index_find(w.index, parts_of(experts[i])[k].name)->blob_matrix;
            assert_int_equal(matrix->n_rows, parts_of(experts[i])[k].n_rows);
            values_of(matrix, values);
            mb_kernels()->decode_rows(&blob.matrix[number], 0, matrix->n_rows, expected);
            assert_memory_equal(values, expected, sizeof values);
        }
        mb_blob_close(&blob);
    }
    mb_store_release(w.store, LAYER, experts, 2);
    test_weights_close(&w);
}

/* One that is always needed and one that is acquired are the same view. */
static void an_expert_of_a_plain_folder_is_mapped(void **state)
{
    (void)state;
    const struct mb_matrix *matrix;
    struct mb_expert_view out;
    struct test_weights w;
    struct mb_error err;
    const void *bytes;
    open_bound("plain", &w);
    const struct mb_expert_part *up = &parts_of(0)[UP];
    assert_int_equal(mb_store_acquire(w.store, LAYER, &(uint32_t){0}, 1, &out, &err), MB_OK);
    assert_int_equal(mb_store_matrix(w.store, up->name, up->n_rows, up->n_cols, &matrix, &err), MB_OK);
    assert_ptr_equal(out.matrices[UP], matrix);
    assert_int_equal(mb_checkpoint_map(w.ckpt, mb_checkpoint_find(w.ckpt, up->name), &bytes, &err), MB_OK);
    assert_ptr_equal(matrix->dense, bytes);
    mb_store_release(w.store, LAYER, &(uint32_t){0}, 1);
    test_weights_close(&w);
}

static void acquiring_allocates_nothing(void **state)
{
    (void)state;
    static const uint32_t experts[] = {0, 1};
    struct mb_expert_view out[2];
    struct test_weights w;
    struct mb_error err;
    open_bound("coded", &w);
    starve_begin(STARVE_MEMORY, 0, false);
    for (int i = 0; i < 10; i++) {
        mb_store_prefetch(w.store, LAYER, experts, 2, MB_HINT_NEAR);
        mb_store_acquire(w.store, LAYER, experts, 2, out, &err);
        mb_store_acquire(w.store, LAYER, experts + 1, 1, out, &err);
        mb_store_release(w.store, LAYER, experts, 2);
        mb_store_release(w.store, LAYER, experts + 1, 1);
    }
    assert_int_equal(starve_end(), 0);
    test_weights_close(&w);
}

static void what_is_not_bound_is_not_acquired(void **state)
{
    (void)state;
    static const uint32_t many[MB_STORE_WAVE + 1];
    struct mb_expert_view out[MB_STORE_WAVE + 1];
    struct test_weights w;
    struct mb_error err;
    open_bound("coded", &w);
    assert_int_equal(mb_store_acquire(w.store, LAYER, &(uint32_t){N_EXPERTS}, 1, out, &err), MB_USAGE);
    assert_int_equal(mb_store_acquire(w.store, LAYER - 1, &(uint32_t){0}, 1, out, &err), MB_USAGE);
    assert_int_equal(mb_store_acquire(w.store, LAYER + 1, &(uint32_t){0}, 1, out, &err), MB_USAGE);
    assert_int_equal(mb_store_acquire(w.store, LAYER, many, MB_STORE_WAVE + 1, out, &err), MB_USAGE);
    assert_int_equal(mb_store_acquire(w.store, LAYER, many, MB_STORE_WAVE, out, &err), MB_OK);
    mb_store_release(w.store, LAYER, many, MB_STORE_WAVE);
    assert_int_equal(mb_store_bind_expert(w.store, LAYER, 0, parts_of(0), N_PARTS, &err), MB_USAGE);
    struct mb_expert_part missing = {"model.layers.1.mlp.experts.2.up_proj.weight", N_INNER, N_HIDDEN};
    assert_int_equal(mb_store_bind_expert(w.store, LAYER, 2, &missing, 1, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, missing.name));
    assert_int_equal(mb_store_acquire(w.store, LAYER, &(uint32_t){2}, 1, out, &err), MB_USAGE);
    test_weights_close(&w);
}

/* ---------------------------------------------------------------- changed weights */

static float zeros[N_HIDDEN * N_HIDDEN];

static struct mb_matrix changed_up(void)
{
    return (struct mb_matrix){.n_rows = N_INNER, .n_cols = N_HIDDEN, .dtype = MB_F32, .dense = zeros};
}

static void an_overlay_changes_one_matrix_and_comes_off_exactly(void **state)
{
    (void)state;
    static const uint32_t experts[] = {0, 1};
    struct mb_matrix changed = changed_up(), before[2][N_PARTS];
    struct mb_expert_view out[2];
    struct test_weights w;
    struct mb_error err;
    const char *name = parts_of(1)[UP].name;
    open_bound("coded", &w);
    assert_int_equal(mb_store_acquire(w.store, LAYER, experts, 2, out, &err), MB_OK);
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < N_PARTS; k++)
            before[i][k] = *out[i].matrices[k];
    mb_store_release(w.store, LAYER, experts, 2);

    assert_int_equal(mb_store_overlay(w.store, name, &changed, &err), MB_OK);
    assert_int_equal(mb_store_overlay(w.store, name, &changed, &err), MB_OK); /* over an overlay */
    memset(out, 0, sizeof out);
    assert_int_equal(mb_store_acquire(w.store, LAYER, experts, 2, out, &err), MB_OK);
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < N_PARTS; k++)
            if (i != 1 || k != UP)
                assert_memory_equal(out[i].matrices[k], &before[i][k], sizeof before[i][k]);
    assert_false(out[1].matrices[UP]->is_coded);
    assert_ptr_equal(out[1].matrices[UP]->dense, zeros);
    mb_store_release(w.store, LAYER, experts, 2);

    assert_int_equal(mb_store_overlay(w.store, name, NULL, &err), MB_OK);
    assert_int_equal(mb_store_overlay(w.store, name, NULL, &err), MB_OK); /* nothing there any more */
    assert_memory_equal(out[1].matrices[UP], &before[1][UP], sizeof before[1][UP]);
    test_weights_close(&w);
}

static void an_overlay_reaches_matrices_that_stay(void **state)
{
    (void)state;
    static const char name[] = "model.layers.0.self_attn.q_proj.weight";
    const struct mb_matrix *matrix;
    struct test_weights w;
    struct mb_error err;
    open_weights("coded", &w);
    const struct mb_weight_info *info = mb_index_find(w.index, name);
    struct mb_matrix changed = {.n_rows = info->n_rows, .n_cols = info->n_cols, .dense = zeros};
    assert_true(info->n_elems <= N_HIDDEN * N_HIDDEN);
    assert_int_equal(mb_store_matrix(w.store, name, info->n_rows, info->n_cols, &matrix, &err), MB_OK);
    assert_true(matrix->is_coded);
    assert_int_equal(mb_store_overlay(w.store, name, &changed, &err), MB_OK);
    assert_ptr_equal(matrix->dense, zeros);
    test_weights_close(&w); /* with the overlay on it */
}

static void an_overlay_has_the_shape_and_nobody_is_multiplying(void **state)
{
    (void)state;
    struct mb_matrix changed = changed_up();
    struct mb_expert_view out;
    struct test_weights w;
    struct mb_error err;
    open_bound("coded", &w);
    const char *up = parts_of(0)[UP].name;
    assert_int_equal(mb_store_overlay(w.store, parts_of(0)[2].name, &changed, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "[40, 48]"));
    assert_int_equal(mb_store_overlay(w.store, "none", &changed, &err), MB_BAD_DATA);
    assert_int_equal(mb_store_overlay(w.store, "model.norm.weight", &changed, &err), MB_BAD_DATA);
    assert_int_equal(mb_store_acquire(w.store, LAYER, &(uint32_t){1}, 1, &out, &err), MB_OK);
    assert_int_equal(mb_store_overlay(w.store, up, &changed, &err), MB_USAGE);
    mb_store_release(w.store, LAYER, &(uint32_t){1}, 1);
    assert_int_equal(mb_store_overlay(w.store, up, &changed, &err), MB_OK);
    test_weights_close(&w);
}

/* ---------------------------------------------------------------- damage */

static void copy_folder(void)
{
    char line[2400];
    test_remove(test_path("damaged"));
    snprintf(line, sizeof line, "cp -r '%s' '%s'", test_path("coded"), test_path("damaged"));
    assert_int_equal(system(line), 0); /* NOLINT(cert-env33-c): our own words */
}

/* Flips a byte of the blob of expert 1 in a copy of the coded folder; returns its shard's name. */
static const char *damage(uint64_t pos)
{
    static char shard[200];
    char path[1200];
    struct test_weights w;
    copy_folder();
    open_weights("coded", &w);
    const struct mb_tensor *blob = mb_index_find(w.index, parts_of(1)[UP].name)->tensor;
    snprintf(shard, sizeof shard, "%s", mb_checkpoint_shard_name(w.ckpt, blob->shard));
    snprintf(path, sizeof path, "%s/%s", test_path("damaged"), shard);
    size_t nbytes;
    uint8_t *bytes = test_read(path, &nbytes);
    bytes[blob->file_pos + pos] ^= 1;
    test_write(path, bytes, nbytes);
    free(bytes);
    test_weights_close(&w);
    return shard;
}

static void assert_told(const struct mb_error *err, const char *shard, const char *words)
{
    if (strstr(err->msg, shard) == NULL || strstr(err->msg, "model.layers.1.mlp.experts.1.moebius") == NULL ||
        strstr(err->msg, words) == NULL)
        fail_msg("not %s, the tensor and '%s': %s", shard, words, err->msg);
}

static void a_damaged_blob_is_refused_by_name_and_position(void **state)
{
    (void)state;
    struct mb_checkpoint *ckpt;
    struct mb_index *index;
    struct mb_store *store;
    struct mb_error err;
    const char *shard = damage(1000);
    assert_int_equal(mb_checkpoint_open(test_path("damaged"), &ckpt, &err), MB_OK);
    assert_int_equal(mb_index_open(ckpt, &index, &err), MB_OK); /* it reads no weights */
    assert_int_equal(mb_store_open(index, NULL, &store, &err), MB_BAD_DATA);
    assert_told(&err, shard, "byte 24: the payload's checksum");
    mb_index_close(index);
    mb_checkpoint_close(ckpt);
    shard = damage(45);
    assert_int_equal(mb_checkpoint_open(test_path("damaged"), &ckpt, &err), MB_OK);
    assert_int_equal(mb_index_open(ckpt, &index, &err), MB_BAD_DATA);
    assert_told(&err, shard, "byte 32: the header's checksum");
    mb_checkpoint_close(ckpt);
}

/* The blob of 'from' is written over that of 'to', after the index was opened: each is sound in itself. */
static enum mb_status open_overwritten(const char *to, const char *from, struct test_weights *w,
                                       struct mb_error *err)
{
    copy_folder();
    assert_int_equal(mb_checkpoint_open(test_path("damaged"), &w->ckpt, err), MB_OK);
    assert_int_equal(mb_index_open(w->ckpt, &w->index, err), MB_OK);
    const struct mb_tensor *source = mb_index_find(w->index, from)->tensor,
                           *target = mb_index_find(w->index, to)->tensor;
    uint8_t bytes[4096];
    assert_true(source->nbytes == sizeof bytes && target->nbytes == sizeof bytes);
    assert_int_equal(mb_checkpoint_read(w->ckpt, source, 0, bytes, sizeof bytes, err), MB_OK);
    int fd = open(mb_tensor_path(w->ckpt, target), O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, sizeof bytes, (off_t)target->file_pos), sizeof bytes);
    close(fd);
    w->store = NULL;
    return mb_store_open(w->index, NULL, &w->store, err);
}

static void a_file_that_changes_after_its_index_is_refused(void **state)
{
    (void)state;
    static const char q[] = "model.layers.0.self_attn.q_proj.weight",
                      k[] = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight";
    const struct mb_matrix *matrix;
    struct test_weights w;
    struct mb_error err;
    assert_int_equal(open_overwritten(q, parts_of(1)[UP].name, &w, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "has changed"));
    test_weights_close(&w);
    assert_int_equal(open_overwritten(parts_of(1)[UP].name, q, &w, &err), MB_OK);
    assert_int_equal(bind_all(w.store, &err), MB_BAD_DATA);
    assert_told(&err, ".safetensors", "has changed");
    test_weights_close(&w);
    assert_int_equal(open_overwritten(q, k, &w, &err), MB_OK);
    assert_int_equal(mb_store_matrix(w.store, q, N_HIDDEN, N_HIDDEN, &matrix, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "has changed"));
    test_weights_close(&w);
}

/* ---------------------------------------------------------------- memory that is out */

/* Everything that allocates, on a checkpoint that is open. */
static enum mb_status use_all(const struct mb_checkpoint *ckpt, enum mb_memory_form form,
                              struct mb_index **index, struct mb_store **store, struct mb_error *err)
{
    const struct mb_store_options options = {.size = sizeof options, .n_threads = 1, .memory_form = form};
    const struct mb_matrix changed = changed_up();
    enum mb_status status = mb_index_open(ckpt, index, err);
    if (status == MB_OK)
        status = mb_store_open(*index, &options, store, err);
    if (status == MB_OK)
        status = bind_all(*store, err);
    if (status == MB_OK)
        status = mb_store_overlay(*store, parts_of(0)[UP].name, &changed, err);
    return status;
}

/* Each allocation fails once. Returns whether a store kept weights as stored because memory was out. */
static bool starve(const struct mb_checkpoint *ckpt, enum mb_memory_form form)
{
    bool has_room = true;
    struct mb_error err;
    enum mb_status status = MB_NO_MEMORY;
    long n = 0;
    for (long n_calls = 1; n <= n_calls && n < 10000;) {
        struct mb_index *index = NULL;
        struct mb_store *store = NULL;
        struct starve_held before = starve_held();
        starve_begin(STARVE_MEMORY, ++n, false);
        status = use_all(ckpt, form, &index, &store, &err);
        n_calls = starve_end();
        if (status != MB_OK && status != MB_NO_MEMORY)
            fail_msg("allocation %ld: %s", n, err.msg);
        if (status == MB_OK && mb_store_memory(store).form_reason == MB_MEMORY_REASON_ROOM)
            has_room = false;
        mb_store_close(store);
        mb_index_close(index);
        struct starve_held after = starve_held();
        assert_int_equal(after.n_blocks, before.n_blocks);
        assert_int_equal(after.mapped_nbytes, before.mapped_nbytes);
        assert_int_equal(after.n_files, before.n_files);
    }
    assert_true(status == MB_OK && n > 10 && n < 10000);
    return !has_room;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    assert_int_equal(mb_checkpoint_open(test_path("coded"), &ckpt, &err), MB_OK);
    for (int form = MB_MEMORY_FORM_AUTO; form <= MB_MEMORY_FORM_FAST; form++)
        assert_true(starve(ckpt, (enum mb_memory_form)form) ==
                    (form == MB_MEMORY_FORM_AUTO && mb_kernels()->resident != NULL));
    mb_checkpoint_close(ckpt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_acquired_expert_is_the_stored_one),
        cmocka_unit_test(an_expert_of_a_plain_folder_is_mapped),
        cmocka_unit_test(acquiring_allocates_nothing),
        cmocka_unit_test(what_is_not_bound_is_not_acquired),
        cmocka_unit_test(an_overlay_changes_one_matrix_and_comes_off_exactly),
        cmocka_unit_test(an_overlay_reaches_matrices_that_stay),
        cmocka_unit_test(an_overlay_has_the_shape_and_nobody_is_multiplying),
        cmocka_unit_test(a_damaged_blob_is_refused_by_name_and_position),
        cmocka_unit_test(a_file_that_changes_after_its_index_is_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
