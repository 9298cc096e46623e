/*
 * safetensors.c - reads and writes headers: 8 bytes of length, a JSON object, then the data without holes.
 */
#include "safetensors.h"
#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "checksums.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const uint64_t HEADER_NBYTES_MAX = 100000000; /* the limit of the reference implementation */

static const struct {
    const char *name;
    uint64_t n_bits;
    enum mb_tensor_type type;
} types[] = {
    {"F32", 32, MB_TENSOR_F32},          {"F16", 16, MB_TENSOR_F16},
    {"BF16", 16, MB_TENSOR_BF16},        {"U8", 8, MB_TENSOR_U8},
    {"F8_E4M3", 8, MB_TENSOR_F8_E4M3},   {"F8_E5M2", 8, MB_TENSOR_OTHER},
    {"BOOL", 8, MB_TENSOR_OTHER},        {"I8", 8, MB_TENSOR_OTHER},
    {"I16", 16, MB_TENSOR_OTHER},        {"U16", 16, MB_TENSOR_OTHER},
    {"I32", 32, MB_TENSOR_OTHER},        {"U32", 32, MB_TENSOR_OTHER},
    {"F64", 64, MB_TENSOR_OTHER},        {"I64", 64, MB_TENSOR_OTHER},
    {"U64", 64, MB_TENSOR_OTHER},        {"C64", 64, MB_TENSOR_OTHER},
    {"F8_E8M0", 8, MB_TENSOR_OTHER},     {"F8_E4M3FNUZ", 8, MB_TENSOR_OTHER},
    {"F8_E5M2FNUZ", 8, MB_TENSOR_OTHER}, {"F6_E2M3", 6, MB_TENSOR_OTHER},
    {"F6_E3M2", 6, MB_TENSOR_OTHER},     {"F4", 4, MB_TENSOR_OTHER},
};
enum { N_TYPES = sizeof types / sizeof types[0] };

static size_t find_type(const char *name)
{
    size_t i = 0;
    while (i < N_TYPES && strcmp(types[i].name, name) != 0)
        i++;
    return i;
}

size_t mb_st_elem_nbits(const char *type_name, enum mb_tensor_type *type)
{
    size_t i = find_type(type_name);
    if (i == N_TYPES)
        return 0;
    *type = types[i].type;
    return types[i].n_bits;
}

static bool name_is_sound(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    return n > 0 && n <= MB_TENSOR_NAME_MAX;
}

static bool as_size(const json_t *value, uint64_t *size)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *size = (uint64_t)json_integer_value(value);
    return true;
}

static const char UNKNOWN_DTYPE[] = "an unknown dtype";

/* Fills *tensor; file_pos counts from the beginning of the data. Returns what is wrong, or NULL. */
static const char *parse_tensor(const json_t *object, struct mb_tensor *tensor)
{
    const char *type_name = json_string_value(json_object_get(object, "dtype"));
    const json_t *shape = json_object_get(object, "shape"),
                 *offsets = json_object_get(object, "data_offsets");
    if (type_name == NULL || !json_is_array(shape) || !json_is_array(offsets))
        return "not an object of dtype, shape and data_offsets";
    size_t type = find_type(type_name);
    if (type == N_TYPES)
        return UNKNOWN_DTYPE;
    tensor->type = types[type].type;
    tensor->type_name = types[type].name;
    tensor->n_dims = json_array_size(shape);
    if (tensor->n_dims > MB_DIMS_MAX)
        return "more than 8 dimensions";
    tensor->n_elems = 1;
    for (size_t i = 0; i < tensor->n_dims; i++)
        if (!as_size(json_array_get(shape, i), &tensor->shape[i]) ||
            !mb_mul_u64(tensor->n_elems, tensor->shape[i], &tensor->n_elems))
            return "an impossible shape";
    uint64_t n_bits, begin, end;
    if (!mb_mul_u64(tensor->n_elems, types[type].n_bits, &n_bits))
        return "an impossible shape";
    if (n_bits % 8 != 0)
        return "values that end inside a byte";
    tensor->nbytes = n_bits / 8;
    if (json_array_size(offsets) != 2 || !as_size(json_array_get(offsets, 0), &begin) ||
        !as_size(json_array_get(offsets, 1), &end) || end < begin)
        return "impossible data_offsets";
    if (end - begin != tensor->nbytes)
        return "data_offsets that do not hold its shape";
    tensor->file_pos = begin;
    return NULL;
}

static int by_position(const void *a, const void *b)
{
    const struct mb_tensor *x = a, *y = b;
    if (x->file_pos != y->file_pos)
        return x->file_pos < y->file_pos ? -1 : 1;
    if (x->nbytes != y->nbytes) /* empty tensors come before the one that begins where they do */
        return x->nbytes < y->nbytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Tensors must cover the data section without overlap and without holes. */
static enum mb_status place_tensors(const char *path, struct mb_st_header *header, uint64_t data_nbytes,
                                    struct mb_error *err)
{
    qsort(header->tensors, header->n_tensors, sizeof *header->tensors, by_position);
    uint64_t at = 0;
    for (size_t i = 0; i < header->n_tensors; i++) {
        struct mb_tensor *tensor = &header->tensors[i];
        if (tensor->file_pos != at)
            return mb_fail(
                err, MB_BAD_DATA,
                "%s: tensor %s: byte %" PRIu64 ": data_offsets %s (the previous tensor ends at %" PRIu64 ")",
                path, tensor->name, tensor->file_pos, tensor->file_pos < at ? "overlap" : "leave a hole", at);
        if (tensor->nbytes > data_nbytes - at)
            return mb_fail(err, MB_BAD_DATA,
                           "%s: tensor %s: byte %" PRIu64 ": truncated, the data section has %" PRIu64
                           " bytes; copy the file again",
                           path, tensor->name, at, data_nbytes);
        at += tensor->nbytes;
        tensor->file_pos += header->data_pos;
    }
    if (at != data_nbytes)
        return mb_fail(err, MB_BAD_DATA,
                       "%s: byte %" PRIu64 ": %" PRIu64 " bytes after the last tensor: the file is damaged",
                       path, header->data_pos + at, data_nbytes - at);
    return MB_OK;
}

static bool metadata_is_sound(const json_t *metadata)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value) if (!json_is_string(value)) return false;
    return json_is_object(metadata);
}

static enum mb_status parse_tensors(const char *path, json_t *root, struct mb_st_header *header,
                                    struct mb_error *err)
{
    header->tensors = calloc(json_object_size(root) + 1, sizeof *header->tensors);
    if (header->tensors == NULL)
        return mb_fail_memory(err, "the list of tensors");
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value)
    {
        if (strcmp(name, "__metadata__") == 0) {
            if (!json_is_null(value) && !metadata_is_sound(value))
                return mb_fail(err, MB_BAD_DATA, "%s: __metadata__: not an object of strings", path);
            header->metadata = json_is_null(value) ? NULL : json_incref(value);
            continue;
        }
        if (!name_is_sound(name))
            return mb_fail(err, MB_BAD_DATA,
                           "%s: a tensor's name is empty, too long or has control characters", path);
        struct mb_tensor *tensor = &header->tensors[header->n_tensors];
        const char *fault = parse_tensor(value, tensor);
        if (fault == UNKNOWN_DTYPE)
            return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: dtype '%s' is not known to this version", path,
                           name, json_string_value(json_object_get(value, "dtype")));
        if (fault != NULL)
            return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: %s", path, name, fault);
        tensor->name = strdup(name);
        if (tensor->name == NULL)
            return mb_fail_memory(err, "the name of a tensor");
        header->n_tensors++;
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- keys that are there twice */

/* Behind a string that begins at text[at], its end, or n. */
static size_t end_of_string(const char *text, size_t n, size_t at)
{
    for (at++; at < n && text[at] != '"'; at++)
        at += text[at] == '\\';
    return at < n ? at + 1 : n;
}

/* Whether the string text[at, end) is a key: a colon follows. */
static bool is_key(const char *text, size_t n, size_t end)
{
    while (end < n && strchr(" \t\r\n", text[end]) != NULL)
        end++;
    return end < n && text[end] == ':';
}

static bool is_string(const char *text, size_t at, size_t end, const char *string)
{
    size_t n = strlen(string);
    return end - at == n + 2 && memcmp(text + at + 1, string, n) == 0;
}

/*
 * Whether all that is there twice in a header (which is JSON) is nothing that counts: keys in __metadata__ or
 * members of tensors that are not read, of which the official reader takes the last.  Names of tensors are
 * counted, and may have no escapes here.
 */
static bool doubles_are_harmless(const char *text, size_t n, size_t n_names)
{
    static const char *const members[] = {"dtype", "shape", "data_offsets"};
    size_t depth = 0, n_seen = 0, seen = 0;
    bool is_metadata = false;
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        if (text[i] == '"')
            end = end_of_string(text, n, i);
        bool counts = text[i] == '"' && is_key(text, n, end) && (depth == 1 || (depth == 2 && !is_metadata));
        if (counts && memchr(text + i, '\\', end - i) != NULL)
            return false;
        if (counts && depth == 1) {
            is_metadata = is_string(text, i, end, "__metadata__");
            n_seen++;
            seen = 0;
        }
        for (size_t k = 0; k < 3 && counts && depth == 2; k++)
            if (is_string(text, i, end, members[k])) {
                if ((seen >> k & 1) != 0)
                    return false;
                seen |= (size_t)1 << k;
            }
        depth += text[i] == '{' || text[i] == '[';
        depth -= text[i] == '}' || text[i] == ']';
        i = end;
    }
    return n_seen == n_names;
}

static enum mb_status parse_json(const char *text, size_t nbytes, json_t **root, struct mb_error *err)
{
    enum mb_status status = mb_json_parse(text, nbytes, 8, root, err);
    if (status == MB_OK || mb_json_parse_last(text, nbytes, 8, root, NULL) != MB_OK)
        return status;
    if (doubles_are_harmless(text, nbytes, json_object_size(*root)))
        return MB_OK;
    json_decref(*root);
    return status;
}

static enum mb_status parse_header(const char *path, const char *text, size_t nbytes, uint64_t data_nbytes,
                                   struct mb_st_header *header, struct mb_error *err)
{
    json_t *root;
    enum mb_status status = parse_json(text, nbytes, &root, err);
    if (status != MB_OK)
        return mb_fail_in(err, status, "%s: header", path);
    status = json_is_object(root)
                 ? parse_tensors(path, root, header, err)
                 : mb_fail(err, MB_BAD_DATA, "%s: byte 8: the header is not an object", path);
    json_decref(root);
    return status == MB_OK ? place_tensors(path, header, data_nbytes, err) : status;
}

/* What people download in place of weights, by its first bytes. */
static enum mb_status check_kind(const char *path, const uint8_t begin[8], struct mb_error *err)
{
    static const struct {
        const char *begin, *what;
    } kinds[] = {
        {"version ", "a pointer of git-lfs, not the weights: run 'git lfs pull' in the folder"},
        {"<!DOCTYP", "a web page, not the weights: download the file again"},
        {"<!doctyp", "a web page, not the weights: download the file again"},
        {"<html", "a web page, not the weights: download the file again"},
        {"GGUF", "a GGUF file, not safetensors: download the model in Hugging Face form"},
        {"PK\003\004", "a PyTorch or zip file, not safetensors: convert it with the safetensors package"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (memcmp(begin, kinds[i].begin, strlen(kinds[i].begin)) == 0)
            return mb_fail(err, MB_BAD_DATA, "%s: %s", path, kinds[i].what);
    return MB_OK;
}

/* What *header holds after a failure is the caller's to free. */
static enum mb_status read_header(int fd, const char *path, struct mb_st_header *header, struct mb_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return mb_fail_errno(err, path, "stat");
    if (!S_ISREG(st.st_mode))
        return mb_fail(err, MB_BAD_DATA, "%s: not a regular file", path);
    uint64_t file_nbytes = (uint64_t)st.st_size;
    uint8_t length[8];
    if (file_nbytes < sizeof length)
        return mb_fail(err, MB_BAD_DATA, "%s: truncated to %" PRIu64 " bytes; download it again", path,
                       file_nbytes);
    MB_TRY(mb_read_at(fd, path, 0, length, 8, err));
    uint64_t nbytes = mb_load_u64(length);
    MB_TRY(check_kind(path, length, err));
    if (nbytes > HEADER_NBYTES_MAX || nbytes < 2 || nbytes > file_nbytes - 8)
        return mb_fail(err, MB_BAD_DATA,
                       "%s: byte 0: impossible header of %" PRIu64 " bytes in a file of %" PRIu64
                       ": no safetensors file, or a damaged one; download it again",
                       path, nbytes, file_nbytes);
    char *text = malloc(nbytes);
    if (text == NULL)
        return mb_fail_memory(err, "the header of a safetensors file");
    header->data_pos = 8 + nbytes;
    enum mb_status status = mb_read_at(fd, path, 8, text, nbytes, err);
    if (status == MB_OK) {
        mb_xxh128_text(text, nbytes, header->xxh3);
        status = parse_header(path, text, nbytes, file_nbytes - header->data_pos, header, err);
    }
    free(text);
    return status;
}

enum mb_status mb_st_read_header(int fd, const char *path, struct mb_st_header *header, struct mb_error *err)
{
    *header = (struct mb_st_header){0};
    enum mb_status status = read_header(fd, path, header, err);
    if (status != MB_OK)
        mb_st_free_header(header);
    return status;
}

void mb_st_free_header(struct mb_st_header *header)
{
    for (size_t i = 0; i < header->n_tensors + header->n_dropped; i++)
        free((char *)header->tensors[i].name);
    free(header->tensors);
    json_decref(header->metadata);
    *header = (struct mb_st_header){0};
}

/* NULL: out of memory. */
static json_t *tensor_object(const struct mb_tensor *tensor)
{
    json_t *shape = json_array();
    bool ok = shape != NULL;
    for (size_t i = 0; i < tensor->n_dims && ok; i++)
        ok = json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i])) == 0;
    if (!ok) {
        json_decref(shape);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensor->type_name, "shape", shape, "data_offsets",
                     (json_int_t)tensor->file_pos, (json_int_t)tensor->file_pos + (json_int_t)tensor->nbytes);
}

enum mb_status mb_st_write_header(const struct mb_tensor *tensors, size_t n_tensors, const json_t *metadata,
                                  char **text, size_t *nbytes, struct mb_error *err)
{
    json_t *root = json_object();
    bool ok = root != NULL && json_object_set(root, "__metadata__", (json_t *)metadata) == 0;
    for (size_t i = 0; i < n_tensors && ok; i++)
        ok = json_object_set_new(root, tensors[i].name, tensor_object(&tensors[i])) == 0;
    *text = ok ? mb_json_text(root, JSON_COMPACT, nbytes) : NULL;
    json_decref(root);
    return *text == NULL ? mb_fail_memory(err, "the header of a safetensors file") : MB_OK;
}
