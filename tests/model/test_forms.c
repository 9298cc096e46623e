/*
 * test_forms.c - the forms in which a model may be stored: experts in a tensor each or fused, names with and
 * without what models of text and images put before them, plain and coded.  They are one model, bit for bit.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <jansson.h>
#include <moebius/checkpoint.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"
enum { N_TOKENS = 20, N_VOCAB_MAX = 128 };

struct form {
    const char *name;           /* of a folder of CHECKPOINTS */
    const char *prefix;         /* takes the place of "model." */
    const char *head;           /* takes the place of "lm_head." */
    const char *from, *to;      /* part of names that is spelled otherwise */
    const char *gate_up, *down; /* follow a layer's ".experts" or, where it is Granite's, its place */
    const char *architecture;   /* of the whole, which has a text_config; NULL: none */
};

static const struct form forms[] = {
    {"qwen3-moe", "model.", "lm_head.", "", "", ".experts.gate_up_proj", ".experts.down_proj", NULL},
    {"groups", "model.", "lm_head.", "", "", ".experts.gate_up_proj", ".experts.down_proj", NULL},
    {"mixtral", "model.", "lm_head.", ".block_sparse_moe.", ".mlp.", ".experts.gate_up_proj",
     ".experts.down_proj", NULL},
    {"phimoe", "model.", "lm_head.", ".block_sparse_moe.", ".mlp.", ".experts.gate_up_proj",
     ".experts.down_proj", NULL},
    {"qwen3-moe", "language_model.model.", "language_model.lm_head.", "", "", NULL, NULL,
     "InternVLForConditionalGeneration"},
    {"qwen3-moe-mixed", "model.language_model.", "lm_head.", "", "", ".experts.gate_up_proj",
     ".experts.down_proj", "InternVLForConditionalGeneration"},
    {"groups", "language_model.model.", "language_model.lm_head.", "", "", NULL, NULL,
     "KimiVLForConditionalGeneration"},
};

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

/* ---------------------------------------------------------------- another form of a folder */

/* A safetensors file in the making. */
struct file {
    char header[1 << 16];
    size_t n_header;
    uint8_t data[4 << 20];
    size_t n_data, tensor_begin;
};

static void append(struct file *file, const struct mb_checkpoint *ckpt, const char *name)
{
    struct mb_error err;
    const struct mb_tensor *tensor = mb_checkpoint_find(ckpt, name);
    if (tensor == NULL)
        fail_msg("there is no %s", name);
    assert_true(file->n_data + tensor->nbytes <= sizeof file->data);
    must(mb_checkpoint_read(ckpt, tensor, 0, file->data + file->n_data, tensor->nbytes, &err), &err);
    file->n_data += tensor->nbytes;
}

/* What has been appended since the last call. */
static void end_tensor(struct file *file, const char *name, const char *type, const uint64_t *shape,
                       size_t n_dims)
{
    char dims[100] = "";
    for (size_t i = 0; i < n_dims; i++)
        snprintf(dims + strlen(dims), sizeof dims - strlen(dims), "%s%d", i == 0 ? "" : ",", (int)shape[i]);
    int n = snprintf(file->header + file->n_header, sizeof file->header - file->n_header,
                     "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                     file->n_header == 0 ? "{" : ",", name, type, dims, file->tensor_begin, file->n_data);
    assert_true(n > 0 && file->n_header + (size_t)n + 2 < sizeof file->header);
    file->n_header += (size_t)n;
    file->tensor_begin = file->n_data;
}

/* As the form spells a name, or the first n bytes of it. */
static void spell(const struct form *form, const char *name, size_t n, char out[400])
{
    char kept[300];
    snprintf(kept, sizeof kept, "%.*s", (int)n, name);
    const char *rest = kept, *begin = "";
    if (strncmp(kept, "model.", 6) == 0)
        begin = form->prefix, rest = kept + 6;
    else if (strncmp(kept, "lm_head.", 8) == 0)
        begin = form->head, rest = kept + 8;
    const char *at = form->from[0] == '\0' ? NULL : strstr(rest, form->from);
    if (at == NULL)
        snprintf(out, 400, "%s%s", begin, rest);
    else
        snprintf(out, 400, "%s%.*s%s%s", begin, (int)(at - rest), rest, form->to, at + strlen(form->from));
    if (strcmp(form->name, "phimoe") == 0 && strstr(out, ".mlp.gate.weight") != NULL)
        strcpy(strstr(out, ".mlp.gate.weight"), ".mlp.router.weight");
}

/* Tensor i is gate or down of expert 0: that of all experts, and up's after each gate's. */
static void fuse(struct file *file, const struct mb_checkpoint *ckpt, const struct form *form,
                 const struct mb_tensor *first, bool is_down)
{
    char name[300], out[400], fused[500];
    size_t n_stem = (size_t)(strstr(first->name, ".experts.0.") - first->name), n_experts = 0;
    const char *part = first->name + n_stem + strlen(".experts.0.");
    const char *other = strcmp(part, "w1.weight") == 0 ? "w3.weight" : "up_proj.weight";
    for (;; n_experts++) {
        snprintf(name, sizeof name, "%.*s.experts.%zu.%s", (int)n_stem, first->name, n_experts, part);
        if (mb_checkpoint_find(ckpt, name) == NULL)
            break;
        append(file, ckpt, name);
        snprintf(name, sizeof name, "%.*s.experts.%zu.%s", (int)n_stem, first->name, n_experts, other);
        if (!is_down)
            append(file, ckpt, name);
    }
    /* ".mlp." of the stem ends with its dot. */
    snprintf(name, sizeof name, "%.*s.", (int)n_stem, first->name);
    spell(form, name, strlen(name), out);
    snprintf(fused, sizeof fused, "%s%s", out, (is_down ? form->down : form->gate_up) + 1);
    const uint64_t shape[] = {n_experts, (is_down ? 1 : 2) * first->shape[0], first->shape[1]};
    end_tensor(file, fused, first->type_name, shape, 3);
}

static void add_tensor(struct file *file, const struct mb_checkpoint *ckpt, const struct form *form,
                       const struct mb_tensor *tensor)
{
    char out[400];
    struct mb_tensor_role role = mb_role_of(tensor->name);
    if (form->gate_up == NULL || role.role != MB_ROLE_EXPERT) {
        append(file, ckpt, tensor->name);
        spell(form, tensor->name, strlen(tensor->name), out);
        end_tensor(file, out, tensor->type_name, tensor->shape, tensor->n_dims);
    } else if (role.expert == 0 && role.projection != MB_PROJECTION_UP) {
        fuse(file, ckpt, form, tensor, role.projection == MB_PROJECTION_DOWN);
    }
}

static void write_form_config(const struct form *form, const struct mb_checkpoint *ckpt)
{
    json_t *text = json_loads(mb_checkpoint_config_text(ckpt), 0, NULL), *whole = text;
    if (form->architecture != NULL) {
        json_object_del(text, "architectures");
        whole = json_pack("{s:[s], s:s, s:o, s:{}}", "architectures", form->architecture, "model_type", "any",
                          "text_config", text, "vision_config");
    }
    char *out = json_dumps(whole, 0);
    test_write_text(test_path("form"), "config.json", out);
    free(out);
    json_decref(whole);
}

static void write_form(const struct form *form)
{
    static struct file file;
    static const uint64_t vision_shape[] = {2, 4};
    char path[512];
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    snprintf(path, sizeof path, "%s%s", CHECKPOINTS, form->name);
    must(mb_checkpoint_open(path, &ckpt, &err), &err);
    memset(&file, 0, sizeof file);
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++)
        add_tensor(&file, ckpt, form, mb_checkpoint_tensor(ckpt, i));
    if (form->architecture != NULL) {
        file.n_data += 32;
        end_tensor(&file, "vision_tower.layers.0.mlp.up_proj.weight", "F32", vision_shape, 2);
    }
    strcpy(file.header + file.n_header, "}");
    test_remove(test_path("form"));
    test_make_folder(test_path("form"));
    write_form_config(form, ckpt);
    test_write_safetensors(test_path("form"), "model.safetensors", file.header, file.data, file.n_data);
    mb_checkpoint_close(ckpt);
}

/* ---------------------------------------------------------------- the same logits */

struct logits {
    float at[N_TOKENS][N_VOCAB_MAX];
};

static struct logits run(const char *folder)
{
    static float rows[N_TOKENS * N_VOCAB_MAX];
    struct logits logits = {0};
    struct mb_error err;
    struct mb_model *model;
    struct mb_session *session;
    int32_t tokens[N_TOKENS];
    must(mb_model_open(folder, NULL, &model, &err), &err);
    size_t n_vocab = mb_model_info(model)->n_vocab;
    assert_true(n_vocab <= N_VOCAB_MAX);
    for (size_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (int32_t)((i * 31 + 7) % n_vocab);
    must(mb_session_open(model, NULL, &session, &err), &err);
    struct mb_batch_item item = {
        .session = session, .tokens = tokens, .n_tokens = N_TOKENS, .logits = rows, .all_logits = true};
    must(mb_decode(model, &item, 1, &err), &err);
    for (size_t i = 0; i < N_TOKENS; i++)
        memcpy(logits.at[i], rows + i * n_vocab, n_vocab * sizeof *rows);
    mb_session_close(session);
    mb_model_close(model);
    return logits;
}

static void assert_same_logits(const struct form *form, const char *a, const char *b)
{
    struct logits x = run(a), y = run(b);
    if (memcmp(&x, &y, sizeof x) != 0)
        fail_msg("%s with %s%s: other logits in %s", form->name, form->prefix,
                 form->gate_up == NULL ? "" : form->gate_up, b);
}

static void compress(const char *in, const char *out)
{
    struct mb_compress_report report;
    struct mb_error err;
    test_remove(out);
    must(mb_compress(in, out, NULL, &report, &err), &err);
}

static void all_forms_are_the_same_model(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s%s", CHECKPOINTS, forms[i].name);
        write_form(&forms[i]);
        assert_same_logits(&forms[i], path, test_path("form"));
        compress(path, test_path("coded"));
        compress(test_path("form"), test_path("coded-form"));
        assert_same_logits(&forms[i], test_path("coded"), test_path("coded-form"));
    }
}

static void a_text_model_of_an_unknown_family_is_refused_by_name(void **state)
{
    (void)state;
    struct mb_model *model;
    struct mb_error err = {0};
    write_form(&forms[4]);
    test_write_text(test_path("form"), "config.json",
                    "{\"architectures\": [\"Qwen3MoeForCausalLM\"], \"text_config\": {\"model_type\": "
                    "\"some_text\", \"num_hidden_layers\": 2}}");
    assert_int_equal(mb_model_open(test_path("form"), NULL, &model, &err), MB_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "config.json: text_config: architecture some_text"));
    test_write_text(test_path("form"), "config.json",
                    "{\"architectures\": [\"X\"], \"text_config\": {\"model_type\": \"qwen3_moe\", "
                    "\"hidden_size\": 0}}");
    assert_int_equal(mb_model_open(test_path("form"), NULL, &model, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "config.json: text_config: hidden_size"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms_are_the_same_model),
        cmocka_unit_test(a_text_model_of_an_unknown_family_is_refused_by_name),
    };
    return cmocka_run_group_tests_name("model_forms", tests, test_folder_begin, test_folder_end);
}
