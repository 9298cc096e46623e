/*
 * originals.c - see originals.h.
 */
#include "originals.h"
#include "base/checked.h"
#include "base/error.h"
#include <stdlib.h>
#include <string.h>

static const char MEMBER[] = "original_tensors";

/* ---------------------------------------------------------------- names */

/* The longest beginning of a name that ends with a dot, or all of it, that was renamed. */
char *mb_original_name(const json_t *renamed, const char *name)
{
    for (size_t n = strlen(name); renamed != NULL && n > 0; n--) {
        char *out = NULL, key[MB_TENSOR_NAME_MAX + 1];
        if (n >= sizeof key || (name[n] != '\0' && name[n - 1] != '.'))
            continue;
        memcpy(key, name, n);
        key[n] = '\0';
        const char *begin = json_string_value(json_object_get(renamed, key));
        if (begin != NULL)
            return asprintf(&out, "%s%s", begin, name + n) < 0 ? NULL : out;
    }
    return strdup(name);
}

/* Where the common end of two names begins in the first, a dot and a word later: what differs ends there. */
static size_t differing(const char *logical, const char *stored)
{
    size_t n = strlen(logical), n_stored = strlen(stored), n_same = 0, n_common = 0;
    while (n_same < n && n_same < n_stored && logical[n - 1 - n_same] == stored[n_stored - 1 - n_same]) {
        n_same++;
        bool begins_word = (n_same == n || logical[n - 1 - n_same] == '.') &&
                           (n_same == n_stored || stored[n_stored - 1 - n_same] == '.');
        n_common = begins_word ? n_same : n_common;
    }
    const char *dot = strchr(logical + n - n_common, '.');
    return dot == NULL ? n : (size_t)(dot + 1 - logical);
}

/*
 * Adds what leads back from the logical name: a beginning that many names share, unless it leads elsewhere
 * already, or the whole name.
 */
static bool add_name(json_t *renamed, const char *logical, const char *stored, bool whole)
{
    char *name = mb_original_name(renamed, logical), key[MB_TENSOR_NAME_MAX + 1];
    if (name == NULL)
        return false;
    bool is_right = strcmp(name, stored) == 0;
    free(name);
    if (is_right)
        return true;
    size_t n = whole ? strlen(logical) : differing(logical, stored);
    memcpy(key, logical, n);
    key[n] = '\0';
    if (!whole && json_object_get(renamed, key) != NULL)
        return true;
    return json_object_set_new(renamed, key, json_stringn(stored, strlen(stored) - (strlen(logical) - n))) ==
           0;
}

/* First what many names share, then the names that this leads astray. */
static json_t *names_to_json(const struct mb_checkpoint *ckpt)
{
    json_t *renamed = json_object();
    bool ok = renamed != NULL;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < ckpt->n_tensors && ok; i++)
            if (!ckpt->views[i].is_piece)
                ok = add_name(renamed, ckpt->views[i].tensor.name, ckpt->views[i].stored->name, pass == 1);
    if (ok)
        return renamed;
    json_decref(renamed);
    return NULL;
}

/* ---------------------------------------------------------------- writing */

static json_t *fused_to_json(const struct mb_fused *fused)
{
    json_t *parts = json_array(), *shape = json_array();
    bool ok = parts != NULL && shape != NULL;
    for (size_t i = 0; i < fused->layout.n_parts && ok; i++)
        ok = json_array_append_new(parts, json_string(fused->parts[i])) == 0;
    for (size_t i = 0; i < fused->tensor.n_dims && ok; i++)
        ok = json_array_append_new(shape, json_integer((json_int_t)fused->tensor.shape[i])) == 0;
    if (ok)
        return json_pack("{s:s, s:o, s:s, s:o, s:b, s:b}", "name", fused->tensor.name, "shape", shape,
                         "experts", fused->stem, "parts", parts, "transposed",
                         (int)fused->layout.is_transposed, "interleaved", (int)fused->layout.is_interleaved);
    json_decref(parts);
    json_decref(shape);
    return NULL;
}

static bool add_members(const struct mb_checkpoint *ckpt, json_t *member)
{
    json_t *renamed = names_to_json(ckpt);
    if (renamed == NULL)
        return false;
    bool ok = json_object_size(renamed) == 0 || json_object_set(member, "renamed", renamed) == 0;
    json_decref(renamed);
    if (!ok || ckpt->n_fused == 0)
        return ok;
    json_t *fused = json_array();
    ok = fused != NULL;
    for (size_t i = 0; i < ckpt->n_fused && ok; i++)
        ok = json_array_append_new(fused, fused_to_json(&ckpt->fused[i])) == 0;
    return json_object_set_new(member, "fused", fused) == 0 && ok;
}

enum mb_status mb_originals_write(const struct mb_checkpoint *ckpt, json_t *block, struct mb_error *err)
{
    json_t *member = json_object();
    bool ok = member != NULL && add_members(ckpt, member);
    if (ok && json_object_size(member) > 0)
        ok = json_object_set(block, MEMBER, member) == 0;
    json_decref(member);
    return ok ? MB_OK : mb_fail_memory(err, "the names of the original");
}

/* ---------------------------------------------------------------- reading */

static bool is_name(const char *name, size_t n_max)
{
    size_t n = name == NULL ? 0 : strlen(name);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    return n > 0 && n <= n_max;
}

/* 1 to 2^32, so that products of two fit. */
static uint64_t size_of(const json_t *value)
{
    json_int_t size = json_is_integer(value) ? json_integer_value(value) : 0;
    return size > 0 && size <= UINT32_MAX ? (uint64_t)size : 0;
}

static bool read_shape(const json_t *shape, struct mb_fused *fused)
{
    struct mb_tensor *tensor = &fused->tensor;
    struct mb_fused_layout *layout = &fused->layout;
    tensor->n_dims = json_array_size(shape);
    tensor->n_elems = tensor->n_dims == 2 || tensor->n_dims == 3;
    if (tensor->n_elems == 0)
        return false;
    for (size_t i = 0; i < tensor->n_dims; i++) {
        tensor->shape[i] = size_of(json_array_get(shape, i));
        if (!mb_mul_u64(tensor->n_elems, tensor->shape[i], &tensor->n_elems))
            return false;
    }
    const uint64_t *matrix = tensor->shape + tensor->n_dims - 2;
    uint64_t n_all = matrix[layout->is_transposed ? 1 : 0];
    layout->n_rows = n_all / layout->n_parts;
    layout->n_cols = matrix[layout->is_transposed ? 0 : 1];
    return tensor->n_elems > 0 && tensor->n_elems <= (uint64_t)1 << 44 && n_all % layout->n_parts == 0 &&
           mb_fused_n_experts(fused) <= MB_FUSED_EXPERTS_MAX;
}

static bool read_fused(const json_t *entry, struct mb_fused *fused)
{
    const json_t *parts = json_object_get(entry, "parts");
    const json_t *transposed = json_object_get(entry, "transposed"),
                 *interleaved = json_object_get(entry, "interleaved");
    fused->tensor.name = json_string_value(json_object_get(entry, "name"));
    fused->stem = (char *)json_string_value(json_object_get(entry, "experts"));
    fused->layout.n_parts = json_array_size(parts);
    fused->layout.is_transposed = json_is_true(transposed);
    fused->layout.is_interleaved = json_is_true(interleaved);
    if (fused->layout.n_parts < 1 || fused->layout.n_parts > 2 || !json_is_boolean(transposed) ||
        !json_is_boolean(interleaved) || !is_name(fused->tensor.name, MB_TENSOR_NAME_MAX) ||
        !is_name(fused->stem, MB_TENSOR_NAME_MAX))
        return false;
    for (size_t i = 0; i < fused->layout.n_parts; i++) {
        fused->parts[i] = json_string_value(json_array_get(parts, i));
        if (!is_name(fused->parts[i], MB_TENSOR_NAME_MAX))
            return false;
    }
    return read_shape(json_object_get(entry, "shape"), fused);
}

static int compare_part(const char *stem, const char *name, const struct mb_original_part *part)
{
    int stems = strcmp(stem, part->fused->stem);
    return stems != 0 ? stems : strcmp(name, part->fused->parts[part->part]);
}

static int by_part(const void *a, const void *b)
{
    const struct mb_original_part *part = a;
    return compare_part(part->fused->stem, part->fused->parts[part->part], b);
}

/* No matrix is part of two tensors. */
static bool sort_parts(struct mb_originals *originals)
{
    for (size_t i = 0; i < originals->n_fused; i++)
        for (size_t k = 0; k < originals->fused[i].layout.n_parts; k++)
            originals->parts[originals->n_parts++] = (struct mb_original_part){&originals->fused[i], k};
    qsort(originals->parts, originals->n_parts, sizeof *originals->parts, by_part);
    for (size_t i = 1; i < originals->n_parts; i++)
        if (by_part(&originals->parts[i - 1], &originals->parts[i]) == 0)
            return false;
    return true;
}

static enum mb_status fail_member(const struct mb_checkpoint *ckpt, const char *what, struct mb_error *err)
{
    return mb_fail(err, MB_BAD_DATA, "%s/config.json: quantization_config: %s: %s; make the folder anew",
                   ckpt->path, MEMBER, what);
}

static enum mb_status read_member(const struct mb_checkpoint *ckpt, const json_t *member,
                                  struct mb_originals *originals, struct mb_error *err)
{
    const json_t *fused = json_object_get(member, "fused");
    const char *key;
    json_t *value;
    originals->renamed = json_object_get(member, "renamed");
    if (originals->renamed != NULL && !json_is_object(originals->renamed))
        return fail_member(ckpt, "'renamed' is no object of names", err);
    json_object_foreach(
        (json_t *)originals->renamed, key,
        value) if (!is_name(key, MB_TENSOR_NAME_MAX) ||
                   !is_name(json_string_value(value),
                            MB_TENSOR_NAME_MAX)) return fail_member(ckpt, "'renamed' is no object of names",
                                                                    err);
    if (fused != NULL && !json_is_array(fused))
        return fail_member(ckpt, "'fused' is no list", err);
    originals->fused = calloc(json_array_size(fused) + 1, sizeof *originals->fused);
    originals->parts = calloc(2 * json_array_size(fused) + 1, sizeof *originals->parts);
    if (originals->fused == NULL || originals->parts == NULL)
        return mb_fail_memory(err, "the list of fused tensors");
    for (size_t i = 0; i < json_array_size(fused); i++)
        if (!read_fused(json_array_get(fused, i), &originals->fused[originals->n_fused++]))
            return fail_member(ckpt, "an entry of 'fused' is not sound", err);
    return sort_parts(originals) ? MB_OK : fail_member(ckpt, "a matrix is part of two tensors", err);
}

enum mb_status mb_originals_read(const struct mb_checkpoint *ckpt, struct mb_originals *originals,
                                 struct mb_error *err)
{
    *originals = (struct mb_originals){0};
    const json_t *member = json_object_get(json_object_get(ckpt->config, "quantization_config"), MEMBER);
    if (member == NULL)
        return MB_OK;
    enum mb_status status = read_member(ckpt, member, originals, err);
    if (status != MB_OK)
        mb_originals_free(originals);
    return status;
}

void mb_originals_free(struct mb_originals *originals)
{
    free(originals->fused);
    free(originals->parts);
    *originals = (struct mb_originals){0};
}

/* ---------------------------------------------------------------- looking up */

struct wanted {
    const char *stem, *part;
};

static int by_wanted(const void *key, const void *item)
{
    const struct wanted *wanted = key;
    return compare_part(wanted->stem, wanted->part, item);
}

/* "STEM.7.PART" with the number between these dots, or "STEM.PART": n_between counts the number and its dot.
 */
static bool find_at(const struct mb_originals *originals, const char *name, const char *dot, size_t n_between,
                    const struct mb_fused **fused, size_t *part)
{
    char stem[MB_TENSOR_NAME_MAX + 1];
    size_t n = (size_t)(dot - name);
    if (n >= sizeof stem)
        return false;
    memcpy(stem, name, n);
    stem[n] = '\0';
    const struct wanted wanted = {stem, dot + 1 + n_between};
    const struct mb_original_part *found =
        bsearch(&wanted, originals->parts, originals->n_parts, sizeof *originals->parts, by_wanted);
    if (found == NULL || (found->fused->tensor.n_dims == 2) != (n_between == 0))
        return false;
    *fused = found->fused;
    *part = found->part;
    return true;
}

bool mb_original_part_of(const struct mb_originals *originals, const char *name,
                         const struct mb_fused **fused, size_t *expert, size_t *part)
{
    if (originals->n_parts == 0)
        return false;
    for (const char *dot = strchr(name, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
        if (find_at(originals, name, dot, 0, fused, part)) {
            *expert = 0;
            return true;
        }
        size_t n_digits = strspn(dot + 1, "0123456789");
        bool is_number = n_digits > 0 && n_digits < 9 && dot[1 + n_digits] == '.' &&
                         (dot[1] != '0' || n_digits == 1); /* "07" is no way to write 7 */
        if (!is_number || !find_at(originals, name, dot, n_digits + 1, fused, part))
            continue;
        *expert = (size_t)strtoul(dot + 1, NULL, 10);
        return *expert < (*fused)->tensor.shape[0];
    }
    return false;
}
