/*
 * fp8.c - see fp8.h.
 */
#include "fp8.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/float8.h"
#include "roles.h"
#include "text_model.h"
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- scales */

enum { SCALES_AT_ONCE = 256, CODES_AT_ONCE = 8 << 10, SCALE_NBYTES_MAX = 4 };

/* Neighbouring scales of one row of blocks. */
struct scales {
    uint64_t row, first, n;
    float values[SCALES_AT_ONCE];
};

static uint64_t blocks(uint64_t n, uint64_t block)
{
    return (n - 1) / block + 1;
}

static float scale_of(const struct mb_tensor *scales, const uint8_t *bytes, uint64_t i)
{
    switch (scales->type) {
    case MB_TENSOR_F32:
        return mb_float_of_bits(mb_load_u32(bytes + 4 * i));
    case MB_TENSOR_F16:
        return mb_float_of_f16(mb_load_u16(bytes + 2 * i));
    case MB_TENSOR_BF16:
        return mb_float_of_bf16(mb_load_u16(bytes + 2 * i));
    default:
        return mb_float_of_e8m0(bytes[i]);
    }
}

static enum mb_status fail_scale(const struct mb_checkpoint *ckpt, const struct mb_view *view, uint64_t i,
                                 const char *what, struct mb_error *err)
{
    const struct mb_tensor *scales = view->scales;
    uint64_t n_cols = blocks(view->tensor.shape[1], view->block_cols);
    return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: byte %" PRIu64 ": scale [%" PRIu64 ", %" PRIu64 "] %s",
                   mb_tensor_path(ckpt, scales), scales->name, scales->file_pos + i * mb_elem_nbytes(scales),
                   i / n_cols, i % n_cols, what);
}

/* Those of a row of blocks from block 'first' on. */
static enum mb_status load_scales(const struct mb_checkpoint *ckpt, const struct mb_view *view, uint64_t row,
                                  uint64_t first, struct scales *scales, struct mb_error *err)
{
    uint8_t bytes[SCALES_AT_ONCE * SCALE_NBYTES_MAX];
    uint64_t n_cols = blocks(view->tensor.shape[1], view->block_cols), begin = row * n_cols + first;
    size_t elem_nbytes = mb_elem_nbytes(view->scales);
    *scales = (struct scales){.row = row, .first = first, .n = n_cols - first};
    if (scales->n > SCALES_AT_ONCE)
        scales->n = SCALES_AT_ONCE;
    MB_TRY(mb_stored_read(ckpt, view->scales, begin * elem_nbytes, bytes, scales->n * elem_nbytes, err));
    for (uint64_t i = 0; i < scales->n; i++) {
        float scale = scale_of(view->scales, bytes, i);
        if (!(scale >= 0))
            return fail_scale(ckpt, view, begin + i, "is negative or NaN", err);
        if (!(scale <= FLT_MAX / 448)) /* the largest value times it is finite */
            return fail_scale(ckpt, view, begin + i, "is infinite or impossibly large", err);
        scales->values[i] = scale;
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- values */

static void multiply(const uint8_t *codes, uint64_t n, float scale, uint8_t *out)
{
    for (uint64_t i = 0; i < n; i++)
        mb_store_u32(out + 4 * i, mb_bits_of_float(mb_float_of_e4m3(codes[i]) * scale));
}

static bool are_zero(const uint8_t *codes, uint64_t n)
{
    uint8_t all = 0;
    for (uint64_t i = 0; i < n; i++)
        all |= codes[i] & 0x7f;
    return all == 0;
}

/* Codes of elements 'first' to 'first' + n become values, block after block. */
static enum mb_status compute(const struct mb_checkpoint *ckpt, const struct mb_view *view, uint64_t first,
                              const uint8_t *codes, uint64_t n, struct scales *scales, uint8_t *out,
                              struct mb_error *err)
{
    uint64_t n_cols = view->tensor.shape[1];
    while (n > 0) {
        uint64_t row = first / n_cols / view->block_rows, col = first % n_cols,
                 block = col / view->block_cols;
        uint64_t in_block = view->block_cols - col % view->block_cols, in_row = n_cols - col;
        uint64_t n_run = in_block < in_row ? in_block : in_row;
        n_run = n_run < n ? n_run : n;
        if (scales->n == 0 || row != scales->row || block < scales->first ||
            block - scales->first >= scales->n)
            MB_TRY(load_scales(ckpt, view, row, block, scales, err));
        float scale = scales->values[block - scales->first];
        if (scale == 0 && !are_zero(codes, n_run))
            return fail_scale(ckpt, view, row * blocks(n_cols, view->block_cols) + block,
                              "is 0, but its block has values that are not", err);
        multiply(codes, n_run, scale, out);
        first += n_run;
        codes += n_run;
        out += 4 * n_run;
        n -= n_run;
    }
    return MB_OK;
}

static enum mb_status read_elems(const struct mb_checkpoint *ckpt, const struct mb_view *view, uint64_t first,
                                 uint64_t n, struct scales *scales, uint8_t *out, struct mb_error *err)
{
    uint8_t codes[CODES_AT_ONCE];
    while (n > 0) {
        uint64_t n_now = n < CODES_AT_ONCE ? n : CODES_AT_ONCE;
        MB_TRY(mb_stored_read(ckpt, view->stored, first, codes, n_now, err));
        MB_TRY(compute(ckpt, view, first, codes, n_now, scales, out, err));
        first += n_now;
        out += 4 * n_now;
        n -= n_now;
    }
    return MB_OK;
}

/* Whole elements in one piece; the first and the last one perhaps in part. */
static enum mb_status read_fp8(const struct mb_checkpoint *ckpt, const struct mb_view *view, uint64_t pos,
                               void *bytes, uint64_t nbytes, struct mb_error *err)
{
    uint8_t *out = bytes, elem[4];
    struct scales scales = {.n = 0};
    while (nbytes > 0) {
        uint64_t in_elem = pos % 4, n = in_elem == 0 ? nbytes / 4 * 4 : 0;
        if (n > 0) {
            MB_TRY(read_elems(ckpt, view, pos / 4, n / 4, &scales, out, err));
        } else {
            n = 4 - in_elem < nbytes ? 4 - in_elem : nbytes;
            MB_TRY(read_elems(ckpt, view, pos / 4, 1, &scales, elem, err));
            memcpy(out, elem + in_elem, n);
        }
        out += n;
        pos += n;
        nbytes -= n;
    }
    return MB_OK;
}

static uint64_t fp8_file_pos(const struct mb_view *view, uint64_t i)
{
    return view->stored->file_pos + i;
}

static const struct mb_view_kind fp8_view = {.read = read_fp8, .file_pos = fp8_file_pos};

/* ---------------------------------------------------------------- config.json */

struct block {
    uint64_t rows, cols; /* 0: a matrix has one scale */
};

static enum mb_status fail_key(const struct mb_checkpoint *ckpt, const char *key, const char *what,
                               struct mb_error *err)
{
    return mb_fail(err, MB_UNSUPPORTED, "%s/config.json: quantization_config: %s: %s", ckpt->path, key, what);
}

/* A member that is missing, null, or one of two words. */
static bool is_word(const json_t *config, const char *key, const char *a, const char *b)
{
    const json_t *value = json_object_get(config, key);
    const char *word = json_string_value(value);
    return value == NULL || json_is_null(value) || (word != NULL && (!strcmp(word, a) || !strcmp(word, b)));
}

static enum mb_status read_block(const struct mb_checkpoint *ckpt, const json_t *config, struct block *block,
                                 struct mb_error *err)
{
    const json_t *size = json_object_get(config, "weight_block_size");
    *block = (struct block){128, 128}; /* the default of transformers */
    if (size == NULL)
        return MB_OK;
    *block = (struct block){0, 0};
    if (json_is_null(size))
        return MB_OK;
    json_int_t rows = json_integer_value(json_array_get(size, 0)),
               cols = json_integer_value(json_array_get(size, 1));
    if (json_array_size(size) != 2 || rows < 1 || cols < 1 || rows > INT32_MAX || cols > INT32_MAX)
        return mb_fail(
            err, MB_BAD_DATA,
            "%s/config.json: quantization_config: weight_block_size: not two numbers of at least 1",
            ckpt->path);
    *block = (struct block){(uint64_t)rows, (uint64_t)cols};
    return MB_OK;
}

static const json_t *quantization_of(const struct mb_checkpoint *ckpt)
{
    const json_t *config = json_object_get(ckpt->config, "quantization_config");
    return config != NULL ? config : json_object_get(mb_text_config(ckpt), "quantization_config");
}

static enum mb_status read_config(const struct mb_checkpoint *ckpt, const struct mb_tensor *stored,
                                  struct block *block, struct mb_error *err)
{
    const json_t *config = quantization_of(ckpt);
    const char *method = json_string_value(json_object_get(config, "quant_method"));
    if (method == NULL || strcmp(method, "fp8") != 0)
        return mb_fail(
            err, MB_UNSUPPORTED,
            "%s: tensor %s: 8-bit weights, but config.json has no quantization_config with "
            "quant_method fp8, which says how to read them: take config.json from where the weights are from",
            mb_tensor_path(ckpt, stored), stored->name);
    if (!is_word(config, "fmt", "e4m3", "float8_e4m3fn"))
        return fail_key(ckpt, "fmt", "only e4m3 is supported; convert the weights to bf16", err);
    if (!is_word(config, "scale_fmt", "float", "ue8m0"))
        return fail_key(ckpt, "scale_fmt", "only float and ue8m0 are supported; convert the weights to bf16",
                        err);
    if (!is_word(config, "expert_dtype", "fp8", "fp8"))
        return fail_key(ckpt, "expert_dtype", "only fp8 is supported; convert the weights to bf16", err);
    return read_block(ckpt, config, block, err);
}

/* ---------------------------------------------------------------- the rule */

static const char WEIGHT[] = ".weight", SCALES[] = "_scale_inv";

static bool is_fp8_matrix(const struct mb_tensor *tensor)
{
    return tensor->type == MB_TENSOR_F8_E4M3 && tensor->n_dims == 2 && tensor->n_elems > 0 &&
           mb_name_ends_with(tensor->name, WEIGHT);
}

/* The tensor whose name is the first n bytes of 'name', and 'end'; NULL: there is none. */
static const struct mb_tensor *find_relative(const struct mb_checkpoint *ckpt, const char *name, size_t n,
                                             const char *end)
{
    char relative[MB_TENSOR_NAME_MAX + 32];
    snprintf(relative, sizeof relative, "%.*s%s", (int)n, name, end);
    return mb_checkpoint_find(ckpt, relative);
}

static enum mb_status fail_without_scales(const struct mb_checkpoint *ckpt, const struct mb_tensor *stored,
                                          struct mb_error *err)
{
    static const char *const others[] = {".weight_scale", ".scale", ".qscale_weight", ".scales"};
    size_t n_stem = strlen(stored->name) - strlen(WEIGHT);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        const struct mb_tensor *scales = find_relative(ckpt, stored->name, n_stem, others[i]);
        if (scales != NULL)
            return mb_fail(err, MB_UNSUPPORTED,
                           "%s: tensor %s: 8-bit weights with scales as %s are not supported, only "
                           "weight_scale_inv: convert them to bf16",
                           mb_tensor_path(ckpt, stored), stored->name, scales->name);
    }
    return mb_fail(err, MB_BAD_DATA,
                   "%s: tensor %s: 8-bit weights without scales: %s%s is missing; copy the files again, or "
                   "convert the weights to bf16",
                   mb_tensor_path(ckpt, stored), stored->name, stored->name, SCALES);
}

static bool is_scale_type(const struct mb_tensor *scales)
{
    return mb_tensor_is_float(scales) || strcmp(scales->type_name, "F8_E8M0") == 0;
}

/* Sets the sizes of a block. */
static enum mb_status match(const struct mb_checkpoint *ckpt, struct mb_view *view, struct block block,
                            struct mb_error *err)
{
    const struct mb_tensor *stored = view->stored, *scales = view->scales;
    if (!is_scale_type(scales))
        return mb_fail(err, MB_UNSUPPORTED,
                       "%s: tensor %s: scales of type %s are not supported, only F32, F16, BF16 and F8_E8M0: "
                       "convert the weights to bf16",
                       mb_tensor_path(ckpt, scales), scales->name, scales->type_name);
    view->block_rows = stored->shape[0];
    view->block_cols = stored->shape[1];
    if (scales->n_elems == 1 && (scales->n_dims < 2 || block.rows == 0))
        return MB_OK;
    if (block.rows == 0)
        return mb_fail(err, MB_BAD_DATA,
                       "%s: tensor %s: more than one scale, but weight_block_size is null in config.json",
                       mb_tensor_path(ckpt, scales), scales->name);
    view->block_rows = block.rows;
    view->block_cols = block.cols;
    uint64_t n_rows = blocks(stored->shape[0], block.rows), n_cols = blocks(stored->shape[1], block.cols);
    if (scales->n_dims == 2 && scales->shape[0] == n_rows && scales->shape[1] == n_cols)
        return MB_OK;
    return mb_fail(err, MB_BAD_DATA,
                   "%s: tensor %s: is not [%" PRIu64 ", %" PRIu64 "], a scale for each block of %" PRIu64
                   " x %" PRIu64 " of %s [%" PRIu64 ", %" PRIu64 "]",
                   mb_tensor_path(ckpt, scales), scales->name, n_rows, n_cols, block.rows, block.cols,
                   stored->name, stored->shape[0], stored->shape[1]);
}

static enum mb_status add_matrix(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                                 const struct mb_tensor *stored, struct mb_error *err)
{
    struct block block;
    struct mb_view view = {
        .tensor = *stored,
        .kind = &fp8_view,
        .stored = stored,
        .scales = find_relative(ckpt, stored->name, strlen(stored->name), SCALES),
    };
    if (view.scales == NULL)
        return fail_without_scales(ckpt, stored, err);
    MB_TRY(read_config(ckpt, stored, &block, err));
    MB_TRY(match(ckpt, &view, block, err));
    view.tensor.name = mb_logical_name(ckpt, stored->name);
    view.tensor.type = MB_TENSOR_F32;
    view.tensor.type_name = "F32";
    view.tensor.nbytes = 4 * stored->n_elems; /* elements that a file holds */
    return mb_views_add(list, &view, err);
}

static enum mb_status check_fused(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                  struct mb_error *err)
{
    if (tensor == NULL || tensor->type != MB_TENSOR_F8_E4M3 || tensor->n_dims != 3)
        return MB_OK;
    return mb_fail(
        err, MB_UNSUPPORTED,
        "%s: tensor %s: experts fused in one 8-bit tensor are not supported; take the checkpoint with a "
        "tensor for each expert, or convert it to bf16",
        mb_tensor_path(ckpt, tensor), tensor->name);
}

/* What is not of the text model is left as it is stored. */
enum mb_status mb_rule_fp8(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                           const struct mb_tensor *stored, bool *is_taken, struct mb_error *err)
{
    bool are_scales = mb_name_ends_with(stored->name, SCALES);
    if ((stored->type != MB_TENSOR_F8_E4M3 && !are_scales) || mb_part_of(ckpt, stored->name) != MB_PART_TEXT)
        return MB_OK;
    const struct mb_tensor *matrix = stored;
    if (are_scales)
        matrix = find_relative(ckpt, stored->name, strlen(stored->name) - strlen(SCALES), "");
    MB_TRY(check_fused(ckpt, matrix, err));
    *is_taken = matrix != NULL && is_fp8_matrix(matrix);
    return *is_taken && !are_scales ? add_matrix(list, ckpt, stored, err) : MB_OK;
}
