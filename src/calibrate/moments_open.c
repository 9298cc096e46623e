/*
 * moments_open.c - reads moments files: their structure at once, moments when they are wanted.
 */
#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "moments_file.h"
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { MATRICES_MAX = 1 << 12 }; /* that read one input */

struct place {
    uint64_t pos, xxh3;
};

struct matrix_name {
    const char *name;
    size_t input;
};

struct mb_moments {
    char *path;
    int fd;
    uint64_t file_nbytes;
    struct mb_moments_contents contents;
    json_t **tables; /* [n_tables] of the layers: they own the names */
    size_t n_tables;
    struct mb_moments_input *inputs; /* [contents.n_inputs] */
    struct place *places;            /* of the inputs */
    size_t inputs_cap, places_cap;
    struct matrix_name *names; /* [n_names] by name */
    size_t n_names;
};

/* ---------------------------------------------------------------- the table of a layer */

static enum mb_status parse_names(const json_t *json, struct mb_moments_input *input, struct mb_error *err)
{
    size_t n = json_array_size(json);
    if (n == 0 || n > MATRICES_MAX)
        return mb_fail(err, MB_BAD_DATA, "matrices is no list of names");
    const char **names = mb_alloc(n, sizeof *names);
    if (names == NULL)
        return mb_fail_memory(err, "the names of matrices");
    input->matrices = names;
    input->n_matrices = n;
    for (size_t i = 0; i < n; i++) {
        names[i] = json_string_value(json_array_get(json, i));
        if (names[i] == NULL)
            return mb_fail(err, MB_BAD_DATA, "matrices is no list of names");
    }
    return MB_OK;
}

/* 0 to max; -1: it is none. */
static int64_t count_of(const json_t *json, const char *name, int64_t max)
{
    const json_t *value = json_object_get(json, name);
    int64_t count = json_is_integer(value) ? json_integer_value(value) : -1;
    return count >= 0 && count <= max ? count : -1;
}

static enum mb_status parse_xxh3(const json_t *json, uint64_t *xxh3, struct mb_error *err)
{
    const char *text = json_string_value(json_object_get(json, "xxh3"));
    if (text == NULL || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return mb_fail(err, MB_BAD_DATA, "xxh3 is no checksum");
    *xxh3 = strtoull(text, NULL, 16);
    return MB_OK;
}

static enum mb_status parse_input(const json_t *json, struct mb_moments_input *input, struct place *place,
                                  uint64_t n_tokens_max, struct mb_error *err)
{
    int64_t n_values = count_of(json, "n_values", MB_MOMENTS_VALUES_MAX);
    int64_t n_tokens = count_of(json, "n_tokens", (int64_t)n_tokens_max);
    const json_t *expert = json_object_get(json, "expert"), *sum_gg = json_object_get(json, "sum_gg");
    MB_TRY(parse_names(json_object_get(json, "matrices"), input, err));
    if (n_values <= 0 || n_tokens < 0)
        return mb_fail(err, MB_BAD_DATA, "n_values or n_tokens is no number that can be");
    if (!json_is_integer(expert) || json_integer_value(expert) < -1 || json_integer_value(expert) > 1 << 20)
        return mb_fail(err, MB_BAD_DATA, "expert is no number");
    if (!json_is_real(sum_gg) || !(json_real_value(sum_gg) >= 0 && json_real_value(sum_gg) < 1e300))
        return mb_fail(err, MB_BAD_DATA, "sum_gg is no sum of squares");
    input->n_values = (size_t)n_values;
    input->n_tokens = (uint64_t)n_tokens;
    input->expert = (int)json_integer_value(expert);
    input->sum_gg = json_real_value(sum_gg);
    return parse_xxh3(json, &place->xxh3, err);
}

static enum mb_status add_input(struct mb_moments *m, const json_t *json, uint32_t layer, uint64_t *pos,
                                uint64_t end, struct mb_error *err)
{
    size_t n = m->contents.n_inputs;
    void *inputs = m->inputs, *places = m->places;
    bool has_room = mb_grow(&inputs, &m->inputs_cap, n, 1, sizeof *m->inputs) &&
                    mb_grow(&places, &m->places_cap, n, 1, sizeof *m->places);
    m->inputs = inputs;
    m->places = places;
    if (!has_room)
        return mb_fail_memory(err, "the inputs of moments");
    m->inputs[n] = (struct mb_moments_input){.layer = layer == m->contents.n_layers ? SIZE_MAX : layer};
    m->places[n] = (struct place){.pos = *pos};
    m->contents.n_inputs++;
    MB_TRY(parse_input(json, &m->inputs[n], &m->places[n], m->contents.n_tokens, err));
    uint64_t nbytes = m->inputs[n].n_tokens == 0 ? 0 : mb_moments_half_nbytes(m->inputs[n].n_values);
    if (nbytes > end - *pos)
        return mb_fail(err, MB_BAD_DATA, "more moments than the layer's data");
    *pos += nbytes;
    m->contents.hash = XXH3_64bits_withSeed(&m->places[n].xxh3, sizeof m->places[n].xxh3, m->contents.hash);
    if (m->inputs[n].n_values > m->contents.n_values_max)
        m->contents.n_values_max = m->inputs[n].n_values;
    return MB_OK;
}

static enum mb_status add_layer(struct mb_moments *m, const struct mb_moments_frame *frame,
                                struct mb_error *err)
{
    const json_t *inputs = json_object_get(frame->json, "inputs");
    uint64_t pos = frame->data_pos;
    if (json_array_size(inputs) == 0)
        return mb_fail(err, MB_BAD_DATA, "inputs is no list");
    for (size_t i = 0; i < json_array_size(inputs); i++) {
        enum mb_status status = add_input(m, json_array_get(inputs, i), frame->number, &pos, frame->end, err);
        if (status != MB_OK)
            return mb_fail_in(err, status, "inputs[%zu]", i);
    }
    return pos == frame->end ? MB_OK : mb_fail(err, MB_BAD_DATA, "less moments than the layer's data");
}

/* ---------------------------------------------------------------- the file */

static enum mb_status read_layers(struct mb_moments *m, uint64_t pos, struct mb_error *err)
{
    m->tables = mb_alloc(m->contents.n_layers + 1, sizeof(json_t *));
    if (m->tables == NULL)
        return mb_fail_memory(err, "the layers of moments");
    for (size_t i = 0; i <= m->contents.n_layers; i++) {
        struct mb_moments_frame frame;
        MB_TRY(mb_moments_frame_read(m->fd, m->path, m->file_nbytes, pos, MB_MOMENTS_LAYER, &frame, err));
        m->tables[m->n_tables++] = frame.json;
        if (frame.number != i)
            return mb_fail(err, MB_BAD_DATA, "%s: byte %" PRIu64 ": layer %" PRIu32 " in place of %zu",
                           m->path, pos, frame.number, i);
        enum mb_status status = add_layer(m, &frame, err);
        if (status != MB_OK)
            return mb_fail_in(err, status, "%s: layer %zu", m->path, i);
        pos = frame.end;
    }
    if (pos != m->file_nbytes)
        return mb_fail(err, MB_BAD_DATA, "%s: byte %" PRIu64 ": more than its layers", m->path, pos);
    return MB_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct matrix_name *)a)->name, ((const struct matrix_name *)b)->name);
}

static enum mb_status sort_names(struct mb_moments *m, struct mb_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < m->contents.n_inputs; i++)
        n += m->inputs[i].n_matrices;
    m->names = mb_alloc(n, sizeof *m->names);
    if (m->names == NULL)
        return mb_fail_memory(err, "the names of matrices");
    for (size_t i = 0; i < m->contents.n_inputs; i++)
        for (size_t k = 0; k < m->inputs[i].n_matrices; k++)
            m->names[m->n_names++] = (struct matrix_name){m->inputs[i].matrices[k], i};
    qsort(m->names, n, sizeof *m->names, by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(m->names[i - 1].name, m->names[i].name) == 0)
            return mb_fail(err, MB_BAD_DATA, "%s: tensor %.200s is there twice", m->path, m->names[i].name);
    return MB_OK;
}

static enum mb_status check_head(struct mb_moments *m, const struct mb_moments_frame *frame,
                                 const char *model_hash, struct mb_error *err)
{
    struct mb_moments_head head;
    if (frame->number != MB_MOMENTS_VERSION)
        return mb_fail(err, MB_UNSUPPORTED,
                       "%s: moments of version %" PRIu32 "; this program reads version %d", m->path,
                       frame->number, MB_MOMENTS_VERSION);
    enum mb_status status = mb_moments_head_parse(frame->json, &head, err);
    if (status != MB_OK)
        return mb_fail_in(err, status, "%s", m->path);
    if (frame->data_nbytes != 0)
        return mb_fail(err, MB_BAD_DATA, "%s: data before the first layer", m->path);
    if (model_hash != NULL && strcmp(model_hash, head.key.model) != 0)
        return mb_fail(err, MB_BAD_DATA,
                       "%s: the moments of another model (hash %s, this model's is %.32s): make new ones",
                       m->path, head.key.model, model_hash);
    m->contents.key = head.key;
    m->contents.n_tokens = head.n_tokens;
    m->contents.n_windows = head.n_windows;
    m->contents.n_layers = head.n_layers;
    return MB_OK;
}

static enum mb_status read_file(struct mb_moments *m, const char *model_hash, struct mb_error *err)
{
    struct mb_moments_frame frame;
    struct stat info;
    if (fstat(m->fd, &info) != 0)
        return mb_fail_errno(err, m->path, "looking at");
    if (!S_ISREG(info.st_mode))
        return mb_fail(err, MB_BAD_DATA, "%s: no file of moments", m->path);
    m->file_nbytes = m->contents.nbytes = (uint64_t)info.st_size;
    MB_TRY(mb_moments_frame_read(m->fd, m->path, m->file_nbytes, 0, MB_MOMENTS_FILE, &frame, err));
    enum mb_status status = check_head(m, &frame, model_hash, err);
    json_decref(frame.json);
    MB_TRY(status);
    MB_TRY(read_layers(m, frame.end, err));
    return sort_names(m, err);
}

enum mb_status mb_moments_open(const char *path, const char *model_hash, struct mb_moments **moments,
                               struct mb_error *err)
{
    struct mb_moments *m = calloc(1, sizeof *m);
    if (m == NULL)
        return mb_fail_memory(err, "moments");
    m->path = strdup(path);
    m->fd = open(path, O_RDONLY | O_CLOEXEC);
    enum mb_status status = m->path == NULL ? mb_fail_memory(err, "moments")
                            : m->fd < 0     ? mb_fail_errno(err, path, "opening")
                                            : read_file(m, model_hash, err);
    if (status != MB_OK) {
        mb_moments_close(m);
        return status;
    }
    *moments = m;
    return MB_OK;
}

void mb_moments_close(struct mb_moments *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->contents.n_inputs; i++)
        free((void *)m->inputs[i].matrices);
    for (size_t i = 0; i < m->n_tables; i++)
        json_decref(m->tables[i]);
    free(m->tables);
    free(m->inputs);
    free(m->places);
    free(m->names);
    free(m->path);
    if (m->fd >= 0)
        close(m->fd);
    free(m);
}

const struct mb_moments_contents *mb_moments_contents(const struct mb_moments *moments)
{
    return &moments->contents;
}

const struct mb_moments_input *mb_moments_inputs(const struct mb_moments *moments, size_t *n)
{
    *n = moments->contents.n_inputs;
    return moments->inputs;
}

const struct mb_moments_input *mb_moments_find(const struct mb_moments *m, const char *matrix)
{
    struct matrix_name key = {matrix, 0};
    const struct matrix_name *found = bsearch(&key, m->names, m->n_names, sizeof *m->names, by_name);
    return found == NULL ? NULL : &m->inputs[found->input];
}

/* ---------------------------------------------------------------- moments */

/* The half is at the end of h, where unpacking row by row never overtakes it, and is mirrored then. */
static enum mb_status unpack(const struct mb_moments *m, const struct mb_moments_input *input, float *h,
                             const float *half, struct mb_error *err)
{
    const size_t n = input->n_values;
    for (size_t i = 0; i < n; half += ++i) {
        memmove(h + i * n, half, (i + 1) * sizeof *h);
        bool is_sound = h[i * n + i] >= 0;
        for (size_t j = 0; j <= i; j++)
            is_sound = is_sound && isfinite(h[i * n + j]);
        if (!is_sound)
            return mb_fail(err, MB_BAD_DATA,
                           "%s: tensor %s: row %zu of its moments is not finite, or negative on the diagonal",
                           m->path, input->matrices[0], i);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            h[j * n + i] = h[i * n + j];
    return MB_OK;
}

enum mb_status mb_moments_read(const struct mb_moments *m, const struct mb_moments_input *input, float *h,
                               struct mb_error *err)
{
    const struct place *place = &m->places[input - m->inputs];
    uint64_t nbytes = mb_moments_half_nbytes(input->n_values);
    if (input->n_tokens == 0)
        return mb_fail(err, MB_USAGE, "tensor %s: no token reached it: it has no moments",
                       input->matrices[0]);
    float *half = h + (size_t)input->n_values * input->n_values - nbytes / sizeof *h;
    MB_TRY(mb_read_at(m->fd, m->path, place->pos, half, nbytes, err));
    if (XXH3_64bits(half, nbytes) != place->xxh3)
        return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: the checksum of its moments does not match", m->path,
                       input->matrices[0]);
    return unpack(m, input, h, half, err);
}
