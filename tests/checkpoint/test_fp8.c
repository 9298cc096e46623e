/*
 * test_fp8.c - 8-bit matrices with scales: their values, from any byte on, and what is refused.
 */
#include "base/bytes.h"
#include "checkpoint/checkpoint.h"
#include "cmocka_all.h"
#include "folder.h"
#include <math.h>
#include <moebius/checkpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FP8_CONFIG "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]}}"
static const char WEIGHT[] = "model.layers.0.mlp.experts.0.gate_proj.weight";

static const char *folder;

static int begin(void **state)
{
    if (test_folder_begin(state) != 0)
        return -1;
    folder = strdup(test_path("model"));
    test_make_folder(folder);
    return 0;
}

static int end(void **state)
{
    free((char *)folder);
    return test_folder_end(state);
}

/* ---------------------------------------------------------------- a folder with one matrix */

enum { CODES_MAX = 300 * 400, SCALES_MAX = 1 << 16 };

static struct {
    uint64_t n_rows, n_cols;
    const char *config;
    const char *type, *scale_name, *scale_type;
    uint64_t scale_rows, scale_cols; /* scale_cols 0: one dimension; both 0: a single value */
    uint8_t codes[CODES_MAX], scales[4 * SCALES_MAX];
} m;

static void default_matrix(void)
{
    m.n_rows = 300;
    m.n_cols = 200;
    m.config = FP8_CONFIG;
    m.type = "F8_E4M3";
    m.scale_name = "model.layers.0.mlp.experts.0.gate_proj.weight_scale_inv";
    m.scale_type = "F32";
    m.scale_rows = 3;
    m.scale_cols = 2;
    for (size_t i = 0; i < CODES_MAX; i++) {
        m.codes[i] = (uint8_t)(i * 2654435761u >> 13);
        if ((m.codes[i] & 0x7f) == 0x7f)
            m.codes[i] = 0x80;
    }
    for (size_t i = 0; i < SCALES_MAX; i++)
        mb_store_u32(m.scales + 4 * i, mb_bits_of_float(0.001F * (float)(i % 97 + 1)));
}

static size_t scale_nbytes(void)
{
    return strcmp(m.scale_type, "F32") == 0 ? 4 : strcmp(m.scale_type, "BF16") == 0 ? 2 : 1;
}

static void write_matrix(void)
{
    static uint8_t data[CODES_MAX + sizeof m.scales];
    char header[1000], shape[64] = "";
    uint64_t n = m.scale_rows == 0 ? 1 : m.scale_rows * (m.scale_cols == 0 ? 1 : m.scale_cols);
    uint64_t n_codes = m.n_rows * m.n_cols, n_scales = n * scale_nbytes();
    if (m.scale_cols > 0)
        snprintf(shape, sizeof shape, "%d, %d", (int)m.scale_rows, (int)m.scale_cols);
    else if (m.scale_rows > 0)
        snprintf(shape, sizeof shape, "%d", (int)m.scale_rows);
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"%s\",\"shape\":[%d,%d],\"data_offsets\":[0,%d]},"
             "\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%d,%d]}}",
             WEIGHT, m.type, (int)m.n_rows, (int)m.n_cols, (int)n_codes, m.scale_name, m.scale_type, shape,
             (int)n_codes, (int)(n_codes + n_scales));
    memcpy(data, m.codes, n_codes);
    memcpy(data + n_codes, m.scales, n_scales);
    test_write_safetensors(folder, "model.safetensors", header, data, n_codes + n_scales);
    test_write_text(folder, "config.json", m.config);
}

static struct mb_checkpoint *open_matrix(void)
{
    struct mb_checkpoint *ckpt;
    struct mb_error err = {.status = MB_OK};
    write_matrix();
    if (mb_checkpoint_open(folder, &ckpt, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return ckpt;
}

/* ---------------------------------------------------------------- values */

static float scale_at(uint64_t i)
{
    if (scale_nbytes() == 4)
        return mb_float_of_bits(mb_load_u32(m.scales + 4 * i));
    return scale_nbytes() == 2 ? mb_float_of_bf16(mb_load_u16(m.scales + 2 * i))
                               : (float)ldexp(1, m.scales[i] - 127);
}

static float value_of(uint8_t code)
{
    int exponent = code >> 3 & 15, mantissa = code & 7;
    double size = exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 10);
    return (float)(code < 128 ? size : -size);
}

static void assert_values(uint64_t block_rows, uint64_t block_cols)
{
    static float values[CODES_MAX];
    static uint8_t out[4 * CODES_MAX + 16];
    struct mb_error err;
    struct mb_checkpoint *ckpt = open_matrix();
    const struct mb_tensor *tensor = mb_checkpoint_find(ckpt, WEIGHT);
    uint64_t n_blocks = (m.n_cols + block_cols - 1) / block_cols;
    for (uint64_t i = 0; i < m.n_rows * m.n_cols; i++)
        values[i] =
            value_of(m.codes[i]) * scale_at(i / m.n_cols / block_rows * n_blocks + i % m.n_cols / block_cols);
    assert_int_equal(tensor->type, MB_TENSOR_F32);
    assert_int_equal(tensor->nbytes, 4 * m.n_rows * m.n_cols);
    for (uint64_t i = 0; i < 60; i++) { /* all of it, then pieces of any length from anywhere */
        uint64_t pos = i * 7919 % tensor->nbytes, n = tensor->nbytes - pos;
        n = i == 0 ? n : i % 2 == 0 ? i % 9 : i * i * 104729 % (n + 1);
        memset(out, 0xa5, n + 16);
        assert_int_equal(mb_checkpoint_read(ckpt, tensor, pos, out, n, &err), MB_OK);
        assert_memory_equal(out, (const uint8_t *)values + pos, n);
        for (size_t k = 0; k < 16; k++)
            assert_int_equal(out[n + k], 0xa5);
    }
    mb_checkpoint_close(ckpt);
}

static void values_are_codes_times_the_scales_of_their_blocks(void **state)
{
    (void)state;
    default_matrix();
    assert_values(128, 128);
    m.config = "{\"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": \"e4m3\"}}"; /* the default */
    assert_values(128, 128);
    m.config = "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [7, 3]}}";
    m.scale_rows = 43;
    m.scale_cols = 67;
    assert_values(7, 3);
    m.config = "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [100, 1]}}";
    m.n_cols = 400; /* more scales in a row than are read at a time */
    m.scale_rows = 3;
    m.scale_cols = 400;
    assert_values(100, 1);
}

static void scales_may_be_bf16_or_powers_of_two(void **state)
{
    (void)state;
    default_matrix();
    m.scale_type = "BF16";
    for (size_t i = 0; i < 6; i++)
        mb_store_u16(m.scales + 2 * i, mb_bf16_of_float(0.01F * (float)(i + 1)));
    assert_values(128, 128);
    m.scale_type = "F8_E8M0";
    m.config = "{\"quantization_config\": {\"quant_method\": \"fp8\", \"scale_fmt\": \"ue8m0\"}}";
    for (size_t i = 0; i < 6; i++)
        m.scales[i] = (uint8_t)(100 + 7 * i);
    assert_values(128, 128);
}

static void one_scale_is_of_the_whole_matrix(void **state)
{
    (void)state;
    default_matrix();
    m.config = "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": null}}";
    m.scale_rows = m.scale_cols = 0;
    assert_values(300, 200);
    m.scale_rows = 1;
    assert_values(300, 200);
    m.scale_cols = 1;
    assert_values(300, 200);
}

static void scales_are_read_with_their_weights_and_no_tensors_of_their_own(void **state)
{
    (void)state;
    default_matrix();
    struct mb_checkpoint *ckpt = open_matrix();
    const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, 0);
    assert_int_equal(mb_checkpoint_n_tensors(ckpt), 1);
    assert_null(mb_checkpoint_find(ckpt, m.scale_name));
    assert_false(mb_tensor_is_mapped(ckpt, tensor));
    assert_int_equal(mb_tensor_stored_nbytes(ckpt, tensor), 300 * 200 + 6 * 4);
    assert_string_equal(mb_tensor_stored_type(ckpt, tensor), "F8_E4M3");
    assert_string_equal(tensor->type_name, "F32");
    mb_checkpoint_close(ckpt);
}

static void what_was_left_after_a_cast_to_bf16_is_no_harm(void **state)
{
    (void)state;
    default_matrix();
    m.type = "BF16";
    m.n_cols = 100; /* half of the codes */
    char header[600];
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"BF16\",\"shape\":[10,10],\"data_offsets\":[0,200]},"
             "\"%s\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[200,204]}}",
             WEIGHT, m.scale_name);
    test_write_safetensors(folder, "model.safetensors", header, m.scales, 204);
    test_write_text(folder, "config.json", FP8_CONFIG);
    struct mb_checkpoint *ckpt;
    assert_int_equal(mb_checkpoint_open(folder, &ckpt, NULL), MB_OK);
    assert_int_equal(mb_checkpoint_n_tensors(ckpt), 2);
    assert_int_equal(mb_checkpoint_find(ckpt, WEIGHT)->type, MB_TENSOR_BF16);
    mb_checkpoint_close(ckpt);
}

/* ---------------------------------------------------------------- refusals */

static void assert_refused(enum mb_status expected, const char *part)
{
    struct mb_checkpoint *ckpt;
    struct mb_error err = {.msg = ""};
    write_matrix();
    enum mb_status status = mb_checkpoint_open(folder, &ckpt, &err);
    if (status == MB_OK)
        mb_checkpoint_close(ckpt);
    if (status != expected || strstr(err.msg, part) == NULL)
        fail_msg("status %d, \"%s\" instead of %d, \"%s\"", status, err.msg, expected, part);
}

static void scales_that_are_missing_or_of_another_kind_are_refused(void **state)
{
    (void)state;
    default_matrix();
    m.scale_name = "model.layers.0.mlp.experts.0.up_proj.weight_scale_inv";
    assert_refused(MB_BAD_DATA, "gate_proj.weight_scale_inv is missing");
    m.scale_name = "model.layers.0.mlp.experts.0.gate_proj.weight_scale";
    assert_refused(MB_UNSUPPORTED, "gate_proj.weight_scale are not supported");
    default_matrix();
    m.scale_type = "U8";
    assert_refused(MB_UNSUPPORTED, "weight_scale_inv: scales of type U8");
}

static void scales_of_wrong_shapes_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t rows, cols;
    } shapes[] = {{2, 2}, {3, 1}, {2, 3}, {6, 0}, {300, 1}, {1, 1}};
    default_matrix();
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        m.scale_rows = shapes[i].rows;
        m.scale_cols = shapes[i].cols;
        assert_refused(MB_BAD_DATA, "is not [3, 2], a scale for each block of 128 x 128");
    }
    default_matrix();
    m.config = "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": null}}";
    assert_refused(MB_BAD_DATA, "weight_block_size is null");
}

static void configurations_that_do_not_say_how_to_read_them_are_refused(void **state)
{
    (void)state;
#define FP8_WITH(member) "{\"quantization_config\": {\"quant_method\": \"fp8\", " member "}}"
    static const struct {
        const char *config;
        enum mb_status status;
        const char *part;
    } cases[] = {
        {"{}", MB_UNSUPPORTED, "no quantization_config"},
        {"{\"quantization_config\": {\"quant_method\": \"gptq\"}}", MB_UNSUPPORTED, "'gptq'"},
        {"{\"quantization_config\": {\"quant_method\": \"compressed-tensors\"}}", MB_UNSUPPORTED,
         "'compressed-tensors'"},
        {FP8_WITH("\"weight_block_size\": [128]"), MB_BAD_DATA, "weight_block_size"},
        {FP8_WITH("\"weight_block_size\": [0, 128]"), MB_BAD_DATA, "weight_block_size"},
        {FP8_WITH("\"weight_block_size\": \"128\""), MB_BAD_DATA, "weight_block_size"},
        {FP8_WITH("\"weight_block_size\": [128, 1.5]"), MB_BAD_DATA, "weight_block_size"},
        {FP8_WITH("\"fmt\": \"e5m2\""), MB_UNSUPPORTED, "fmt"},
        {FP8_WITH("\"scale_fmt\": \"log\""), MB_UNSUPPORTED, "scale_fmt"},
        {FP8_WITH("\"expert_dtype\": \"fp4\""), MB_UNSUPPORTED, "expert_dtype"},
    };
    default_matrix();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        m.config = cases[i].config;
        assert_refused(cases[i].status, cases[i].part);
    }
}

static void scales_that_are_no_scales_are_named_by_position(void **state)
{
    (void)state;
    static const struct {
        float scale;
        const char *part;
    } cases[] = {
        {-1, "scale [2, 1] is negative or NaN"}, {NAN, "scale [2, 1] is negative or NaN"},
        {INFINITY, "scale [2, 1] is infinite"},  {1e37F, "scale [2, 1] is infinite or impossibly large"},
        {0, "scale [2, 1] is 0, but its block"},
    };
    static uint8_t out[4 * 300 * 200];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mb_error err;
        default_matrix();
        mb_store_u32(m.scales + 4 * 5, mb_bits_of_float(cases[i].scale));
        struct mb_checkpoint *ckpt = open_matrix();
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, 0);
        assert_int_equal(mb_checkpoint_read(ckpt, tensor, 0, out, 4 * 256 * 200, &err), MB_OK);
        assert_int_equal(mb_checkpoint_read(ckpt, tensor, 0, out, sizeof out, &err), MB_BAD_DATA);
        assert_non_null(strstr(err.msg, cases[i].part));
        assert_non_null(strstr(err.msg, "weight_scale_inv: byte"));
        mb_checkpoint_close(ckpt);
    }
    default_matrix();
    mb_store_u32(m.scales + 4 * 5, 0);
    for (size_t row = 256; row < 300; row++)
        memset(m.codes + row * 200 + 128, 0, 72);
    assert_values(128, 128);
}

static struct mb_compress_options usual(void)
{
    return (struct mb_compress_options){.size = sizeof(struct mb_compress_options), .n_threads = 2};
}

/* Its scales would have three dimensions too. */
static void fused_8_bit_experts_are_refused_by_name(void **state)
{
    (void)state;
    static const char header[] =
        "{\"model.layers.0.mlp.experts.gate_up_proj\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,6,4],"
        "\"data_offsets\":[0,48]},\"model.layers.0.mlp.experts.gate_up_proj_scale_inv\":{\"dtype\":\"F32\","
        "\"shape\":[2,1,1],\"data_offsets\":[48,56]},\"model.layers.0.mlp.experts.down_proj\":{\"dtype\":"
        "\"F8_E4M3\",\"shape\":[2,4,3],\"data_offsets\":[56,80]}}";
    static const uint8_t zeros[80];
    struct mb_error err = {.msg = ""};
    struct mb_compress_options options = usual();
    struct mb_compress_report report;
    test_write_safetensors(folder, "model.safetensors", header, zeros, sizeof zeros);
    test_write_text(folder, "config.json",
                    "{\"model_type\": \"qwen3_moe\", \"hidden_size\": 4, \"moe_intermediate_size\": 3, "
                    "\"num_experts\": 2, \"quantization_config\": {\"quant_method\": \"fp8\"}}");
    assert_int_equal(mb_compress(folder, test_path("coded"), &options, &report, &err), MB_UNSUPPORTED);
    if (strstr(err.msg, "experts.gate_up_proj: experts fused in one 8-bit tensor") == NULL)
        fail_msg("%s", err.msg);
}

/* ---------------------------------------------------------------- compress, verify, decompress */

static void bounds_and_verify_speak_of_the_values(void **state)
{
    (void)state;
    struct mb_error err = {.msg = ""};
    struct mb_compress_options options = usual();
    struct mb_compress_report made, predicted;
    struct mb_verify_report verified;
    struct mb_decompress_report plain;
    const char *coded = test_path("coded"), *out = test_path("out");
    default_matrix();
    write_matrix();
    assert_int_equal(mb_compress(folder, coded, &options, &made, &err), MB_OK);
    assert_int_equal(made.n_weights, 300 * 200);
    assert_int_equal(made.in_nbytes, 300 * 200 + 24);
    assert_int_equal(mb_verify(coded, folder, VERIFY_OPTIONS(.n_threads = 2), &verified, &err), MB_OK);
    assert_int_equal(verified.n_weights, 300 * 200);
    assert_int_equal(verified.n_broken, 0);
    options.dry_run = true;
    assert_int_equal(mb_compress(folder, test_path("none"), &options, &predicted, &err), MB_OK);
    assert_int_equal(predicted.in_nbytes, made.in_nbytes);
    assert_int_equal(predicted.n_weights, made.n_weights);
    m.codes[777] = m.codes[777] == 0x7e ? 0xfe : 0x7e; /* another original */
    write_matrix();
    assert_int_equal(mb_verify(coded, folder, VERIFY_OPTIONS(.n_threads = 2), &verified, &err), MB_OK);
    assert_int_equal(verified.n_broken, 1);
    assert_int_equal(mb_decompress(coded, out, DECOMPRESS_OPTIONS(.dtype = MB_BF16), &plain, &err), MB_OK);
    struct mb_checkpoint *ckpt;
    assert_int_equal(mb_checkpoint_open(out, &ckpt, &err), MB_OK);
    assert_int_equal(mb_checkpoint_n_tensors(ckpt), 1);
    assert_int_equal(mb_checkpoint_find(ckpt, WEIGHT)->type, MB_TENSOR_BF16);
    assert_null(strstr(mb_checkpoint_config_text(ckpt), "quantization_config"));
    mb_checkpoint_close(ckpt);
    test_remove(coded);
    test_remove(out);
}

static void nan_is_refused_by_its_position(void **state)
{
    (void)state;
    struct mb_error err = {.msg = ""};
    struct mb_compress_options options = usual();
    struct mb_compress_report report;
    default_matrix();
    m.codes[131 * 200 + 7] = 0xff;
    write_matrix();
    assert_int_equal(mb_compress(folder, test_path("coded"), &options, &report, &err), MB_BAD_DATA);
    char part[100];
    struct mb_checkpoint *ckpt = open_matrix();
    snprintf(part, sizeof part, "byte %d: weight [131, 7] is NaN",
             (int)mb_checkpoint_tensor(ckpt, 0)->file_pos + 131 * 200 + 7);
    mb_checkpoint_close(ckpt);
    assert_non_null(strstr(err.msg, part));
    test_remove(test_path("coded.partial"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_codes_times_the_scales_of_their_blocks),
        cmocka_unit_test(scales_may_be_bf16_or_powers_of_two),
        cmocka_unit_test(one_scale_is_of_the_whole_matrix),
        cmocka_unit_test(scales_are_read_with_their_weights_and_no_tensors_of_their_own),
        cmocka_unit_test(what_was_left_after_a_cast_to_bf16_is_no_harm),
        cmocka_unit_test(scales_that_are_missing_or_of_another_kind_are_refused),
        cmocka_unit_test(scales_of_wrong_shapes_are_refused),
        cmocka_unit_test(configurations_that_do_not_say_how_to_read_them_are_refused),
        cmocka_unit_test(scales_that_are_no_scales_are_named_by_position),
        cmocka_unit_test(fused_8_bit_experts_are_refused_by_name),
        cmocka_unit_test(bounds_and_verify_speak_of_the_values),
        cmocka_unit_test(nan_is_refused_by_its_position),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
