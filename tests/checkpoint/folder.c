/*
 * folder.c - temporary folders, safetensors files of any content, and small random models for tests.
 */
#include "folder.h"
#include "base/bytes.h"
#include "cmocka_all.h"
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_NBYTES = 512, N_TENSORS_MAX = 1024 };

static char root[PATH_NBYTES];

int test_folder_begin(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "%s/run-XXXXXX", MB_TEST_FOLDER);
    return mkdtemp(root) == NULL ? -1 : 0;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info, (void)type, (void)where;
    return remove(path);
}

int test_folder_end(void **state)
{
    (void)state;
    return nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *test_path(const char *name)
{
    static char paths[8][2 * PATH_NBYTES];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

void test_make_folder(const char *path)
{
    assert_int_equal(mkdir(path, 0777), 0);
}

void test_remove(const char *path)
{
    assert_true(nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT);
}

bool test_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

void test_write(const char *path, const void *bytes, size_t nbytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, nbytes, file), nbytes);
    assert_int_equal(fclose(file), 0);
}

uint8_t *test_read(const char *path, size_t *nbytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *nbytes = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*nbytes + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *nbytes, file), *nbytes);
    bytes[*nbytes] = 0;
    fclose(file);
    return bytes;
}

void test_write_text(const char *folder, const char *name, const char *text)
{
    char path[2 * PATH_NBYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    test_write(path, text, strlen(text));
}

void test_write_safetensors(const char *folder, const char *name, const char *header, const void *data,
                            size_t nbytes)
{
    char path[2 * PATH_NBYTES];
    uint8_t length[8];
    mb_store_u64(length, strlen(header));
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(length, 1, 8, file), 8);
    assert_int_equal(fwrite(header, 1, strlen(header), file), strlen(header));
    assert_int_equal(nbytes == 0 ? 0 : fwrite(data, 1, nbytes, file), nbytes);
    assert_int_equal(fclose(file), 0);
}

/* ---------------------------------------------------------------- comparing */

static size_t count_files(const char *folder)
{
    size_t n = 0;
    DIR *open_folder = opendir(folder);
    assert_non_null(open_folder);
    while (readdir(open_folder) != NULL)
        n++;
    closedir(open_folder);
    return n;
}

/* Whether b has the file of a; 'tells': or where it differs. */
static bool same_file(const char *a, const char *b, const char *name, bool tells)
{
    char path_a[2 * PATH_NBYTES], path_b[2 * PATH_NBYTES];
    size_t n_a, n_b, at = 0;
    snprintf(path_a, sizeof path_a, "%s/%s", a, name);
    snprintf(path_b, sizeof path_b, "%s/%s", b, name);
    if (!test_exists(path_b)) {
        if (tells)
            print_message("%s: not in %s\n", path_a, b);
        return false;
    }
    uint8_t *bytes_a = test_read(path_a, &n_a), *bytes_b = test_read(path_b, &n_b);
    while (at < n_a && at < n_b && bytes_a[at] == bytes_b[at])
        at++;
    bool is_same = at == n_a && at == n_b;
    if (!is_same && tells)
        print_message("%s (%zu bytes) and %s (%zu bytes): byte %zu differs\n", path_a, n_a, path_b, n_b, at);
    free(bytes_a);
    free(bytes_b);
    return is_same;
}

/* Whether b has all files of a. */
static bool compare_files(const char *a, const char *b, bool tells)
{
    bool is_same = true;
    DIR *folder = opendir(a);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            is_same = same_file(a, b, entry->d_name, tells) && is_same;
    closedir(folder);
    return is_same;
}

static bool compare_folders(const char *a, const char *b, bool tells)
{
    bool is_same = count_files(a) == count_files(b);
    if (!is_same && tells)
        print_message("%s and %s: different numbers of files\n", a, b);
    return compare_files(a, b, tells) && is_same;
}

bool test_holds_folder(const char *a, const char *b)
{
    return compare_files(b, a, false);
}

bool test_same_folders(const char *a, const char *b)
{
    return compare_folders(a, b, true);
}

bool test_equal_folders(const char *a, const char *b)
{
    return compare_folders(a, b, false);
}

/* ---------------------------------------------------------------- small random models */

struct tensor {
    char name[96];
    size_t n_rows, n_cols; /* n_rows 0: a vector of n_cols */
    size_t shard, begin;
};

struct tensors {
    struct tensor items[N_TENSORS_MAX];
    size_t n;
};

struct test_model test_model_small(void)
{
    return (struct test_model){
        .dtype = MB_BF16, .n_layers = 2, .n_experts = 2, .n_hidden = 48, .n_inner = 40, .n_shards = 1};
}

static void add(struct tensors *tensors, size_t n_rows, size_t n_cols, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void add(struct tensors *tensors, size_t n_rows, size_t n_cols, const char *format, ...)
{
    va_list args;
    assert_true(tensors->n < N_TENSORS_MAX);
    struct tensor *tensor = &tensors->items[tensors->n++];
    *tensor = (struct tensor){.n_rows = n_rows, .n_cols = n_cols};
    va_start(args, format);
    vsnprintf(tensor->name, sizeof tensor->name, format, args);
    va_end(args);
}

static void add_mlp(struct tensors *tensors, const struct test_model *model, const char *prefix)
{
    add(tensors, model->n_inner, model->n_hidden, "%s.gate_proj.weight", prefix);
    add(tensors, model->n_inner, model->n_hidden, "%s.up_proj.weight", prefix);
    add(tensors, model->n_hidden, model->n_inner, "%s.down_proj.weight", prefix);
}

static void add_layer(struct tensors *tensors, const struct test_model *model, size_t layer)
{
    char prefix[80];
    size_t n = model->n_hidden;
    add(tensors, 0, n, "model.layers.%zu.input_layernorm.weight", layer);
    add(tensors, n, n, "model.layers.%zu.self_attn.q_proj.weight", layer);
    add(tensors, n / 2 + 1, n, "model.layers.%zu.self_attn.kv_a_proj_with_mqa.weight", layer);
    snprintf(prefix, sizeof prefix, "model.layers.%zu.mlp", layer);
    if (layer == 0) {
        add_mlp(tensors, model, prefix);
        return;
    }
    add(tensors, model->n_experts, n, "%s.gate.weight", prefix);
    snprintf(prefix, sizeof prefix, "model.layers.%zu.mlp.shared_experts", layer);
    add_mlp(tensors, model, prefix);
    for (size_t i = 0; i < model->n_experts; i++) {
        snprintf(prefix, sizeof prefix, "model.layers.%zu.mlp.experts.%zu", layer, i);
        add_mlp(tensors, model, prefix);
    }
}

static void add_bare(struct tensors *tensors, const struct test_model *model)
{
    add(tensors, 0, model->n_hidden, "model.layers.0.input_layernorm.weight");
    add(tensors, model->n_hidden, model->n_hidden, "model.layers.0.self_attn.q_proj.weight");
    add_mlp(tensors, model, "model.layers.1.mlp.experts.0");
}

static void add_whole(struct tensors *tensors, const struct test_model *model)
{
    add(tensors, 64, model->n_hidden, "model.embed_tokens.weight");
    for (size_t layer = 0; layer < model->n_layers; layer++)
        add_layer(tensors, model, layer);
    add(tensors, 0, model->n_hidden, "model.norm.weight");
    add(tensors, 64, model->n_hidden, "lm_head.weight");
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double next_normal(uint64_t *state)
{
    double u = ((double)(next_random(state) >> 11) + 0.5) * 0x1p-53;
    double v = (double)(next_random(state) >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static size_t n_elems(const struct tensor *tensor)
{
    return (tensor->n_rows == 0 ? 1 : tensor->n_rows) * tensor->n_cols;
}

static void store(enum mb_dtype dtype, uint8_t *to, float value)
{
    if (dtype == MB_F32)
        mb_store_u32(to, mb_bits_of_float(value));
    else
        mb_store_u16(to, dtype == MB_F16 ? mb_f16_of_float(value) : mb_bf16_of_float(value));
}

static void fill(const struct test_model *model, const struct tensor *tensor, uint8_t *to)
{
    uint64_t state = 1;
    for (const char *c = tensor->name; *c != '\0'; c++)
        state = 31 * state + (unsigned char)*c;
    for (size_t i = 0; i < n_elems(tensor); i++)
        store(model->dtype, to + i * mb_dtype_nbytes(model->dtype),
              (float)(0.02 * next_normal(&state) * (i % 997 == 5 ? 40 : 1)));
    size_t n_odd = model->odd_name == NULL || strcmp(model->odd_name, tensor->name) != 0 ? 0
                   : model->n_odd == 0                                                   ? 1
                                                                                         : model->n_odd;
    for (size_t i = model->odd_index; i < model->odd_index + n_odd; i++)
        store(model->dtype, to + i * mb_dtype_nbytes(model->dtype), model->odd_value);
}

enum { SHARD_NAME_NBYTES = 80 };

static void shard_name(char name[SHARD_NAME_NBYTES], const struct test_model *model, size_t shard)
{
    if (model->n_shards == 1)
        snprintf(name, SHARD_NAME_NBYTES, "model.safetensors");
    else
        snprintf(name, SHARD_NAME_NBYTES, "model-%05zu-of-%05zu.safetensors", shard + 1, model->n_shards);
}

static void write_shard(const char *folder, const struct test_model *model, struct tensors *tensors,
                        size_t shard)
{
    static const char *const types[] = {[MB_F32] = "F32", [MB_F16] = "F16", [MB_BF16] = "BF16"};
    char *header = NULL, name[SHARD_NAME_NBYTES];
    size_t nbytes = 0, header_nbytes, elem = mb_dtype_nbytes(model->dtype);
    FILE *text = open_memstream(&header, &header_nbytes);
    assert_non_null(text);
    fputs("{\"__metadata__\":{\"format\":\"pt\"}", text);
    for (size_t i = 0; i < tensors->n; i++) {
        struct tensor *tensor = &tensors->items[i];
        if (tensor->shard != shard)
            continue;
        char rows[32] = "";
        if (tensor->n_rows > 0)
            snprintf(rows, sizeof rows, "%zu,", tensor->n_rows);
        tensor->begin = nbytes;
        nbytes += n_elems(tensor) * elem;
        fprintf(text, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s%zu],\"data_offsets\":[%zu,%zu]}", tensor->name,
                types[model->dtype], rows, tensor->n_cols, tensor->begin, nbytes);
    }
    fputc('}', text);
    fclose(text);
    uint8_t *data = malloc(nbytes + 1);
    assert_non_null(data);
    for (size_t i = 0; i < tensors->n; i++)
        if (tensors->items[i].shard == shard)
            fill(model, &tensors->items[i], data + tensors->items[i].begin);
    shard_name(name, model, shard);
    test_write_safetensors(folder, name, header, data, nbytes);
    free(data);
    free(header);
}

static void write_index(const char *folder, const struct test_model *model, const struct tensors *tensors)
{
    char path[2 * PATH_NBYTES], name[SHARD_NAME_NBYTES];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs("{\"metadata\":{},\"weight_map\":{", file);
    for (size_t i = 0; i < tensors->n; i++) {
        shard_name(name, model, tensors->items[i].shard);
        fprintf(file, "%s\"%s\":\"%s\"", i == 0 ? "" : ",", tensors->items[i].name, name);
    }
    fputs("}}", file);
    assert_int_equal(fclose(file), 0);
}

void test_write_model(const char *folder, const struct test_model *model)
{
    struct tensors *tensors = calloc(1, sizeof *tensors);
    assert_non_null(tensors);
    uint64_t state = model->deal;
    const size_t n_shards = model->n_shards == 0 ? 1 : model->n_shards;
    test_make_folder(folder);
    if (model->is_bare)
        add_bare(tensors, model);
    else
        add_whole(tensors, model);
    for (size_t i = 0; i < tensors->n; i++) /* every shard gets one, the rest by chance */
        tensors->items[i].shard = i < n_shards ? i : next_random(&state) % n_shards;
    for (size_t shard = 0; shard < n_shards; shard++)
        write_shard(folder, model, tensors, shard);
    if (model->n_shards > 1)
        write_index(folder, model, tensors);
    test_write_text(folder, "config.json",
                    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"deepseek_v3\"}");
    test_write_text(folder, "tokenizer.json", "{\"made\": \"for tests\"}");
    free(tensors);
}
