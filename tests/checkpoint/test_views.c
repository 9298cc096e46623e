/*
 * test_views.c - tensors that are computed from stored ones: every byte range of them, whatever their
 * strides.
 */
#include "checkpoint/views.h"
#include "cmocka_all.h"
#include "folder.h"
#include <stdio.h>
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

/* ---------------------------------------------------------------- fused experts */

/* A layer: H = 6, I = 4, E = 3, weights are their numbers in the file. */
struct fused_case {
    const char *model_type;
    const char *gate_up, *gate_up_shape, *down, *down_shape; /* the stored tensors */
    const char *stem, *parts[3];                             /* logical: gate, up, down */
    /* Element [r][c] of gate (0), up (1), down (2) of expert e in its tensor. */
    uint64_t (*at)(uint64_t e, int part, uint64_t r, uint64_t c);
};

enum { H = 6, I = 4, E = 3 };

static uint64_t at_plain(uint64_t e, int part, uint64_t r, uint64_t c)
{
    return part == 2 ? e * H * I + r * I + c : e * 2 * I * H + (r + (uint64_t)part * I) * H + c;
}

static uint64_t at_transposed(uint64_t e, int part, uint64_t r, uint64_t c)
{
    return part == 2 ? e * H * I + c * H + r : e * 2 * I * H + c * 2 * I + (uint64_t)part * I + r;
}

static uint64_t at_interleaved(uint64_t e, int part, uint64_t r, uint64_t c)
{
    return part == 2 ? e * H * I + c * H + r : e * 2 * I * H + c * 2 * I + 2 * r + (uint64_t)part;
}

#define USUAL                                                    \
    {                                                            \
        "gate_proj.weight", "up_proj.weight", "down_proj.weight" \
    }
#define NUMBERED                              \
    {                                         \
        "w1.weight", "w3.weight", "w2.weight" \
    }

static const struct fused_case fused_cases[] = {
    {"qwen3_moe", "model.layers.0.mlp.experts.gate_up_proj", "[3,8,6]",
     "model.layers.0.mlp.experts.down_proj", "[3,6,4]", "model.layers.0.mlp.experts", USUAL, at_plain},
    {"granitemoe", "model.layers.0.block_sparse_moe.input_linear.weight", "[3,8,6]",
     "model.layers.0.block_sparse_moe.output_linear.weight", "[3,6,4]",
     "model.layers.0.block_sparse_moe.experts", USUAL, at_plain},
    {"granitemoe", "model.layers.0.block_sparse_moe.experts.gate_up_proj", "[3,8,6]",
     "model.layers.0.block_sparse_moe.experts.down_proj", "[3,6,4]",
     "model.layers.0.block_sparse_moe.experts", USUAL, at_plain},
    {"mixtral", "model.layers.0.mlp.experts.gate_up_proj", "[3,8,6]", "model.layers.0.mlp.experts.down_proj",
     "[3,6,4]", "model.layers.0.block_sparse_moe.experts", NUMBERED, at_plain},
    {"qwen3_vl_moe_text", "model.language_model.layers.0.mlp.experts.gate_up_proj", "[3,6,8]",
     "model.language_model.layers.0.mlp.experts.down_proj", "[3,4,6]", "model.layers.0.mlp.experts", USUAL,
     at_transposed},
    {"qwen3_vl_moe_text", "model.language_model.layers.0.mlp.experts.gate_up_proj", "[3,8,6]",
     "model.language_model.layers.0.mlp.experts.down_proj", "[3,6,4]", "model.layers.0.mlp.experts", USUAL,
     at_plain},
    {"llama4_text", "language_model.model.layers.0.feed_forward.experts.gate_up_proj", "[3,6,8]",
     "language_model.model.layers.0.feed_forward.experts.down_proj", "[3,4,6]",
     "model.layers.0.feed_forward.experts", USUAL, at_transposed},
    {"gpt_oss", "model.layers.0.mlp.experts.gate_up_proj", "[3,6,8]", "model.layers.0.mlp.experts.down_proj",
     "[3,4,6]", "model.layers.0.mlp.experts", USUAL, at_interleaved},
    {"a_new_family", "model.layers.0.mlp.experts.gate_up_proj", "[3,8,6]",
     "model.layers.0.mlp.experts.down_proj", "[3,6,4]", "model.layers.0.mlp.experts", USUAL, at_plain},
};

static void write_config(const char *model_type, int n_hidden, int n_inner, int n_experts)
{
    char text[300];
    snprintf(text, sizeof text,
             "{\"model_type\": \"outer\", \"text_config\": {\"model_type\": \"%s\", \"hidden_size\": %d, "
             "\"moe_intermediate_size\": %d, \"num_experts\": %d, \"num_hidden_layers\": 2}}",
             model_type, n_hidden, n_inner, n_experts);
    test_write_text(folder, "config.json", text);
}

/* Two tensors of F32 numbers 0, 1, 2, ... each; the second may be left out. */
static void write_fused(const char *a, const char *a_shape, size_t n_a, const char *b, const char *b_shape,
                        size_t n_b)
{
    static float data[4096];
    char header[1200];
    int n =
        snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,%zu]}",
                 a, a_shape, 4 * n_a);
    if (b != NULL)
        n += snprintf(header + n, sizeof header - (size_t)n,
                      ",\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", b, b_shape,
                      4 * n_a, 4 * (n_a + n_b));
    snprintf(header + n, sizeof header - (size_t)n, "}");
    for (size_t i = 0; i < n_a + n_b; i++)
        data[i] = (float)(i < n_a ? i : i - n_a);
    test_write_safetensors(folder, "model.safetensors", header, data, 4 * (n_a + (b == NULL ? 0 : n_b)));
}

static void check_part(const struct mb_checkpoint *ckpt, const struct fused_case *want, uint64_t e, int part)
{
    char name[200];
    float weights[H * I];
    struct mb_error err;
    uint64_t n_rows = part == 2 ? H : I, n_cols = part == 2 ? I : H;
    snprintf(name, sizeof name, "%s.%d.%s", want->stem, (int)e, want->parts[part]);
    const struct mb_tensor *tensor = mb_checkpoint_find(ckpt, name);
    if (tensor == NULL)
        fail_msg("%s: there is no %s", want->model_type, name);
    assert_int_equal(tensor->n_dims, 2);
    assert_int_equal(tensor->shape[0], n_rows);
    assert_int_equal(tensor->shape[1], n_cols);
    assert_int_equal(mb_role_of(name).expert, e);
    assert_int_equal(mb_role_of(name).projection, MB_PROJECTION_GATE + part);
    assert_int_equal(mb_checkpoint_read(ckpt, tensor, 0, weights, sizeof weights, &err), MB_OK);
    for (uint64_t i = 0; i < n_rows * n_cols; i++)
        assert_float_equal(weights[i], (float)want->at(e, part, i / n_cols, i % n_cols), 0);
    /* Halves of plain experts lie in a row: they are mapped, not copied. */
    const void *bytes;
    bool is_mapped = want->at == at_plain;
    assert_int_equal(mb_tensor_is_mapped(ckpt, tensor), is_mapped);
    assert_int_equal(mb_checkpoint_map(ckpt, tensor, &bytes, &err), is_mapped ? MB_OK : MB_USAGE);
    if (is_mapped)
        assert_memory_equal(bytes, weights, sizeof weights);
}

static void fused_experts_are_cut_out_as_the_family_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof fused_cases / sizeof fused_cases[0]; i++) {
        const struct fused_case *want = &fused_cases[i];
        struct mb_checkpoint *ckpt;
        struct mb_error err;
        write_config(want->model_type, H, I, E);
        write_fused(want->gate_up, want->gate_up_shape, 2 * E * H * I, want->down, want->down_shape,
                    E * H * I);
        if (mb_checkpoint_open(folder, &ckpt, &err) != MB_OK)
            fail_msg("%s: %s", want->model_type, err.msg);
        assert_int_equal(mb_checkpoint_n_tensors(ckpt), 3 * E);
        for (uint64_t e = 0; e < E; e++)
            for (int part = 0; part < 3; part++)
                check_part(ckpt, want, e, part);
        mb_checkpoint_close(ckpt);
    }
}

#define GATE_UP "model.layers.0.mlp.experts.gate_up_proj"
#define DOWN "model.layers.0.mlp.experts.down_proj"

/* Refused, in one line with these words. */
static void assert_refused(enum mb_status expected, const char *words)
{
    struct mb_checkpoint *ckpt;
    struct mb_error err = {0};
    enum mb_status status = mb_checkpoint_open(folder, &ckpt, &err);
    if (status != expected || strstr(err.msg, words) == NULL || strchr(err.msg, '\n') != NULL)
        fail_msg("status %d, expected %d with '%s': %s", (int)status, (int)expected, words, err.msg);
}

static void fused_experts_of_wrong_shapes_are_refused(void **state)
{
    (void)state;
    write_config("qwen3_moe", 6, 4, 3);
    write_fused(GATE_UP, "[3,8,6]", 144, NULL, NULL, 0);
    assert_refused(MB_BAD_DATA, "tensor " GATE_UP ": " DOWN ", which belongs to it, is missing");
    write_fused(DOWN, "[3,6,4]", 72, NULL, NULL, 0);
    assert_refused(MB_BAD_DATA, "tensor " DOWN ": " GATE_UP ", which belongs to it, is missing");
    write_fused(GATE_UP, "[3,8,6]", 144, DOWN, "[72]", 72);
    assert_refused(MB_BAD_DATA, DOWN ", which belongs to it, is not fused");
    write_fused(GATE_UP, "[3,6,8]", 144, DOWN, "[3,6,4]", 72);
    assert_refused(MB_BAD_DATA, GATE_UP ": shape [3, 6, 8], but config.json (num_experts, hidden_size, "
                                        "moe_intermediate_size) asks for [3, 8, 6]");
    write_fused(GATE_UP, "[3,8,6]", 144, DOWN, "[3,4,6]", 72);
    assert_refused(MB_BAD_DATA, DOWN ": shape [3, 4, 6], but config.json");
    write_fused(GATE_UP, "[3,7,6]", 126, DOWN, "[3,6,4]", 72);
    assert_refused(MB_BAD_DATA, GATE_UP ": shape [3, 7, 6], but config.json");
    write_fused(GATE_UP, "[4,8,6]", 192, DOWN, "[4,6,4]", 96);
    assert_refused(MB_BAD_DATA, GATE_UP ": shape [4, 8, 6], but config.json (num_experts");
    write_fused(GATE_UP, "[0,8,6]", 0, DOWN, "[0,6,4]", 0);
    assert_refused(MB_BAD_DATA, ": shape [0, 6, 4], but config.json (num_experts");
    write_config("qwen3_vl_moe_text", 6, 4, 3);
    write_fused(GATE_UP, "[3,7,6]", 126, DOWN, "[3,6,4]", 72);
    assert_refused(MB_BAD_DATA, "asks for [3, 8, 6] or [3, 6, 8]");
    write_config("llama4_text", 6, 4, 3);
    write_fused(GATE_UP, "[3,8,6]", 144, DOWN, "[3,6,4]", 72);
    assert_refused(MB_BAD_DATA, "asks for [3, 6, 8]");
}

static void layouts_that_are_not_known_are_refused(void **state)
{
    (void)state;
    write_config("a_new_family", 6, 4, 3);
    write_fused(GATE_UP, "[3,6,8]", 144, DOWN, "[3,4,6]", 72);
    assert_refused(MB_UNSUPPORTED, "is not known for model_type 'a_new_family'");
    write_config("a_new_family", 8, 4, 3); /* [3, 2 x 4, 8] could be either */
    write_fused(GATE_UP, "[3,8,8]", 192, DOWN, "[3,8,4]", 96);
    assert_refused(MB_UNSUPPORTED, "is not known for model_type 'a_new_family'");
    write_fused("model.layers.0.mlp.experts.w13_weight", "[3,8,8]", 192, NULL, NULL, 0);
    assert_refused(MB_UNSUPPORTED, "in a way that is not known");
    test_write_text(folder, "config.json", "{\"model_type\": \"qwen3_moe\", \"hidden_size\": 6}");
    write_fused(GATE_UP, "[3,8,6]", 144, DOWN, "[3,6,4]", 72);
    assert_refused(MB_BAD_DATA, "config.json: intermediate_size is missing or no size");
    test_write_text(folder, "config.json",
                    "{\"hidden_size\": 6, \"intermediate_size\": 4, \"num_local_experts\": 3.5}");
    assert_refused(MB_BAD_DATA, "config.json: num_local_experts is missing or no size");
}

/* 2 I = H: the shape says nothing, the family does. */
static void the_family_decides_where_shapes_do_not(void **state)
{
    (void)state;
    static const struct {
        const char *model_type;
        uint64_t at; /* of up[0][1] of expert 0 */
    } cases[] = {{"qwen3_moe", 33}, {"qwen3_vl_moe_text", 33}, {"llama4_text", 12}, {"gpt_oss", 9}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mb_checkpoint *ckpt;
        struct mb_error err;
        float weights[32];
        write_config(cases[i].model_type, 8, 4, 3);
        bool is_plain = cases[i].at == 33;
        write_fused(GATE_UP, "[3,8,8]", 192, DOWN, is_plain ? "[3,8,4]" : "[3,4,8]", 96);
        assert_int_equal(mb_checkpoint_open(folder, &ckpt, &err), MB_OK);
        const struct mb_tensor *up = mb_checkpoint_find(ckpt, "model.layers.0.mlp.experts.0.up_proj.weight");
        assert_int_equal(mb_checkpoint_read(ckpt, up, 0, weights, sizeof weights, &err), MB_OK);
        assert_float_equal(weights[1], (float)cases[i].at, 0);
        mb_checkpoint_close(ckpt);
    }
}

static void experts_may_not_be_there_twice(void **state)
{
    (void)state;
    write_config("qwen3_moe", 6, 4, 3);
    char header[1000];
    static float data[144 + 72 + 24];
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"F32\",\"shape\":[3,8,6],\"data_offsets\":[0,576]},"
             "\"%s\":{\"dtype\":\"F32\",\"shape\":[3,6,4],\"data_offsets\":[576,864]},"
             "\"model.layers.0.mlp.experts.1.up_proj.weight\":{\"dtype\":\"F32\",\"shape\":[4,6],"
             "\"data_offsets\":[864,960]}}",
             GATE_UP, DOWN);
    test_write_safetensors(folder, "model.safetensors", header, data, sizeof data);
    assert_refused(MB_BAD_DATA, "model.layers.0.mlp.experts.1.up_proj.weight");
}

static void other_parts_of_a_model_are_left_alone_and_noted(void **state)
{
    (void)state;
    static const char *const names[] = {"model.language_model.layers.1.self_attn.o_proj.weight",
                                        "model.language_model.layers.2.eh_proj.weight",
                                        "model.visual.blocks.0.attn.o_proj.weight",
                                        "mtp.layers.0.mlp.experts.gate_up_proj",
                                        "language_model.lm_head.weight",
                                        "vision_tower.layers.7.mlp.up_proj.weight"};
    static const char *const logical[] = {
        "model.layers.1.self_attn.o_proj.weight", NULL, NULL, NULL, "lm_head.weight", NULL};
    char header[1000] = "";
    static float data[24];
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    for (size_t i = 0; i < 6; i++)
        snprintf(header + strlen(header), sizeof header - strlen(header),
                 "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[1,2,2],\"data_offsets\":[%zu,%zu]}",
                 i == 0 ? "{" : ",", names[i], 16 * i, 16 * i + 16);
    strcat(header, "}");
    write_config("qwen3_moe", 6, 4, 3);
    test_write_safetensors(folder, "model.safetensors", header, data, sizeof data);
    if (mb_checkpoint_open(folder, &ckpt, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(mb_checkpoint_n_tensors(ckpt), 6);
    for (size_t i = 0; i < 6; i++)
        assert_non_null(mb_checkpoint_find(ckpt, logical[i] == NULL ? names[i] : logical[i]));
    assert_non_null(
        strstr(mb_checkpoint_notes(ckpt),
               "2 tensors (0.0 MB) are of multi-token prediction, or of layers beyond num_hidden_layers"));
    assert_non_null(strstr(mb_checkpoint_notes(ckpt), "2 tensors (0.0 MB) are of towers"));
    mb_checkpoint_close(ckpt);
}

/* ---------------------------------------------------------------- there and back */

static void remove_outputs(void)
{
    test_remove(test_path("coded"));
    test_remove(test_path("plain"));
}

/* The model in 'folder' is coded, patterns in 'exact' are not, and decoded. */
static void go_there_and_back(const char *bound, const char *exact)
{
    struct mb_compress_options options = {.size = sizeof options, .has_bound = true, .dense = true};
    const struct mb_tensor_bound rule = {exact, {MB_BOUND_EXACT, 0}};
    struct mb_compress_report report;
    struct mb_decompress_report back;
    struct mb_verify_report verified;
    struct mb_error err;
    assert_int_equal(mb_bound_parse(bound, &options.bound, &err), MB_OK);
    options.tensor_bounds = &rule;
    options.n_tensor_bounds = exact != NULL;
    remove_outputs();
    if (mb_compress(folder, test_path("coded"), &options, &report, &err) != MB_OK ||
        mb_verify(test_path("coded"), folder, VERIFY_OPTIONS(.n_threads = 2), &verified, &err) != MB_OK ||
        mb_decompress(test_path("coded"), test_path("plain"), DECOMPRESS_OPTIONS(.dtype = MB_F32), &back,
                      &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(verified.n_broken, 0);
}

/* The same stored tensors, of the same shapes, with values at most 'eps' away. */
static void assert_same_stored(double eps)
{
    struct mb_checkpoint *a, *b;
    struct mb_error err;
    assert_int_equal(mb_checkpoint_open(folder, &a, &err), MB_OK);
    if (mb_checkpoint_open(test_path("plain"), &b, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(a->n_stored, b->n_stored);
    for (size_t i = 0; i < a->n_stored; i++) {
        const struct mb_tensor *x = a->stored[i], *y = NULL;
        for (size_t k = 0; k < b->n_stored; k++)
            if (strcmp(b->stored[k]->name, x->name) == 0)
                y = b->stored[k];
        if (y == NULL)
            fail_msg("%s is not there", x->name);
        assert_int_equal(x->n_dims, y->n_dims);
        assert_memory_equal(x->shape, y->shape, x->n_dims * sizeof x->shape[0]);
        float *xs = malloc(x->nbytes), *ys = malloc(y->nbytes);
        assert_int_equal(mb_stored_read(a, x, 0, xs, x->nbytes, &err), MB_OK);
        assert_int_equal(mb_stored_read(b, y, 0, ys, y->nbytes, &err), MB_OK);
        for (uint64_t k = 0; k < x->n_elems; k++)
            if (!((double)xs[k] - (double)ys[k] <= eps && (double)ys[k] - (double)xs[k] <= eps))
                fail_msg("%s[%d]: %g became %g", x->name, (int)k, (double)xs[k], (double)ys[k]);
        free(xs);
        free(ys);
    }
    mb_checkpoint_close(a);
    mb_checkpoint_close(b);
}

static void fused_experts_come_back_as_they_were(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof fused_cases / sizeof fused_cases[0]; i++) {
        const struct fused_case *want = &fused_cases[i];
        write_config(want->model_type, H, I, E);
        write_fused(want->gate_up, want->gate_up_shape, 2 * E * H * I, want->down, want->down_shape,
                    E * H * I);
        go_there_and_back("abs:0.3", NULL);
        assert_same_stored(0.3);
        go_there_and_back("0", NULL);
        assert_same_stored(0);
        go_there_and_back("abs:0.3", "experts\\.1\\.(up|w2)"); /* some coded, some not */
        assert_same_stored(0.3);
    }
    remove_outputs();
}

/* A coded folder, and then another text in its config.json. */
static void assert_not_decoded(const char *from, const char *to, const char *words)
{
    size_t n;
    char path[600];
    struct mb_decompress_report back;
    struct mb_error err = {0};
    snprintf(path, sizeof path, "%s/config.json", test_path("coded"));
    char *text = (char *)test_read(path, &n), *changed = NULL;
    char *terminated = strndup(text, n), *at = strstr(terminated, from);
    if (at == NULL)
        fail_msg("no %s in %s", from, terminated);
    assert_true(asprintf(&changed, "%.*s%s%s", (int)(at - terminated), terminated, to, at + strlen(from)) >
                0);
    test_write(path, changed, strlen(changed));
    enum mb_status status = mb_decompress(test_path("coded"), test_path("plain"), NULL, &back, &err);
    if (status != MB_BAD_DATA || strstr(err.msg, words) == NULL)
        fail_msg("status %d, not '%s': %s", (int)status, words, err.msg);
    test_write(path, text, n);
    free(text);
    free(terminated);
    free(changed);
}

#define SHARED "model.layers.1.shared_mlp."

static void a_shared_expert_in_one_matrix_comes_back_as_it_was(void **state)
{
    (void)state;
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    float up[4];
    write_config("granitemoeshared", H, I, E);
    write_fused(SHARED "input_linear.weight", "[8,6]", 48, SHARED "output_linear.weight", "[6,4]", 24);
    assert_int_equal(mb_checkpoint_open(folder, &ckpt, &err), MB_OK);
    assert_int_equal(mb_checkpoint_n_tensors(ckpt), 3);
    assert_non_null(
        mb_checkpoint_find(ckpt, "model.layers.1.block_sparse_moe.shared_experts.gate_proj.weight"));
    assert_non_null(
        mb_checkpoint_find(ckpt, "model.layers.1.block_sparse_moe.shared_experts.down_proj.weight"));
    const struct mb_tensor *tensor =
        mb_checkpoint_find(ckpt, "model.layers.1.block_sparse_moe.shared_experts.up_proj.weight");
    assert_non_null(tensor);
    assert_int_equal(tensor->shape[0], 4);
    assert_int_equal(tensor->shape[1], 6);
    assert_int_equal(mb_checkpoint_read(ckpt, tensor, 0, up, sizeof up, &err), MB_OK);
    assert_true(up[0] == 24 && up[3] == 27);
    mb_checkpoint_close(ckpt);
    go_there_and_back("abs:0.3", NULL);
    assert_same_stored(0.3);
    go_there_and_back("abs:0.3", "up_proj");
    assert_same_stored(0.3);
    test_remove(test_path("plain"));
    assert_not_decoded("\"shape\": [8, 6]", "\"shape\": [7, 6]", "an entry of 'fused' is not sound");
    assert_not_decoded("\"shape\": [8, 6]", "\"shape\": [8]", "an entry of 'fused' is not sound");
    assert_not_decoded("\"shape\": [8, 6]", "\"shape\": [8, 7]", "has not the shape of its place in " SHARED);
    remove_outputs();
    write_fused(SHARED "input_linear.weight", "[7,6]", 42, SHARED "output_linear.weight", "[6,4]", 24);
    assert_refused(MB_BAD_DATA, "input_linear.weight: no matrix of an even number of rows");
}

static void names_come_back_as_they_were(void **state)
{
    (void)state;
    static const char *const names[] = {
        "model.language_model.layers.1.self_attn.o_proj.weight",
        "model.language_model.layers.1.mlp.experts.0.up_proj.weight",
        "model.language_model.layers.2.mlp.experts.0.up_proj.weight",
        "model.language_model.norm.weight",
        "model.visual.layers.0.attn.o_proj.weight",
        "language_model.lm_head.weight",
        "model.layers.3.eh_proj.weight", /* beginning as others do after they were renamed */
        "mtp.norm.weight",
        "strange",
    };
    enum { N = sizeof names / sizeof names[0] };
    char header[1600] = "";
    static float data[16 * N];
    for (size_t i = 0; i < N; i++)
        snprintf(header + strlen(header), sizeof header - strlen(header),
                 "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[2,8],\"data_offsets\":[%zu,%zu]}",
                 i == 0 ? "{" : ",", names[i], 64 * i, 64 * i + 64);
    strcat(header, "}");
    for (size_t i = 0; i < 16 * N; i++)
        data[i] = (float)i;
    write_config("qwen3_moe", 8, 2, 1);
    test_write_safetensors(folder, "model.safetensors", header, data, sizeof data);
    go_there_and_back("abs:0.3", NULL);
    assert_same_stored(20); /* o_proj and head have a bound relative to their mean */
    remove_outputs();
}

static void a_damaged_memory_of_the_original_is_refused(void **state)
{
    (void)state;
    write_config("qwen3_moe", H, I, E);
    write_fused(GATE_UP, "[3,8,6]", 144, DOWN, "[3,6,4]", 72);
    go_there_and_back("abs:0.3", NULL);
    test_remove(test_path("plain"));
    const char *unsound = "original_tensors: an entry of 'fused' is not sound";
    assert_not_decoded("\"transposed\": false", "\"transposed\": 0", unsound);
    assert_not_decoded("\"parts\": [\"gate", "\"parts\": [\"x\", \"y\", \"gate", unsound);
    assert_not_decoded("\"shape\": [3,", "\"shape\": [0,", unsound);
    assert_not_decoded("\"shape\": [3,", "\"shape\": [3, 1,", unsound);
    assert_not_decoded("\"shape\": [3,", "\"shape\": [4294967295,", unsound);
    assert_not_decoded("\"shape\": [3, 8", "\"shape\": [3, 7", unsound);
    assert_not_decoded("\"shape\": [3,", "\"shape\": [4,",
                       "of its parts are in one file, others are missing");
    assert_not_decoded("\"shape\": [3, 8", "\"shape\": [3, 10", "has not the shape of its place in " GATE_UP);
    assert_not_decoded("\"transposed\": false", "\"transposed\": true", "has not the shape of its place in");
    assert_not_decoded("up_proj.weight\"]", "gate_proj.weight\"]", "a matrix is part of two tensors");
    assert_not_decoded("\"name\": \"" GATE_UP, "\"name\": \"" DOWN, "is there twice");
    assert_not_decoded("\"name\": \"" GATE_UP "\"", "\"name\": \"\"", unsound);
    assert_not_decoded("\"fused\": [", "\"renamed\": [1], \"fused\": [", "'renamed' is no object of names");
    assert_not_decoded("\"fused\": [", "\"renamed\": {\"a\": 1}, \"fused\": [",
                       "'renamed' is no object of names");
    remove_outputs();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_bytes_of_a_slice_are_read),
        cmocka_unit_test(fused_experts_are_cut_out_as_the_family_says),
        cmocka_unit_test(fused_experts_of_wrong_shapes_are_refused),
        cmocka_unit_test(layouts_that_are_not_known_are_refused),
        cmocka_unit_test(the_family_decides_where_shapes_do_not),
        cmocka_unit_test(experts_may_not_be_there_twice),
        cmocka_unit_test(other_parts_of_a_model_are_left_alone_and_noted),
        cmocka_unit_test(fused_experts_come_back_as_they_were),
        cmocka_unit_test(names_come_back_as_they_were),
        cmocka_unit_test(a_shared_expert_in_one_matrix_comes_back_as_it_was),
        cmocka_unit_test(a_damaged_memory_of_the_original_is_refused),
    };
    return cmocka_run_group_tests_name("checkpoint_views", tests, begin, end);
}
