/*
 * inspect.c - the verb "inspect": what a model folder holds, part by part.
 *
 * Weights of plain folders are not read.  Coded blobs are opened, and so checked, one after another.
 */
#include "base/error.h"
#include "base/json.h"
#include "cli.h"
#include "parameters.h"
#include "report.h"
#include <inttypes.h>
#include <moebius/checkpoint.h>
#include <moebius/perturb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_TYPES_MAX = 6, TYPES_NBYTES = 64 };

static struct {
    bool experts;
    const char *profile;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_FLAG(0, "experts", args.experts, "a line for each routed expert"),
    CLI_ROW_TEXT(0, "profile", "FILE.json", args.profile,
                 "beside each expert how much it was used ('eval --profile-out'); with --experts"),
    CLI_ROW_FORMAT("md|json", args.format, CLI_MD | CLI_JSON, "table (default) or JSON"),
};

static const struct cli_command command = {
    .name = "inspect",
    .args = "MODEL [options]",
    .summary = "Show what a model folder holds: parameters, parts, sizes; for coded folders bits and bounds.",
    .details = "  moebius inspect models/reference\n"
               "  moebius inspect reference-coded --experts\n"
               "  moebius inspect models/reference --experts --profile p.json",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

/* ---------------------------------------------------------------- counting */

/* Of a part of the model, or of one expert. */
struct sum {
    uint64_t n_tensors; /* matrices inside blobs count one each */
    uint64_t n_weights, nbytes;
    uint64_t n_coded, n_coded_weights, coded_nbytes, padding_nbytes;
    uint64_t n_groups, n_raw_groups, n_outliers;
    const char *types[N_TYPES_MAX]; /* of the original weights */
    size_t n_types;
};

struct expert {
    int layer, expert;
    struct sum sum;
};

struct shard_sum {
    uint64_t n_tensors, nbytes;
};

struct survey {
    struct sum parts[MB_N_ROLES], total;
    struct expert *experts; /* in order of their first tensors, then sorted */
    size_t n_experts, cap;
    struct shard_sum *shards;
    size_t n_shards;
    struct cli_parameters parameters;
    struct mb_profile *profile;               /* --profile; NULL: none */
    uint64_t n_output_errors, n_rows_clipped; /* matrices with a proved one; rows of these */
};

static void add_type(struct sum *sum, const char *type)
{
    for (size_t i = 0; i < sum->n_types; i++)
        if (strcmp(sum->types[i], type) == 0)
            return;
    if (sum->n_types < N_TYPES_MAX)
        sum->types[sum->n_types++] = type;
}

static void add_sum(struct sum *to, const struct sum *from)
{
    to->n_tensors += from->n_tensors;
    to->n_weights += from->n_weights;
    to->nbytes += from->nbytes;
    to->n_coded += from->n_coded;
    to->n_coded_weights += from->n_coded_weights;
    to->coded_nbytes += from->coded_nbytes;
    to->padding_nbytes += from->padding_nbytes;
    to->n_groups += from->n_groups;
    to->n_raw_groups += from->n_raw_groups;
    to->n_outliers += from->n_outliers;
    for (size_t i = 0; i < from->n_types; i++)
        add_type(to, from->types[i]);
}

static struct sum *find_expert(struct survey *survey, struct mb_tensor_role place)
{
    for (size_t i = survey->n_experts; i-- > 0;)
        if (survey->experts[i].layer == place.layer && survey->experts[i].expert == place.expert)
            return &survey->experts[i].sum;
    if (survey->n_experts == survey->cap) {
        size_t cap = survey->cap == 0 ? 256 : 2 * survey->cap;
        struct expert *grown = realloc(survey->experts, cap * sizeof *grown);
        if (grown == NULL)
            return NULL;
        survey->experts = grown;
        survey->cap = cap;
    }
    survey->experts[survey->n_experts] = (struct expert){.layer = place.layer, .expert = place.expert};
    return &survey->experts[survey->n_experts++].sum;
}

static enum mb_status add_to_survey(struct survey *survey, const struct mb_checkpoint *ckpt, const char *name,
                                    const struct sum *sum, struct mb_error *err)
{
    struct mb_tensor_role place = mb_role_of(name);
    add_sum(&survey->parts[place.role], sum);
    add_sum(&survey->total, sum);
    if (!cli_parameters_add(&survey->parameters, ckpt, name, sum->n_weights))
        return mb_fail_memory(err, "the list of layers");
    if (!args.experts || place.role != MB_ROLE_EXPERT)
        return MB_OK;
    struct sum *expert = find_expert(survey, place);
    if (expert == NULL)
        return mb_fail_memory(err, "the list of experts");
    add_sum(expert, sum);
    return MB_OK;
}

/* ---------------------------------------------------------------- coded blobs */

static void count_groups(const struct mb_coded_matrix *matrix, struct sum *sum)
{
    struct mb_coded_statistics counts = {0};
    mb_coded_statistics_add(&counts, matrix, 0, matrix->n_rows, NULL);
    sum->n_groups += counts.n_groups;
    sum->n_raw_groups += counts.n_raw_groups;
    sum->n_outliers += counts.n_outliers;
}

static struct sum sum_of_blob(const struct mb_tensor *tensor, const struct mb_blob *blob)
{
    static const char *const types[] = {[MB_F32] = "F32", [MB_F16] = "F16", [MB_BF16] = "BF16"};
    struct sum sum = {.n_tensors = blob->n_matrices,
                      .nbytes = blob->nbytes,
                      .n_coded = blob->n_matrices,
                      .coded_nbytes = blob->nbytes,
                      .padding_nbytes = tensor->nbytes - blob->nbytes};
    for (size_t i = 0; i < blob->n_matrices; i++) {
        sum.n_coded_weights += blob->matrix[i].n_rows * blob->matrix[i].n_cols;
        add_type(&sum, types[blob->matrix[i].dtype]);
        count_groups(&blob->matrix[i], &sum);
    }
    sum.n_weights = sum.n_coded_weights;
    return sum;
}

static bool is_blob(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor)
{
    static const char suffix[] = ".moebius";
    size_t n = strlen(tensor->name), n_suffix = sizeof suffix - 1;
    return mb_checkpoint_is_coded(ckpt) && tensor->type == MB_TENSOR_U8 && tensor->n_dims == 1 &&
           n > n_suffix && strcmp(tensor->name + n - n_suffix, suffix) == 0;
}

static enum mb_status count_output_errors(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                          const struct mb_blob *blob, struct survey *survey,
                                          struct mb_error *err)
{
    for (size_t i = 0; i < blob->n_matrices; i++) {
        struct mb_output_error error;
        char *name = mb_blob_full_name(tensor, &blob->info[i]);
        if (name == NULL)
            return mb_fail_memory(err, "the name of a tensor");
        if (mb_output_error_of(ckpt, tensor, name, &error)) {
            survey->n_output_errors++;
            survey->n_rows_clipped += error.n_rows_clipped;
        }
        free(name);
    }
    return MB_OK;
}

/*
 * "STEM.moebius" holds "STEM." + the first matrix's name, which tells what the blob is.  We read the
 * blob into memory: were it mapped, truncating the file meanwhile would kill the program.
 */
static enum mb_status survey_bytes(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                   uint8_t *bytes, struct survey *survey, struct mb_error *err)
{
    struct mb_blob blob;
    MB_TRY(mb_checkpoint_read(ckpt, tensor, 0, bytes, tensor->nbytes, err));
    enum mb_status status = mb_blob_open(bytes, tensor->nbytes, &blob, err);
    if (status != MB_OK)
        return mb_fail_in(err, status, "%s/%s: tensor %s", mb_checkpoint_path(ckpt),
                          mb_checkpoint_shard_name(ckpt, tensor->shard), tensor->name);
    struct sum sum = sum_of_blob(tensor, &blob);
    char *name = NULL;
    int n_stem = (int)(strlen(tensor->name) - strlen("moebius"));
    if (asprintf(&name, "%.*s%.*s", n_stem, tensor->name, (int)blob.info[0].name_nbytes, blob.info[0].name) <
        0)
        status = mb_fail_memory(err, "the name of a tensor");
    else
        status = add_to_survey(survey, ckpt, name, &sum, err);
    free(name);
    if (status == MB_OK)
        status = count_output_errors(ckpt, tensor, &blob, survey, err);
    mb_blob_close(&blob);
    return status;
}

static enum mb_status survey_blob(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                  struct survey *survey, struct mb_error *err)
{
    uint8_t *bytes = malloc(tensor->nbytes + MB_SLACK_NBYTES);
    if (bytes == NULL)
        return mb_fail_memory(err, "a coded tensor");
    enum mb_status status = survey_bytes(ckpt, tensor, bytes, survey, err);
    free(bytes);
    return status;
}

/* ---------------------------------------------------------------- the whole folder */

static enum mb_status survey_tensor(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                    struct survey *survey, struct mb_error *err)
{
    survey->shards[tensor->shard].n_tensors++;
    uint64_t nbytes = mb_tensor_stored_nbytes(ckpt, tensor);
    survey->shards[tensor->shard].nbytes += nbytes;
    if (is_blob(ckpt, tensor))
        return survey_blob(ckpt, tensor, survey, err);
    struct sum sum = {.n_tensors = 1, .n_weights = tensor->n_elems, .nbytes = nbytes};
    add_type(&sum, mb_tensor_stored_type(ckpt, tensor));
    return add_to_survey(survey, ckpt, tensor->name, &sum, err);
}

static int by_layer_and_expert(const void *a, const void *b)
{
    const struct expert *x = a, *y = b;
    return x->layer != y->layer ? x->layer - y->layer : x->expert - y->expert;
}

static enum mb_status survey_tensors(const struct mb_checkpoint *ckpt, struct survey *survey,
                                     struct cli_progress *progress, struct mb_error *err)
{
    uint64_t done = 0;
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        MB_TRY(survey_tensor(ckpt, tensor, survey, err));
        done += mb_tensor_stored_nbytes(ckpt, tensor);
        cli_progress_show(progress, "reading", done, mb_checkpoint_file_nbytes(ckpt));
    }
    return MB_OK;
}

static enum mb_status make_survey(const struct mb_checkpoint *ckpt, struct survey *survey,
                                  struct mb_error *err)
{
    struct cli_progress progress;
    size_t n_tensors = mb_checkpoint_n_tensors(ckpt);
    survey->n_shards = n_tensors == 0 ? 0 : mb_checkpoint_tensor(ckpt, n_tensors - 1)->shard + 1;
    survey->shards = calloc(survey->n_shards + 1, sizeof *survey->shards);
    if (survey->shards == NULL)
        return mb_fail_memory(err, "the list of shards");
    cli_progress_begin(&progress, "B");
    enum mb_status status = survey_tensors(ckpt, survey, &progress, err);
    cli_progress_end(&progress);
    if (survey->n_experts > 0)
        qsort(survey->experts, survey->n_experts, sizeof *survey->experts, by_layer_and_expert);
    return status;
}

static void free_survey(struct survey *survey)
{
    free(survey->experts);
    free(survey->shards);
    cli_parameters_free(&survey->parameters);
}

static const char *join_types(const struct sum *sum, char text[TYPES_NBYTES])
{
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sum->n_types && n < TYPES_NBYTES; i++)
        n += (size_t)snprintf(text + n, TYPES_NBYTES - n, "%s%s", i == 0 ? "" : ", ", sum->types[i]);
    return text;
}

static double bits(const struct sum *sum)
{
    return cli_ratio(8 * (double)sum->nbytes, (double)sum->n_weights);
}

/* ---------------------------------------------------------------- config.json */

static const char *const numbers[][2] = {
    /* first name that is there wins within a meaning; the second column is what people call it */
    {"num_hidden_layers", "layers"},
    {"first_k_dense_replace", "dense layers first"},
    {"n_routed_experts", "experts a layer"},
    {"num_experts", "experts a layer"},
    {"num_local_experts", "experts a layer"},
    {"moe_num_experts", "experts a layer"},
    {"num_experts_per_tok", "experts a token"},
    {"moe_k", "experts a token"},
    {"n_shared_experts", "shared experts"},
    {"moe_num_shared_experts", "shared experts"},
    {"hidden_size", "hidden size"},
    {"moe_intermediate_size", "expert size"},
    {"vocab_size", "vocabulary"},
    {"max_position_embeddings", "context"},
};
enum { N_NUMBERS = sizeof numbers / sizeof numbers[0] };

/* Models that read more than text describe their text model in an object of its own. */
static json_t *number_of(const json_t *config, const char *key)
{
    json_t *number = json_object_get(config, key);
    return number != NULL ? number : json_object_get(json_object_get(config, "text_config"), key);
}

static const char *architecture_of(const json_t *config)
{
    const char *name = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    return name == NULL ? "unknown architecture" : name;
}

static void print_model(const char *path, const json_t *config, bool is_coded)
{
    static const char *const heads[] = {"model", ""};
    struct cli_table *table = cli_table_new("ll", heads);
    cli_table_cell(table, "folder");
    cli_table_cell(table, "%s (%s)", path, is_coded ? "coded" : "plain");
    cli_table_cell(table, "architecture");
    cli_table_cell(table, "%s", architecture_of(config));
    for (size_t i = 0; i < N_NUMBERS; i++) {
        const json_t *number = number_of(config, numbers[i][0]);
        if (json_is_integer(number)) {
            cli_table_cell(table, "%s", numbers[i][1]);
            cli_table_cell(table, "%" JSON_INTEGER_FORMAT, json_integer_value(number));
        }
    }
    cli_table_print(table);
    putchar('\n');
}

/* The options that the folder was made with: quantization_config without checksums and lists of tensors. */
static void print_bounds(const json_t *config)
{
    const json_t *quantization = json_object_get(config, "quantization_config");
    static const char *const heads[] = {"coded with", ""};
    struct cli_table *table = cli_table_new("ll", heads);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)quantization, key, value)
    {
        if (strcmp(key, "files_xxh3") == 0 || strcmp(key, "config_xxh3") == 0 ||
            strcmp(key, "original_tensors") == 0)
            continue;
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        cli_table_cell(table, "%s", key);
        cli_table_cell(table, "%s", json_is_string(value) ? json_string_value(value) : text);
        free(text);
    }
    cli_table_print(table);
    putchar('\n');
}

/* ---------------------------------------------------------------- tables */

static void print_part(struct cli_table *table, const char *name, const struct sum *sum, uint64_t all_nbytes,
                       bool is_coded)
{
    char text[TYPES_NBYTES];
    cli_table_cell(table, "%s", name);
    cli_table_cell(table, "%" PRIu64, sum->n_tensors);
    cli_table_cell(table, "%s", cli_count(text, sum->n_weights));
    cli_table_cell(table, "%s", cli_bytes(text, sum->nbytes));
    cli_table_cell(table, "%.1f %%", 100 * cli_ratio((double)sum->nbytes, (double)all_nbytes));
    cli_table_cell(table, "%.3f", bits(sum));
    cli_table_cell(table, "%s", join_types(sum, text));
    if (!is_coded)
        return;
    cli_table_cell(table, "%" PRIu64, sum->n_coded);
    cli_table_cell(table, "%s", cli_count(text, sum->n_outliers));
    cli_table_cell(table, "%s of %" PRIu64, cli_count(text, sum->n_raw_groups), sum->n_groups);
}

static void print_parts(const struct survey *survey, bool is_coded)
{
    static const char *const heads[] = {"part",          "tensors", "weights", "bytes",    "share",
                                        "bits a weight", "types",   "coded",   "outliers", "raw groups"};
    struct cli_table *table = cli_table_new(is_coded ? "lrrrrrlrrr" : "lrrrrrl", heads);
    for (int part = 0; part < MB_N_ROLES; part++)
        if (survey->parts[part].n_tensors > 0)
            print_part(table, cli_role_name((enum mb_role)part), &survey->parts[part], survey->total.nbytes,
                       is_coded);
    print_part(table, "all", &survey->total, survey->total.nbytes, is_coded);
    cli_table_print(table);
    char text[32];
    if (is_coded)
        printf("\nPage padding of blobs, beside these: %s.\n", cli_bytes(text, survey->total.padding_nbytes));
    putchar('\n');
}

static void print_parameters(const struct cli_parameters *parameters)
{
    static const char *const heads[] = {"parameters", "", ""};
    struct cli_table *table = cli_table_new("lrr", heads);
    char text[32];
    uint64_t n_active;
    cli_table_cell(table, "all");
    cli_table_cell(table, "%" PRIu64, parameters->n_all);
    cli_table_cell(table, "%s", cli_count(text, parameters->n_all));
    if (parameters->n_unused > 0) {
        cli_table_cell(table, "not used");
        cli_table_cell(table, "%" PRIu64, parameters->n_unused);
        cli_table_cell(table, "%s", cli_count(text, parameters->n_unused));
    }
    if (cli_parameters_active(parameters, &n_active)) {
        cli_table_cell(table, "active for a token");
        cli_table_cell(table, "%" PRIu64, n_active);
        cli_table_cell(table, "%s", cli_count(text, n_active));
    }
    cli_table_print(table);
    putchar('\n');
}

static void print_shards(const struct mb_checkpoint *ckpt, const struct survey *survey)
{
    static const char *const heads[] = {"file", "tensors", "bytes"};
    struct cli_table *table = cli_table_new("lrr", heads);
    char text[32];
    for (size_t i = 0; i < survey->n_shards; i++) {
        cli_table_cell(table, "%s", mb_checkpoint_shard_name(ckpt, i));
        cli_table_cell(table, "%" PRIu64, survey->shards[i].n_tensors);
        cli_table_cell(table, "%s", cli_bytes(text, survey->shards[i].nbytes));
    }
    cli_table_print(table);
    printf("\nAll files with their headers: %s.\n", cli_bytes(text, mb_checkpoint_file_nbytes(ckpt)));
}

/* What a profile says of an expert. */
struct usage {
    bool is_known;
    uint64_t n, n_tokens;
    double gate; /* sum of its weights */
};

static struct usage usage_of(const struct survey *survey, const struct expert *expert)
{
    struct usage usage = {0};
    for (size_t i = 0; survey->profile != NULL && i < mb_profile_n_layers(survey->profile); i++) {
        struct mb_profile_layer layer = mb_profile_layer(survey->profile, i);
        if ((int)layer.layer != expert->layer || (size_t)expert->expert >= layer.n_experts)
            continue;
        usage = (struct usage){true, layer.n[expert->expert], layer.n_tokens,
                               (double)layer.gate[expert->expert] * 0x1p-32};
    }
    return usage;
}

static void print_usage(struct cli_table *table, const struct usage *usage)
{
    cli_table_cell(table, "%" PRIu64, usage->n);
    cli_table_cell(table, "%.2f %%", 100 * cli_ratio((double)usage->n, (double)usage->n_tokens));
    cli_table_cell(table, "%.4f", cli_ratio(usage->gate, (double)usage->n));
}

static void print_experts(const struct survey *survey, bool is_coded)
{
    enum { N_PLAIN = 5, N_USAGE = 3 };
    static const char *const all_heads[] = {"layer",  "expert", "weights",     "bytes",    "bits a weight",
                                            "tokens", "share",  "mean weight", "outliers", NULL};
    const char *heads[N_PLAIN + N_USAGE + 2] = {NULL};
    bool has_usage = survey->profile != NULL;
    size_t n = 0;
    for (size_t i = 0; all_heads[i] != NULL; i++)
        if (i < N_PLAIN || (i < N_PLAIN + N_USAGE && has_usage) || (i == N_PLAIN + N_USAGE && is_coded))
            heads[n++] = all_heads[i];
    struct cli_table *table = cli_table_new(&"rrrrrrrrr"[N_PLAIN + N_USAGE + 1 - n], heads);
    char text[32];
    for (size_t i = 0; i < survey->n_experts; i++) {
        const struct expert *expert = &survey->experts[i];
        cli_table_cell(table, "%d", expert->layer);
        cli_table_cell(table, "%d", expert->expert);
        cli_table_cell(table, "%" PRIu64, expert->sum.n_weights);
        cli_table_cell(table, "%s", cli_bytes(text, expert->sum.nbytes));
        cli_table_cell(table, "%.3f", bits(&expert->sum));
        struct usage usage = usage_of(survey, expert);
        if (has_usage)
            print_usage(table, &usage);
        if (is_coded)
            cli_table_cell(table, "%" PRIu64, expert->sum.n_outliers);
    }
    putchar('\n');
    cli_table_print(table);
}

/* ---------------------------------------------------------------- JSON */

static json_t *sum_json(const struct sum *sum, bool is_coded)
{
    json_t *types = json_array();
    for (size_t i = 0; i < sum->n_types; i++)
        json_array_append_new(types, json_string(sum->types[i]));
    json_t *json = json_pack("{s:I, s:I, s:I, s:f, s:o}", "n_tensors", (json_int_t)sum->n_tensors,
                             "n_weights", (json_int_t)sum->n_weights, "nbytes", (json_int_t)sum->nbytes,
                             "bits_per_weight", bits(sum), "types", types);
    if (json == NULL || !is_coded)
        return json;
    json_t *coded = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "n_coded", (json_int_t)sum->n_coded, "n_coded_weights",
        (json_int_t)sum->n_coded_weights, "coded_nbytes", (json_int_t)sum->coded_nbytes, "padding_nbytes",
        (json_int_t)sum->padding_nbytes, "n_outliers", (json_int_t)sum->n_outliers, "n_raw_groups",
        (json_int_t)sum->n_raw_groups, "n_groups", (json_int_t)sum->n_groups);
    json_object_update(json, coded);
    json_decref(coded);
    return json;
}

static json_t *numbers_json(const json_t *config)
{
    json_t *json = json_object();
    for (size_t i = 0; i < N_NUMBERS; i++) {
        json_t *number = number_of(config, numbers[i][0]);
        if (json_is_integer(number))
            json_object_set(json, numbers[i][0], number);
    }
    return json;
}

static json_t *experts_json(const struct survey *survey, bool is_coded)
{
    json_t *array = json_array();
    for (size_t i = 0; i < survey->n_experts; i++) {
        json_t *expert = sum_json(&survey->experts[i].sum, is_coded);
        json_object_set_new(expert, "layer", json_integer(survey->experts[i].layer));
        json_object_set_new(expert, "expert", json_integer(survey->experts[i].expert));
        struct usage usage = usage_of(survey, &survey->experts[i]);
        if (usage.is_known) {
            json_object_set_new(expert, "n_tokens", json_integer((json_int_t)usage.n));
            json_object_set_new(expert, "gate", json_real(usage.gate));
        }
        json_array_append_new(array, expert);
    }
    return array;
}

static json_t *shards_json(const struct mb_checkpoint *ckpt, const struct survey *survey)
{
    json_t *array = json_array();
    for (size_t i = 0; i < survey->n_shards; i++)
        json_array_append_new(array, json_pack("{s:s, s:I, s:I}", "file", mb_checkpoint_shard_name(ckpt, i),
                                               "n_tensors", (json_int_t)survey->shards[i].n_tensors, "nbytes",
                                               (json_int_t)survey->shards[i].nbytes));
    return array;
}

static json_t *parameters_json(const struct cli_parameters *parameters)
{
    uint64_t n_active;
    json_t *json = json_pack("{s:I, s:I}", "all", (json_int_t)parameters->n_all, "not_used",
                             (json_int_t)parameters->n_unused);
    if (json != NULL && cli_parameters_active(parameters, &n_active))
        json_object_set_new(json, "active", json_integer((json_int_t)n_active));
    return json;
}

static json_t *report_json(const struct mb_checkpoint *ckpt, const json_t *config,
                           const struct survey *survey)
{
    static const char *const keys[MB_N_ROLES] = {"experts",   "shared_experts", "other_linear",
                                                 "embedding", "router",         "other"};
    bool is_coded = mb_checkpoint_is_coded(ckpt);
    json_t *parts = json_object();
    for (int part = 0; part < MB_N_ROLES; part++)
        json_object_set_new(parts, keys[part], sum_json(&survey->parts[part], is_coded));
    json_t *json =
        json_pack("{s:o, s:s, s:b, s:I, s:o, s:o, s:o, s:o, s:o}", "path",
                  cli_json_path(mb_checkpoint_path(ckpt)), "architecture", architecture_of(config), "coded",
                  (int)is_coded, "file_nbytes", (json_int_t)mb_checkpoint_file_nbytes(ckpt), "config",
                  numbers_json(config), "parts", parts, "total", sum_json(&survey->total, is_coded),
                  "parameters", parameters_json(&survey->parameters), "shards", shards_json(ckpt, survey));
    if (json != NULL && is_coded)
        json_object_set(json, "quantization_config", json_object_get(config, "quantization_config"));
    if (json != NULL && is_coded)
        json_object_set_new(json, "output_errors",
                            json_pack("{s:I, s:I}", "n_matrices", (json_int_t)survey->n_output_errors,
                                      "n_rows_clipped", (json_int_t)survey->n_rows_clipped));
    if (json != NULL && args.experts)
        json_object_set_new(json, "expert_list", experts_json(survey, is_coded));
    return json;
}

/* ---------------------------------------------------------------- the verb */

static int print(const struct mb_checkpoint *ckpt, const json_t *config, const struct survey *survey)
{
    bool is_coded = mb_checkpoint_is_coded(ckpt);
    if (args.format == CLI_JSON)
        return cli_print_json(report_json(ckpt, config, survey));
    print_model(mb_checkpoint_path(ckpt), config, is_coded);
    if (is_coded)
        print_bounds(config);
    print_parameters(&survey->parameters);
    print_parts(survey, is_coded);
    print_shards(ckpt, survey);
    if (survey->n_output_errors > 0)
        printf("\nErrors of outputs over a calibration text are stored for %" PRIu64
               " matrices; 'verify -o json' lists them.\n",
               survey->n_output_errors);
    if (args.experts)
        print_experts(survey, is_coded);
    return 0;
}

static enum mb_status load_profile(const struct mb_checkpoint *ckpt, struct survey *survey,
                                   struct mb_error *err)
{
    char hash[MB_HASH_NBYTES];
    if (args.profile == NULL)
        return MB_OK;
    MB_TRY(mb_model_hash(mb_checkpoint_path(ckpt), hash, err));
    return mb_profile_load(args.profile, hash, &survey->profile, err);
}

static int inspect(const struct mb_checkpoint *ckpt)
{
    json_t *config;
    struct mb_error err;
    const char *text = mb_checkpoint_config_text(ckpt);
    if (mb_json_parse(text, strlen(text), 0, &config, &err) != MB_OK)
        return cli_fail(&err);
    struct survey survey = {.parameters = cli_parameters_new(config)};
    cli_print_notes(mb_checkpoint_notes(ckpt));
    enum mb_status status = load_profile(ckpt, &survey, &err);
    if (status == MB_OK)
        status = make_survey(ckpt, &survey, &err);
    int exit_status = status == MB_OK ? print(ckpt, config, &survey) : cli_fail(&err);
    mb_profile_close(survey.profile);
    free_survey(&survey);
    json_decref(config);
    return exit_status;
}

int cli_inspect(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args;
    int exit_status;
    struct mb_error err;
    struct mb_checkpoint *ckpt;
    args.format = CLI_MD;
    if (!cli_parse(&command, argc, argv, positional, &n_args, &exit_status))
        return exit_status;
    if (args.profile != NULL && !args.experts)
        return cli_usage_error(&command, "--profile goes with --experts");
    if (mb_checkpoint_open(positional[0], &ckpt, &err) != MB_OK)
        return cli_fail(&err);
    exit_status = inspect(ckpt);
    mb_checkpoint_close(ckpt);
    return exit_status;
}
