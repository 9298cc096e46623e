/*
 * fused.c - see fused.h.
 */
#include "fused.h"
#include "base/error.h"
#include "roles.h"
#include "text_model.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- layouts */

struct mb_strides mb_fused_strides(const struct mb_fused_layout *layout, size_t expert, size_t part)
{
    uint64_t n_all = layout->n_parts * layout->n_rows; /* rows of all parts */
    uint64_t row = layout->is_transposed ? 1 : layout->n_cols;
    uint64_t first_row = layout->is_interleaved ? part : part * layout->n_rows;
    return (struct mb_strides){
        .first = expert * n_all * layout->n_cols + first_row * row,
        .row = layout->is_interleaved ? layout->n_parts * row : row,
        .col = layout->is_transposed ? n_all : 1,
    };
}

/* What is known of a family: which way its experts may lie. */
struct habit {
    const char *model_type;
    bool may_lie_plain, may_lie_transposed; /* where both fit, plain is meant, as in transformers */
    bool is_interleaved;
};

static const struct habit habits[] = {
    {"deepseek_v2", true, false, false},
    {"deepseek_v3", true, false, false},
    {"glm4_moe", true, false, false},
    {"glm4v_moe_text", true, false, false},
    {"gpt_oss", false, true, true},
    {"granitemoe", true, false, false},
    {"granitemoeshared", true, false, false},
    {"granitemoehybrid", true, false, false},
    {"llama4_text", false, true, false},
    {"mixtral", true, false, false},
    {"olmoe", true, false, false},
    {"phimoe", true, false, false},
    {"qwen2_moe", true, false, false},
    {"qwen3_moe", true, false, false},
    {"qwen3_next", true, false, false},
    {"qwen3_5_moe_text", true, false, false},
    {"qwen3_vl_moe_text", true, true, false},
    {"qwen3_omni_moe_text", true, false, false},
    {"llama4", false, true, false},
    {"qwen3_vl_moe", true, true, false},
    {"qwen3_5_moe", true, false, false},
    {"glm4v_moe", true, false, false},
};

/* Others are taken where they lie as transformers holds experts, and could not lie another way. */
static const struct habit *habit_of(const char *model_type)
{
    for (size_t i = 0; i < sizeof habits / sizeof habits[0]; i++)
        if (strcmp(model_type, habits[i].model_type) == 0)
            return &habits[i];
    return NULL;
}

/* ---------------------------------------------------------------- sizes */

struct sizes {
    uint64_t n_hidden, n_inner, n_experts;
    const char *inner_key, *experts_key;
};

/* The first of these keys that is there; 0: none is, or it is no size. */
static uint64_t read_size(const json_t *config, const char *const *keys, const char **key)
{
    for (; *keys != NULL; keys++) {
        const json_t *value = json_object_get(config, *keys);
        if (value == NULL || json_is_null(value))
            continue;
        *key = *keys;
        bool is_size = json_is_integer(value) && json_integer_value(value) > 0 &&
                       json_integer_value(value) <= UINT32_MAX;
        return is_size ? (uint64_t)json_integer_value(value) : 0;
    }
    *key = keys[-1];
    return 0;
}

static enum mb_status read_sizes(const struct mb_checkpoint *ckpt, const struct mb_tensor *stored,
                                 struct sizes *sizes, struct mb_error *err)
{
    static const char *const hidden_keys[] = {"hidden_size", NULL},
                             *const inner_keys[] = {"moe_intermediate_size", "intermediate_size", NULL},
                             *const experts_keys[] = {"n_routed_experts", "num_local_experts", "num_experts",
                                                      NULL};
    const json_t *config = mb_text_config(ckpt);
    const char *hidden_key, *missing = NULL;
    sizes->n_hidden = read_size(config, hidden_keys, &hidden_key);
    sizes->n_inner = read_size(config, inner_keys, &sizes->inner_key);
    sizes->n_experts = read_size(config, experts_keys, &sizes->experts_key);
    if (sizes->n_hidden == 0)
        missing = hidden_key;
    else if (sizes->n_inner == 0)
        missing = sizes->inner_key;
    else if (sizes->n_experts == 0)
        missing = sizes->experts_key;
    if (missing == NULL)
        return MB_OK;
    return mb_fail(
        err, MB_BAD_DATA,
        "%s/config.json: %s is missing or no size, but tensor %s holds experts, whose shapes it tells",
        ckpt->path, missing, stored->name);
}

/* ---------------------------------------------------------------- what a name means */

/* How the name of a fused tensor ends. */
struct ending {
    const char *end, *other; /* 'other': of the tensor that belongs to it, gate and up for down */
    const char *stem;        /* takes the place of 'end' in the names of experts */
    bool is_down;
};

static const struct ending endings[] = {
    {".experts.gate_up_proj", ".experts.down_proj", ".experts", false},
    {".experts.down_proj", ".experts.gate_up_proj", ".experts", true},
    {".experts.gate_up_proj.weight", ".experts.down_proj.weight", ".experts", false},
    {".experts.down_proj.weight", ".experts.gate_up_proj.weight", ".experts", true},
    {".block_sparse_moe.input_linear.weight", ".block_sparse_moe.output_linear.weight",
     ".block_sparse_moe.experts", false},
    {".block_sparse_moe.output_linear.weight", ".block_sparse_moe.input_linear.weight",
     ".block_sparse_moe.experts", true},
};

/* Of two dimensions; its down_proj is whole, and has another name alone (text_model.c). */
static const struct ending shared_ending = {".shared_mlp.input_linear.weight",
                                            ".shared_mlp.output_linear.weight",
                                            ".block_sparse_moe.shared_experts", false};

/* NULL: none of them. */
static const struct ending *ending_of(const char *name)
{
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        if (mb_name_ends_with(name, endings[i].end))
            return &endings[i];
    return NULL;
}

/* "A" and ending->end become "A" and 'text'; NULL: no memory. */
static char *with_ending(const char *name, const struct ending *ending, const char *text)
{
    char *out = NULL;
    int n_kept = (int)(strlen(name) - strlen(ending->end));
    return asprintf(&out, "%.*s%s", n_kept, name, text) < 0 ? NULL : out;
}

/* Fused in a way that we do not know: the engine would miss them, compress take them for no experts. */
static bool looks_fused(const char *name)
{
    return strstr(name, "experts") != NULL || strstr(name, ".input_linear.") != NULL ||
           strstr(name, ".output_linear.") != NULL;
}

/* ---------------------------------------------------------------- one tensor */

static bool has_shape(const struct mb_tensor *tensor, uint64_t n_experts, uint64_t a, uint64_t b)
{
    return tensor->shape[0] == n_experts && tensor->shape[1] == a && tensor->shape[2] == b;
}

static enum mb_status fail_shape(const struct mb_checkpoint *ckpt, const struct mb_tensor *stored,
                                 const struct sizes *sizes, const struct habit *habit, bool is_down,
                                 struct mb_error *err)
{
    uint64_t n_rows = is_down ? sizes->n_hidden : 2 * sizes->n_inner,
             n_cols = is_down ? sizes->n_inner : sizes->n_hidden;
    char plain[64], transposed[64];
    snprintf(plain, sizeof plain, "[%" PRIu64 ", %" PRIu64 ", %" PRIu64 "]", sizes->n_experts, n_rows,
             n_cols);
    snprintf(transposed, sizeof transposed, "[%" PRIu64 ", %" PRIu64 ", %" PRIu64 "]", sizes->n_experts,
             n_cols, n_rows);
    bool both = habit != NULL && habit->may_lie_plain && habit->may_lie_transposed;
    bool only_transposed = habit != NULL && !habit->may_lie_plain;
    return mb_fail(err, MB_BAD_DATA,
                   "%s: tensor %s: shape [%" PRIu64 ", %" PRIu64 ", %" PRIu64
                   "], but config.json (%s, hidden_size, %s) asks for %s%s%s",
                   mb_tensor_path(ckpt, stored), stored->name, stored->shape[0], stored->shape[1],
                   stored->shape[2], sizes->experts_key, sizes->inner_key,
                   only_transposed ? transposed : plain, both ? " or " : "", both ? transposed : "");
}

static enum mb_status find_layout(const struct mb_checkpoint *ckpt, const struct mb_tensor *stored,
                                  bool is_down, struct mb_fused_layout *layout, struct mb_error *err)
{
    const char *model_type = mb_text_model_type(ckpt);
    const struct habit *habit = habit_of(model_type);
    struct sizes sizes;
    MB_TRY(read_sizes(ckpt, stored, &sizes, err));
    uint64_t n_rows = is_down ? sizes.n_hidden : sizes.n_inner,
             n_cols = is_down ? sizes.n_inner : sizes.n_hidden, n_parts = is_down ? 1 : 2;
    bool fits_plain = has_shape(stored, sizes.n_experts, n_parts * n_rows, n_cols),
         fits_transposed = has_shape(stored, sizes.n_experts, n_cols, n_parts * n_rows);
    bool is_plain = fits_plain && (habit == NULL || habit->may_lie_plain),
         is_transposed = fits_transposed && habit != NULL && habit->may_lie_transposed;
    if (habit == NULL && fits_transposed)
        return mb_fail(
            err, MB_UNSUPPORTED,
            "%s: tensor %s: how its experts lie in [%" PRIu64 ", %" PRIu64 ", %" PRIu64
            "] is not known for model_type '%.64s'; take the checkpoint with a tensor for each expert",
            mb_tensor_path(ckpt, stored), stored->name, stored->shape[0], stored->shape[1], stored->shape[2],
            model_type);
    if ((!is_plain && !is_transposed) || sizes.n_experts > MB_FUSED_EXPERTS_MAX)
        return fail_shape(ckpt, stored, &sizes, habit, is_down, err);
    *layout = (struct mb_fused_layout){n_parts, n_rows, n_cols, !is_plain,
                                       n_parts > 1 && habit != NULL && habit->is_interleaved};
    return MB_OK;
}

/* Gate and up are of no use without down, nor down without them. */
static enum mb_status check_other(const struct mb_checkpoint *ckpt, const struct mb_tensor *stored,
                                  const struct ending *ending, struct mb_error *err)
{
    char *name = with_ending(stored->name, ending, ending->other);
    if (name == NULL)
        return mb_fail_memory(err, "the name of a tensor");
    const struct mb_tensor *other = mb_checkpoint_find(ckpt, name);
    enum mb_status status = MB_OK;
    if (other == NULL || other->n_dims != 3)
        status = mb_fail(err, MB_BAD_DATA, "%s: tensor %s: %.512s, which belongs to it, is %s",
                         mb_tensor_path(ckpt, stored), stored->name, name,
                         other == NULL ? "missing" : "not fused");
    free(name);
    return status;
}

static void name_parts(const struct mb_checkpoint *ckpt, bool is_down, const char *parts[2])
{
    const char *model_type = mb_text_model_type(ckpt);
    bool is_numbered = strcmp(model_type, "mixtral") == 0 || strcmp(model_type, "phimoe") == 0;
    parts[0] = is_numbered ? "w1.weight" : "gate_proj.weight";
    parts[1] = is_numbered ? "w3.weight" : "up_proj.weight";
    if (is_down)
        parts[0] = is_numbered ? "w2.weight" : "down_proj.weight";
}

size_t mb_fused_n_experts(const struct mb_fused *fused)
{
    return fused->tensor.n_dims == 2 ? 1 : (size_t)fused->tensor.shape[0];
}

char *mb_fused_part_name(const struct mb_fused *fused, size_t expert, size_t part)
{
    char *name = NULL;
    if (fused->tensor.n_dims == 2)
        return asprintf(&name, "%s.%s", fused->stem, fused->parts[part]) < 0 ? NULL : name;
    return asprintf(&name, "%s.%zu.%s", fused->stem, expert, fused->parts[part]) < 0 ? NULL : name;
}

static enum mb_status add_matrices(struct mb_view_list *list, const struct mb_fused *fused,
                                   const struct mb_tensor *stored, struct mb_error *err)
{
    for (size_t expert = 0; expert < mb_fused_n_experts(fused); expert++) {
        for (size_t part = 0; part < fused->layout.n_parts; part++) {
            struct mb_strides strides = mb_fused_strides(&fused->layout, expert, part);
            MB_TRY(mb_views_add_slice(list, stored, mb_fused_part_name(fused, expert, part), strides.first,
                                      fused->layout.n_rows, fused->layout.n_cols, strides.row, strides.col,
                                      err));
        }
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- the list of fused tensors */

static enum mb_status make_room(struct mb_view_list *list, struct mb_error *err)
{
    if ((list->n_fused & (list->n_fused - 1)) != 0) /* full at every power of two */
        return MB_OK;
    struct mb_fused *grown =
        realloc(list->fused, (list->n_fused == 0 ? 1 : 2 * list->n_fused) * sizeof *grown);
    if (grown == NULL)
        return mb_fail_memory(err, "the list of fused tensors");
    list->fused = grown;
    return MB_OK;
}

static enum mb_status note_fused(struct mb_view_list *list, const struct mb_tensor *stored,
                                 const char *logical, const struct ending *ending, struct mb_error *err)
{
    MB_TRY(make_room(list, err));
    struct mb_fused *fused = &list->fused[list->n_fused++];
    *fused = (struct mb_fused){.tensor = *stored};
    fused->tensor.name = strdup(stored->name);
    fused->stem = with_ending(logical, ending, ending->stem);
    if (fused->tensor.name == NULL || fused->stem == NULL)
        return mb_fail_memory(err, "the name of a tensor");
    if (strlen(fused->stem) + strlen(".16383.gate_proj.weight") > MB_TENSOR_NAME_MAX)
        return mb_fail(err, MB_UNSUPPORTED, "tensor %s: the names of its experts would be too long",
                       stored->name);
    return MB_OK;
}

void mb_free_fused(struct mb_fused *fused, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free((char *)fused[i].tensor.name);
        free(fused[i].stem);
    }
    free(fused);
}

static enum mb_status add_fused(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                                const struct mb_tensor *stored, const char *logical,
                                const struct ending *ending, struct mb_error *err)
{
    MB_TRY(check_other(ckpt, stored, ending, err));
    MB_TRY(note_fused(list, stored, logical, ending, err));
    struct mb_fused *fused = &list->fused[list->n_fused - 1];
    MB_TRY(find_layout(ckpt, stored, ending->is_down, &fused->layout, err));
    name_parts(ckpt, ending->is_down, fused->parts);
    return add_matrices(list, fused, stored, err);
}

/* Gate's rows and then up's. */
static enum mb_status add_shared(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                                 const struct mb_tensor *stored, const char *logical, struct mb_error *err)
{
    if (stored->n_dims != 2 || stored->n_elems == 0 || stored->shape[0] % 2 != 0)
        return mb_fail(err, MB_BAD_DATA,
                       "%s: tensor %s: no matrix of an even number of rows, gate's and up's",
                       mb_tensor_path(ckpt, stored), stored->name);
    MB_TRY(note_fused(list, stored, logical, &shared_ending, err));
    struct mb_fused *fused = &list->fused[list->n_fused - 1];
    fused->layout = (struct mb_fused_layout){2, stored->shape[0] / 2, stored->shape[1], false, false};
    name_parts(ckpt, false, fused->parts);
    return add_matrices(list, fused, stored, err);
}

static bool is_shared(const struct mb_checkpoint *ckpt, const struct mb_tensor *stored)
{
    return mb_name_ends_with(stored->name, shared_ending.end) &&
           strcmp(mb_text_model_type(ckpt), "granitemoeshared") == 0;
}

enum mb_status mb_rule_fused(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                             const struct mb_tensor *stored, bool *is_taken, struct mb_error *err)
{
    bool has_shared = is_shared(ckpt, stored);
    if ((stored->n_dims != 3 && !has_shared) || mb_part_of(ckpt, stored->name) != MB_PART_TEXT)
        return MB_OK;
    const struct ending *ending = has_shared ? &shared_ending : ending_of(stored->name);
    if (ending == NULL && !looks_fused(stored->name))
        return MB_OK;
    if (ending == NULL)
        return mb_fail(err, MB_UNSUPPORTED,
                       "%s: tensor %s: experts fused in one tensor in a way that is not known; take the "
                       "checkpoint with a tensor for each expert",
                       mb_tensor_path(ckpt, stored), stored->name);
    if (!mb_tensor_is_float(stored))
        return mb_fail(
            err, MB_UNSUPPORTED,
            "%s: tensor %s: experts fused in one tensor of type %s are not supported; convert them "
            "to bf16",
            mb_tensor_path(ckpt, stored), stored->name, stored->type_name);
    char *logical = mb_logical_name(ckpt, stored->name);
    if (logical == NULL)
        return mb_fail_memory(err, "the name of a tensor");
    enum mb_status status = has_shared ? add_shared(list, ckpt, stored, logical, err)
                                       : add_fused(list, ckpt, stored, logical, ending, err);
    free(logical);
    *is_taken = true;
    return status;
}
