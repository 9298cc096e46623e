/*
 * test_disk.c - experts from disk: what the kernel refuses, what fails, and what must not be touched.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "starve.h"
#include "store/uring.h"
#include "weights.h"
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <moebius/offload.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_HIDDEN = 48,
    N_INNER = 40,
    LAYER = 1,
    N_EXPERTS = 12,
    N_PARTS = 3,
    UP = 1,
    N_HELD = 3,
    N_LARGE = 704
};

static int begin(void **state)
{
    struct mb_compress_options options = {.size = sizeof options};
    struct mb_compress_report report;
    struct mb_error err;
    struct test_model model = test_model_small();
    model.n_experts = N_EXPERTS;
    if (test_folder_begin(state) != 0)
        return -1;
    test_write_model(test_path("plain"), &model);
    enum mb_status status = mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err);
    if (status != MB_OK)
        print_error("%s\n", err.msg);
    return status == MB_OK ? 0 : -1;
}

/* ---------------------------------------------------------------- io_uring that fails, put in by the linker
 */

struct mb_uring *__real_mb_uring_open(unsigned n_max, int *error);
struct mb_uring *__wrap_mb_uring_open(unsigned n_max, int *error);
bool __real_mb_uring_submit(struct mb_uring *uring);
bool __wrap_mb_uring_submit(struct mb_uring *uring);
size_t __real_mb_uring_wait(struct mb_uring *uring, struct mb_uring_done *done, size_t n_max);
size_t __wrap_mb_uring_wait(struct mb_uring *uring, struct mb_uring_done *done, size_t n_max);

static int open_error;       /* 0: io_uring works */
static int n_busy;           /* so many times, the kernel takes nothing */
static int64_t read_outcome; /* 0: what it is; else what reads are said to have given */
static size_t n_good_reads;  /* but so many of them, which come first */

struct mb_uring *__wrap_mb_uring_open(unsigned n_max, int *error)
{
    *error = open_error;
    return open_error != 0 ? NULL : __real_mb_uring_open(n_max, error);
}

bool __wrap_mb_uring_submit(struct mb_uring *uring)
{
    if (n_busy > 0) {
        n_busy--;
        return false;
    }
    return __real_mb_uring_submit(uring);
}

size_t __wrap_mb_uring_wait(struct mb_uring *uring, struct mb_uring_done *done, size_t n_max)
{
    size_t n = __real_mb_uring_wait(uring, done, n_max);
    for (size_t i = 0; i < n && read_outcome != 0; i++)
        if (n_good_reads > 0)
            n_good_reads--;
        else
            done[i].n = read_outcome;
    return n;
}

/* ---------------------------------------------------------------- a store that has room for a few experts */

struct shape {
    const char *folder;
    size_t n_experts, n_hidden, n_inner;
};

static const struct shape small = {"coded", N_EXPERTS, N_HIDDEN, N_INNER};
static const struct shape *shape = &small; /* of the stores that are opened */

/* Codes a model of that shape; stores that are opened are of it from now on. */
static void make_shape(const struct shape *made, const struct mb_compress_options *options)
{
    char plain[64];
    struct mb_compress_report report;
    struct test_model model = test_model_small();
    model.n_experts = made->n_experts;
    model.n_hidden = made->n_hidden;
    model.n_inner = made->n_inner;
    snprintf(plain, sizeof plain, "%s-plain", made->folder);
    test_write_model(test_path(plain), &model);
    struct mb_error err;
    if (mb_compress(test_path(plain), test_path(made->folder), options, &report, &err) != MB_OK)
        fail_msg("%s: %s", made->folder, err.msg);
    shape = made;
}

static const struct mb_expert_part *parts_of(size_t expert)
{
    return test_expert_parts(expert, shape->n_hidden, shape->n_inner);
}

/* All matrices that are no experts' are needed. */
static enum mb_status keep_matrices(struct test_weights *w, struct mb_error *err)
{
    enum { N_MAX = 100 };
    const char *names[N_MAX];
    const struct mb_matrix *matrix;
    size_t n = mb_store_unused(w->store, names, N_MAX);
    assert_true(n <= N_MAX);
    for (size_t i = 0; i < n; i++) {
        const struct mb_weight_info *info = mb_index_find(w->index, names[i]);
        if (!info->is_matrix)
            continue;
        enum mb_status status = mb_store_matrix(w->store, names[i], info->n_rows, info->n_cols, &matrix, err);
        if (status != MB_OK)
            return status;
    }
    return MB_OK;
}

static struct mb_timeline timeline; /* of the stores that are opened */
static const struct mb_link_options *expert_link;

static enum mb_status open_limited(uint64_t nbytes, struct test_weights *w, struct mb_error *err)
{
    const struct mb_store_options options = {.size = sizeof options,
                                             .n_threads = 2,
                                             .memory_nbytes = nbytes,
                                             .n_experts_min = 2,
                                             .expert_link = expert_link,
                                             .timeline = timeline};
    enum mb_status status = test_weights_open_with(test_path(shape->folder), &options, w, err);
    for (size_t e = 0; e < shape->n_experts && status == MB_OK; e++)
        status = mb_store_bind_expert(w->store, LAYER, e, parts_of(e), N_PARTS, err);
    if (status == MB_OK)
        status = keep_matrices(w, err);
    if (status == MB_OK)
        status = mb_store_ready(w->store, err);
    if (status != MB_OK)
        test_weights_close(w);
    return status;
}

/* The limit that leaves room for N_HELD of them. */
static uint64_t limit_nbytes(void)
{
    static uint64_t limit;
    struct test_weights w;
    for (uint64_t nbytes = 4096; limit == 0; nbytes += 2048) {
        if (nbytes > 1 << 20)
            fail_msg("no limit leaves room for %d experts", N_HELD);
        if (open_limited(nbytes, &w, NULL) != MB_OK)
            continue;
        if (mb_store_memory(w.store).n_experts_held == N_HELD)
            limit = nbytes;
        test_weights_close(&w);
    }
    return limit;
}

static void open_streaming(struct test_weights *w)
{
    struct mb_error err;
    if (open_limited(limit_nbytes(), w, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(mb_store_memory(w->store).n_experts, N_EXPERTS);
}

/* All experts, one after another, have the values that they have in memory. */
static void assert_right(struct test_weights *w)
{
    static float values[N_LARGE * N_LARGE], expected[N_LARGE * N_LARGE];
    struct test_weights whole;
    struct mb_error err;
    if (open_limited(0, &whole, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(mb_store_memory(whole.store).reads, MB_READS_NONE);
    for (uint32_t e = 0; e < shape->n_experts; e++) {
        struct mb_expert_view streamed, held;
        assert_int_equal(mb_store_acquire(whole.store, LAYER, &e, 1, &held, &err), MB_OK);
        if (mb_store_acquire(w->store, LAYER, &e, 1, &streamed, &err) != MB_OK)
            fail_msg("%s", err.msg);
        for (size_t k = 0; k < N_PARTS; k++) {
            mb_matrix_rows(streamed.matrices[k], 0, streamed.matrices[k]->n_rows, values);
            mb_matrix_rows(held.matrices[k], 0, held.matrices[k]->n_rows, expected);
            assert_memory_equal(values, expected, shape->n_hidden * shape->n_inner * sizeof *values);
        }
        mb_store_release(w->store, LAYER, &e, 1);
        mb_store_release(whole.store, LAYER, &e, 1);
    }
    test_weights_close(&whole);
}

/* Sums of what a hook has seen. */
struct seen {
    pthread_mutex_t lock;
    uint64_t n[MB_N_TIMELINE_KINDS], n_bytes, n_checked, waited_ns, checked_ns, n_wrong;
    uint64_t read_until_ns[64]; /* by track */
};

static void see(void *ctx, const struct mb_timeline_event *event)
{
    struct seen *seen = ctx;
    pthread_mutex_lock(&seen->lock);
    seen->n[event->kind]++;
    seen->n_wrong += event->ended_ns < event->begun_ns || event->layer != LAYER;
    if (event->kind == MB_TIMELINE_WAIT) {
        seen->waited_ns += event->ended_ns - event->begun_ns;
    } else {
        seen->n_wrong += event->expert >= N_EXPERTS;
        if (event->kind == MB_TIMELINE_CHECK) {
            seen->checked_ns += event->ended_ns - event->begun_ns;
            seen->n_checked += event->n;
        }
    }
    if (event->kind == MB_TIMELINE_READ) {
        seen->n_bytes += event->n;
        seen->n_wrong += event->track >= 64 || event->begun_ns < seen->read_until_ns[event->track];
        seen->read_until_ns[event->track % 64] = event->ended_ns;
    }
    pthread_mutex_unlock(&seen->lock);
}

/* ---------------------------------------------------------------- reads */

static void without_io_uring_threads_read_and_it_is_said(void **state)
{
    (void)state;
    static const struct {
        int error;
        const char *words;
    } cases[] = {{ENOSYS, "has no io_uring"}, {EPERM, "forbidden"}, {ENOMEM, "cannot be used"}};
    struct test_weights w;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_error = cases[i].error;
        open_streaming(&w);
        open_error = 0;
        assert_int_equal(mb_store_memory(w.store).reads, MB_READS_THREADS);
        assert_non_null(strstr(mb_store_memory(w.store).reads_reason, cases[i].words));
        assert_right(&w);
        test_weights_close(&w);
    }
}

static void a_kernel_that_takes_no_read_for_a_while_is_asked_again(void **state)
{
    (void)state;
    struct test_weights w;
    open_streaming(&w);
    if (mb_store_memory(w.store).reads != MB_READS_IO_URING) {
        test_weights_close(&w);
        skip(); /* an emulator, or a container that forbids it */
    }
    n_busy = 20;
    assert_right(&w);
    assert_int_equal(n_busy, 0);
    test_weights_close(&w);
}

static void a_kernel_that_takes_no_read_any_more_is_done_without(void **state)
{
    (void)state;
    struct test_weights w;
    open_streaming(&w);
    if (mb_store_memory(w.store).reads != MB_READS_IO_URING) {
        test_weights_close(&w);
        skip();
    }
    n_busy = INT_MAX;
    assert_false(mb_store_traffic(w.store).has_left_io_uring);
    assert_right(&w);
    n_busy = 0;
    assert_true(mb_store_traffic(w.store).has_left_io_uring);
    assert_right(&w);
    test_weights_close(&w);
}

static void reads_that_fail_or_end_early_are_done_again(void **state)
{
    (void)state;
    static const int64_t outcomes[] = {-EIO, -EAGAIN, -EINTR, 1, 512};
    struct test_weights w;
    for (size_t i = 0; i < sizeof outcomes / sizeof *outcomes; i++) {
        open_streaming(&w);
        read_outcome = outcomes[i];
        assert_right(&w);
        read_outcome = 0;
        test_weights_close(&w);
    }
}

static void a_read_that_fails_is_told_by_file_and_tensor_and_not_kept(void **state)
{
    (void)state;
    static const enum starve_kind kinds[] = {STARVE_READ, STARVE_SHORT};
    struct mb_expert_view view;
    struct test_weights w;
    struct mb_error err;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        open_error = ENOSYS;
        open_streaming(&w);
        open_error = 0;
        starve_begin(kinds[i], 1, true);
        enum mb_status status = mb_store_acquire(w.store, LAYER, &(uint32_t){5}, 1, &view, &err);
        starve_end();
        assert_int_equal(status, kinds[i] == STARVE_READ ? MB_IO : MB_BAD_DATA);
        if (strstr(err.msg, ".safetensors: tensor model.layers.1.mlp.experts.5.moebius: ") == NULL)
            fail_msg("neither file nor tensor: %s", err.msg);
        assert_right(&w);
        test_weights_close(&w);
    }
}

static void reads_in_two_halves_are_no_failure(void **state)
{
    (void)state;
    struct test_weights w;
    open_error = ENOSYS;
    open_streaming(&w);
    open_error = 0;
    starve_begin(STARVE_HALF, 1, true);
    assert_right(&w);
    starve_end();
    test_weights_close(&w);
}

/* ---------------------------------------------------------------- experts of several ranges */

/* Of some 1.3 MB: two ranges each.  Opens a store that has room for two. */
static void open_large(struct test_weights *w)
{
    static const struct shape large = {"large-coded", 3, N_LARGE, N_LARGE};
    static uint64_t nbytes;
    struct mb_compress_options options = {.size = sizeof options, .has_bound = true};
    struct mb_error err;
    if (nbytes == 0) {
        assert_int_equal(mb_bound_parse("2%", &options.bound, NULL), MB_OK);
        make_shape(&large, &options);
        for (nbytes = 1 << 20; open_limited(nbytes, w, NULL) != MB_OK;)
            nbytes += 1 << 19;
        test_weights_close(w);
    }
    shape = &large;
    assert_int_equal(open_limited(nbytes, w, &err), MB_OK);
    assert_int_equal(mb_store_memory(w->store).n_experts_held, 2);
}

static void experts_larger_than_a_range_are_read_whole(void **state)
{
    (void)state;
    static const struct {
        int64_t outcome;
        size_t n_good;
    } cases[] = {{0, 0}, {-EIO, 0}, {512, 0}, {-EIO, 1}, {512, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER};
        struct test_weights w;
        timeline = (struct mb_timeline){see, &seen};
        open_large(&w);
        read_outcome = cases[i].outcome;
        n_good_reads = cases[i].n_good;
        assert_right(&w);
        read_outcome = 0;
        struct mb_store_traffic traffic = mb_store_traffic(w.store);
        bool is_uring = mb_store_memory(w.store).reads == MB_READS_IO_URING;
        assert_int_equal(traffic.n_read, 3);
        assert_true(traffic.read_nbytes > 3 << 20);
        if (cases[i].outcome == 0) {
            assert_int_equal(seen.n[MB_TIMELINE_READ], is_uring ? 6 : 3);
            assert_int_equal(seen.n_bytes, traffic.read_nbytes);
            assert_int_equal(seen.n_checked, traffic.read_nbytes);
        }
        test_weights_close(&w);
        timeline = (struct mb_timeline){0};
    }
    shape = &small;
}

/* Changes a byte of an expert's blob in its file. */
static void flip(const struct mb_tensor *tensor, const char *path, uint64_t at)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)(tensor->file_pos + at), SEEK_SET), 0);
    int byte = fgetc(f);
    assert_int_equal(fseek(f, (long)(tensor->file_pos + at), SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 0x10, f), byte ^ 0x10);
    assert_int_equal(fclose(f), 0);
}

/* Whatever range has the damage, and whether it is looked at while the other is read, the words are the same.
 */
static void damage_in_any_range_is_named(void **state)
{
    (void)state;
    static const char name[] = "model.layers.1.mlp.experts.1.gate_proj.weight";
    struct test_weights w[2];
    open_large(&w[0]);
    open_error = ENOSYS;
    open_large(&w[1]); /* there pread reads, and all is looked at in the end */
    open_error = 0;
    const struct mb_tensor *tensor = mb_index_find(w[0].index, name)->tensor;
    const uint64_t places[] = {8, 50, 120, 5000, (1 << 20) - 1, 1 << 20, tensor->nbytes - 1};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct mb_error err[2];
        flip(tensor, mb_tensor_path(w[0].ckpt, tensor), places[i]);
        for (size_t k = 0; k < 2; k++) {
            struct mb_expert_view view;
            enum mb_status status = mb_store_acquire(w[k].store, LAYER, &(uint32_t){1}, 1, &view, &err[k]);
            assert_int_equal(status, MB_BAD_DATA);
        }
        flip(tensor, mb_tensor_path(w[0].ckpt, tensor), places[i]);
        assert_string_equal(err[0].msg, err[1].msg);
        assert_non_null(
            strstr(err[0].msg, ".safetensors: tensor model.layers.1.mlp.experts.1.moebius: byte "));
    }
    for (size_t k = 0; k < 2; k++) {
        assert_right(&w[k]);
        test_weights_close(&w[k]);
    }
    shape = &small;
}

/* ---------------------------------------------------------------- memory */

/* Half of the experts with a tight bound, so that they are more than twice as large as the others. */
static void experts_of_different_sizes_leave_little_unused(void **state)
{
    (void)state;
    enum { N_SIDE = 192, N_MANY = 16 };
    static const struct shape mixed = {"mixed-coded", N_MANY, N_SIDE, N_SIDE};
    struct mb_tensor_bound tight = {.pattern = "experts\\.\\d\\."};
    struct mb_compress_options options = {
        .size = sizeof options, .tensor_bounds = &tight, .n_tensor_bounds = 1};
    struct mb_error err;
    assert_int_equal(mb_bound_parse("1%", &tight.bound, NULL), MB_OK);
    make_shape(&mixed, &options);
    uint64_t nbytes = 1 << 20, last_held = 0, n_refused = 0;
    for (size_t i = 0; i < 20; i++, nbytes += 1 << 17) {
        struct test_weights w;
        if (open_limited(nbytes, &w, &err) != MB_OK) {
            n_refused++;
            continue;
        }
        struct mb_store_memory memory = mb_store_memory(w.store);
        if (memory.reads == MB_READS_NONE) {
            test_weights_close(&w);
            continue;
        }
        assert_true(memory.pool_nbytes <= nbytes);
        assert_true(100 * memory.n_experts_held * (memory.expert_nbytes / N_MANY) >= 80 * memory.pool_nbytes);
        assert_true(memory.held_nbytes <= memory.pool_nbytes && memory.held_nbytes < memory.expert_nbytes);
        assert_true(100 * memory.held_nbytes >= 80 * memory.pool_nbytes);
        last_held = memory.n_experts_held;
        assert_right(&w);
        assert_right(&w);
        test_weights_close(&w);
    }
    assert_true(last_held > 0 && n_refused < 15);
    shape = &small;
}

static void what_is_begun_is_read_and_nobody_waits(void **state)
{
    (void)state;
    uint32_t experts[] = {4, 9};
    struct mb_expert_view out[2];
    struct test_weights w;
    struct mb_error err;
    open_streaming(&w);
    assert_int_equal(mb_store_begin(w.store, LAYER, experts, 2, MB_STORE_KEEP), 0);
    while (mb_store_traffic(w.store).n_read < 2)
        sched_yield();
    assert_int_equal(mb_store_begin(w.store, LAYER, experts, 2, MB_STORE_KEEP), 2);
    assert_int_equal(mb_store_acquire(w.store, LAYER, experts, 2, out, &err), MB_OK);
    mb_store_release(w.store, LAYER, experts, 2);
    assert_int_equal(mb_store_traffic(w.store).n_misses, 2);
    assert_int_equal(mb_store_traffic(w.store).waited_ns, 0);
    assert_int_equal(mb_store_begin(w.store, LAYER + 7, experts, 2, MB_STORE_KEEP), 0); /* no such layer */
    test_weights_close(&w);
}

/* Two experts are used in turn, and guesses, of which none is, fill the place that is left. */
static void guesses_that_are_wrong_are_read_for_a_while_only(void **state)
{
    (void)state;
    enum { N_WINDOW = 48, N_OTHERS = N_EXPERTS - 2 };
    struct mb_expert_view out;
    struct test_weights w;
    struct mb_error err;
    open_streaming(&w);
    for (uint32_t i = 0; i < 2 * N_WINDOW; i++) {
        uint32_t guess = i % N_OTHERS, expert = N_OTHERS + i % 2;
        assert_int_equal(mb_store_acquire(w.store, LAYER, &expert, 1, &out, &err), MB_OK);
        mb_store_release(w.store, LAYER, &expert, 1);
        if (i < 2) /* so that both are there */
            continue;
        mb_store_prefetch(w.store, LAYER, &guess, 1, MB_HINT_NEAR);
        while (mb_store_traffic(w.store).n_hinted < i - 1 && i - 1 <= N_WINDOW)
            sched_yield();
    }
    assert_int_equal(mb_store_traffic(w.store).n_hinted, N_WINDOW);
    assert_int_equal(mb_store_traffic(w.store).n_hints_used, 0);
    assert_int_equal(mb_store_traffic(w.store).n_misses, 2);
    /* Those from elsewhere are judged by themselves. */
    uint32_t guess = 0, other = 1;
    mb_store_prefetch(w.store, LAYER, &guess, 1, MB_HINT_FAR);
    mb_store_prefetch(w.store, LAYER, &other, 1, MB_HINT_FAR);
    while (mb_store_traffic(w.store).n_hinted == N_WINDOW)
        sched_yield();
    test_weights_close(&w);
}

/* ---------------------------------------------------------------- memory */

static void streaming_allocates_nothing(void **state)
{
    (void)state;
    struct mb_expert_view out[2];
    struct test_weights w;
    struct mb_error err;
    for (int with_threads = 0; with_threads <= 1; with_threads++) {
        open_error = with_threads ? ENOSYS : 0;
        open_streaming(&w);
        open_error = 0;
        starve_begin(STARVE_MEMORY, 0, false);
        for (uint32_t e = 0; e < 3 * N_EXPERTS; e++) {
            uint32_t experts[] = {e % N_EXPERTS, (e + 1) % N_EXPERTS};
            mb_store_prefetch(w.store, LAYER, experts + 1, 1, MB_HINT_NEAR);
            assert_int_equal(mb_store_acquire(w.store, LAYER, experts, 2, out, &err), MB_OK);
            mb_store_release(w.store, LAYER, experts, 2);
        }
        assert_int_equal(starve_end(), 0);
        assert_true(mb_store_traffic(w.store).n_misses >= N_EXPERTS);
        test_weights_close(&w);
    }
}

static void opening_starves(void **state)
{
    (void)state;
    uint64_t limit = limit_nbytes();
    struct test_weights w;
    struct mb_error err;
    long n = 0;
    for (bool is_done = false; !is_done;) {
        struct starve_held before = starve_held();
        starve_begin(STARVE_MEMORY, ++n, false);
        enum mb_status status = open_limited(limit, &w, &err);
        is_done = starve_end() < n;
        /* Without memory for io_uring, threads read. */
        if (status == MB_OK)
            test_weights_close(&w);
        else if (status != MB_NO_MEMORY)
            fail_msg("allocation %ld: %s", n, err.msg);
        struct starve_held after = starve_held();
        if (after.n_blocks != before.n_blocks || after.mapped_nbytes != before.mapped_nbytes ||
            after.n_files != before.n_files)
            fail_msg("allocation %ld: left behind %ld blocks, %ld mapped bytes, %ld files", n,
                     after.n_blocks - before.n_blocks, after.mapped_nbytes - before.mapped_nbytes,
                     after.n_files - before.n_files);
    }
    assert_true(n > 50);
}

static void more_than_memory_holds_is_refused_and_does_not_hang(void **state)
{
    (void)state;
    static const uint32_t experts[] = {0, 1, 2, 3};
    struct mb_expert_view out[4];
    struct test_weights w;
    struct mb_error err;
    open_streaming(&w);
    assert_int_equal(mb_store_acquire(w.store, LAYER, experts, 4, out, &err), MB_NO_MEMORY);
    assert_int_equal(mb_store_acquire(w.store, LAYER, experts, N_HELD, out, &err), MB_OK);
    assert_int_equal(mb_store_acquire(w.store, LAYER, experts + 3, 1, out, &err), MB_NO_MEMORY);
    mb_store_release(w.store, LAYER, experts, N_HELD);
    assert_right(&w);
    test_weights_close(&w);
}

/* ---------------------------------------------------------------- the policy */

/* Every other token uses the same expert, which is the first or the last one. */
static void a_single_layer_keeps_what_it_uses_most(void **state)
{
    (void)state;
    struct mb_expert_view out;
    struct test_weights w;
    struct mb_error err;
    for (uint32_t most = 0; most < N_EXPERTS; most += N_EXPERTS - 1) {
        open_streaming(&w);
        for (uint32_t i = 0; i < 2 * N_EXPERTS; i++) {
            uint32_t expert = i % 2 == 0 ? most : i / 2;
            assert_int_equal(mb_store_acquire(w.store, LAYER, &expert, 1, &out, &err), MB_OK);
            mb_store_release(w.store, LAYER, &expert, 1);
        }
        assert_int_equal(mb_store_traffic(w.store).n_misses, N_EXPERTS); /* each once */
        test_weights_close(&w);
    }
}

/* ---------------------------------------------------------------- the timeline */

static void a_timeline_shows_what_is_counted(void **state)
{
    (void)state;
    for (int with_threads = 0; with_threads <= 1; with_threads++) {
        struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER};
        struct test_weights w;
        timeline = (struct mb_timeline){see, &seen};
        open_error = with_threads ? ENOSYS : 0;
        open_streaming(&w);
        open_error = 0;
        timeline = (struct mb_timeline){0};
        seen = (struct seen){.lock = PTHREAD_MUTEX_INITIALIZER}; /* limits that were tried before */
        assert_right(&w);
        struct mb_store_traffic traffic = mb_store_traffic(w.store);
        assert_int_equal(traffic.n_misses, N_EXPERTS);
        assert_int_equal(seen.n[MB_TIMELINE_READ], traffic.n_read); /* these experts are small: a read each */
        assert_int_equal(seen.n[MB_TIMELINE_CHECK], traffic.n_read);
        assert_int_equal(seen.n_bytes, traffic.read_nbytes);
        assert_int_equal(seen.waited_ns, traffic.waited_ns);
        assert_int_equal(seen.checked_ns, traffic.checked_ns);
        assert_int_equal(seen.n_wrong, 0);
        test_weights_close(&w);
    }
}

static void a_timeline_shows_which_guesses_were_used(void **state)
{
    (void)state;
    struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct mb_expert_view out;
    struct test_weights w;
    struct mb_error err;
    timeline = (struct mb_timeline){see, &seen};
    open_streaming(&w);
    timeline = (struct mb_timeline){0};
    const uint32_t guesses[] = {7, 8};
    mb_store_prefetch(w.store, LAYER, guesses, 2, MB_HINT_NEAR);
    while (mb_store_traffic(w.store).n_read < 2)
        sched_yield();
    assert_int_equal(mb_store_acquire(w.store, LAYER, guesses, 1, &out, &err), MB_OK);
    mb_store_release(w.store, LAYER, guesses, 1);
    for (uint32_t e = 0; e < N_HELD; e++) {
        assert_int_equal(mb_store_acquire(w.store, LAYER, &e, 1, &out, &err), MB_OK);
        mb_store_release(w.store, LAYER, &e, 1);
    }
    assert_int_equal(seen.n[MB_TIMELINE_HINT_USED], 1);
    assert_int_equal(seen.n[MB_TIMELINE_HINT_WASTED], 1);
    assert_int_equal(mb_store_traffic(w.store).n_hints_used, 1);
    test_weights_close(&w);
}

/* ---------------------------------------------------------------- overlays */

static void an_overlay_on_a_streamed_expert_stays_while_it_comes_and_goes(void **state)
{
    (void)state;
    static float zeros[N_HIDDEN * N_INNER];
    const struct mb_matrix changed = {.n_rows = N_INNER, .n_cols = N_HIDDEN, .dtype = MB_F32, .dense = zeros};
    const char *name = parts_of(4)[UP].name;
    struct mb_expert_view out;
    struct mb_matrix original;
    struct test_weights w;
    struct mb_error err;
    open_streaming(&w);
    assert_int_equal(mb_store_overlay(w.store, name, &changed, &err), MB_OK);
    for (uint32_t e = 0; e < 2 * N_EXPERTS; e++) {
        uint32_t expert = e % N_EXPERTS;
        assert_int_equal(mb_store_acquire(w.store, LAYER, &expert, 1, &out, &err), MB_OK);
        assert_true(out.matrices[UP]->is_coded == (expert != 4));
        assert_true(out.matrices[0]->is_coded);
        mb_store_release(w.store, LAYER, &expert, 1);
    }
    assert_int_equal(mb_store_original(w.store, name, &original, &err), MB_UNSUPPORTED);
    assert_int_equal(mb_store_overlay(w.store, name, NULL, &err), MB_OK);
    assert_right(&w);
    test_weights_close(&w);
}

/* ---------------------------------------------------------------- links */

static void over_a_link_experts_come_no_earlier_and_are_the_same(void **state)
{
    (void)state;
    static const struct {
        struct mb_link_options link;
        int open_error;
        int64_t outcome;
    } cases[] = {{{.bytes_per_s = 20000000}, 0, 0},
                 {{.bytes_per_s = 20000000}, ENOSYS, 0},
                 {{.bytes_per_s = 50000000, .latency_ns = 200000, .depth = 1}, 0, 0},
                 {{.bytes_per_s = 50000000, .latency_ns = 200000, .depth = 2}, 0, -EIO}};
    limit_nbytes();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mb_link_options link = cases[i].link;
        struct test_weights w;
        link.size = sizeof link;
        expert_link = &link;
        open_error = cases[i].open_error;
        open_streaming(&w);
        open_error = 0;
        expert_link = NULL;
        read_outcome = cases[i].outcome;
        assert_right(&w);
        read_outcome = 0;
        struct mb_store_traffic traffic = mb_store_traffic(w.store);
        uint64_t least_ns = traffic.read_nbytes * UINT64_C(1000000000) / link.bytes_per_s;
        least_ns += link.depth == 1 ? traffic.n_read * link.latency_ns : link.latency_ns;
        assert_true(traffic.n_read >= N_EXPERTS && traffic.busy_ns >= least_ns);
        test_weights_close(&w);
    }
}

static void a_link_that_is_slow_for_an_hour_does_not_delay_closing(void **state)
{
    (void)state;
    static const struct mb_link_options slow = {
        .size = sizeof slow, .bytes_per_s = 1000, .latency_ns = UINT64_C(3600000000000)};
    for (int error = 0; error <= ENOSYS; error += ENOSYS) {
        uint32_t experts[] = {4, 9};
        struct test_weights w;
        limit_nbytes();
        expert_link = &slow;
        open_error = error;
        open_streaming(&w);
        open_error = 0;
        expert_link = NULL;
        assert_int_equal(mb_store_begin(w.store, LAYER, experts, 2, MB_STORE_KEEP), 0);
        test_weights_close(&w);
    }
}

static void a_link_that_is_none_is_refused(void **state)
{
    (void)state;
    static const struct mb_link_options links[] = {
        {.size = sizeof *links, .bytes_per_s = 999},
        {.size = sizeof *links, .bytes_per_s = 1000, .depth = 257}};
    struct test_weights w;
    struct mb_error err;
    uint64_t nbytes = limit_nbytes();
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        expert_link = &links[i];
        assert_int_equal(open_limited(nbytes, &w, &err), MB_USAGE);
        assert_non_null(strstr(err.msg, "link"));
    }
    expert_link = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_io_uring_threads_read_and_it_is_said),
        cmocka_unit_test(a_kernel_that_takes_no_read_for_a_while_is_asked_again),
        cmocka_unit_test(a_kernel_that_takes_no_read_any_more_is_done_without),
        cmocka_unit_test(reads_that_fail_or_end_early_are_done_again),
        cmocka_unit_test(a_read_that_fails_is_told_by_file_and_tensor_and_not_kept),
        cmocka_unit_test(reads_in_two_halves_are_no_failure),
        cmocka_unit_test(experts_larger_than_a_range_are_read_whole),
        cmocka_unit_test(damage_in_any_range_is_named),
        cmocka_unit_test(experts_of_different_sizes_leave_little_unused),
        cmocka_unit_test(what_is_begun_is_read_and_nobody_waits),
        cmocka_unit_test(guesses_that_are_wrong_are_read_for_a_while_only),
        cmocka_unit_test(streaming_allocates_nothing),
        cmocka_unit_test(opening_starves),
        cmocka_unit_test(more_than_memory_holds_is_refused_and_does_not_hang),
        cmocka_unit_test(a_single_layer_keeps_what_it_uses_most),
        cmocka_unit_test(a_timeline_shows_what_is_counted),
        cmocka_unit_test(a_timeline_shows_which_guesses_were_used),
        cmocka_unit_test(an_overlay_on_a_streamed_expert_stays_while_it_comes_and_goes),
        cmocka_unit_test(over_a_link_experts_come_no_earlier_and_are_the_same),
        cmocka_unit_test(a_link_that_is_slow_for_an_hour_does_not_delay_closing),
        cmocka_unit_test(a_link_that_is_none_is_refused),
    };
    json_set_alloc_funcs(starve_spared_malloc, free);
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
