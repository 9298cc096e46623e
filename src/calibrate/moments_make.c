/*
 * moments_make.c - makes a moments file, layer by layer, and goes on with one that was begun.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/options.h"
#include "moments_file.h"
#include "moments_run.h"
#include "moments_states.h"
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

struct making {
    const char *path;
    char partial[MB_PATH_MAX], states[MB_PATH_MAX];
    int fd; /* of the partial file, locked */
    struct mb_moments_head head;
    struct mb_moments_run run;
    uint64_t end; /* of what is finished in the file */

    /* The layer at hand. */
    json_t *table; /* of its inputs */
    uint64_t data_pos, data_nbytes;
    size_t table_nbytes; /* that are kept free for it before the data */
};

/* ---------------------------------------------------------------- a layer */

static json_t *input_json(const struct mb_layer_input *input, uint64_t n_tokens, double sum_gg, uint64_t xxh3)
{
    char hex[17];
    json_t *names = json_array();
    snprintf(hex, sizeof hex, "%016" PRIx64, xxh3);
    for (size_t i = 0; i < input->n_matrices; i++)
        json_array_append_new(names, json_string(input->matrices[i]));
    return json_pack("{s:o, s:i, s:I, s:I, s:f, s:s}", "matrices", names, "expert", input->expert, "n_values",
                     (json_int_t)input->sum.n_values, "n_tokens", (json_int_t)n_tokens, "sum_gg", sum_gg,
                     "xxh3", hex);
}

static uint64_t stored_nbytes(const struct mb_moments_sum *sum)
{
    return sum->n_tokens == 0 ? 0 : mb_moments_half_nbytes(sum->n_values);
}

static enum mb_status fill_half(const struct mb_layer_input *input, float *half, struct mb_error *err)
{
    const size_t n = input->sum.n_values;
    for (size_t i = 0; i < n; i++) {
        mb_moments_sum_row(&input->sum, i, half);
        for (size_t j = 0; j <= i; j++)
            if (!isfinite(half[j]))
                return mb_fail(err, MB_BAD_DATA,
                               "tensor %s: the moments of its input are infinite: weights before it are "
                               "damaged",
                               input->matrices[0]);
        half += i + 1;
    }
    return MB_OK;
}

/* An mb_each_input_fn: the input's data follows that of those before it. */
static enum mb_status write_input(void *ctx, size_t i, const struct mb_layer_input *input,
                                  struct mb_error *err)
{
    struct making *m = ctx;
    uint64_t nbytes = stored_nbytes(&input->sum), xxh3 = 0;
    (void)i;
    if (nbytes > 0) {
        float *half = malloc(nbytes);
        if (half == NULL)
            return mb_fail_memory(err, "second moments");
        enum mb_status status = fill_half(input, half, err);
        if (status == MB_OK)
            status = mb_write_at(m->fd, m->partial, m->data_pos + m->data_nbytes, half, nbytes, err);
        xxh3 = XXH3_64bits(half, nbytes);
        free(half);
        MB_TRY(status);
    }
    m->data_nbytes += nbytes;
    if (json_array_append_new(m->table, input_json(input, input->sum.n_tokens, input->sum.sum_gg, xxh3)) != 0)
        return mb_fail_memory(err, "the list of inputs");
    return MB_OK;
}

/* The text of a layer's table, with the widest numbers: the data is written before they are known. */
static enum mb_status measure_table(struct making *m, struct mb_error *err)
{
    json_t *inputs = json_array();
    for (size_t i = 0; i < m->run.inputs.n; i++)
        json_array_append_new(inputs,
                              input_json(&m->run.inputs.at[i], INT64_MAX, -1.7976931348623157e+308, 0));
    json_t *table = json_pack("{s:o}", "inputs", inputs);
    char *text = table == NULL ? NULL : mb_json_text(table, JSON_COMPACT, &m->table_nbytes);
    json_decref(table);
    free(text);
    return text == NULL ? mb_fail_memory(err, "the list of inputs") : MB_OK;
}

/* Spaces after the table fill its place. */
static enum mb_status write_table(struct making *m, struct mb_error *err)
{
    size_t nbytes;
    json_t *table = json_pack("{s:O}", "inputs", m->table);
    char *text = table == NULL ? NULL : mb_json_text(table, JSON_COMPACT | JSON_REAL_PRECISION(17), &nbytes);
    json_decref(table);
    char *padded = text == NULL || nbytes > m->table_nbytes ? NULL : malloc(m->table_nbytes);
    if (padded == NULL) {
        free(text);
        return mb_fail_memory(err, "the list of inputs");
    }
    memset(padded, ' ', m->table_nbytes);
    memcpy(padded, text, nbytes);
    free(text);
    enum mb_status status =
        mb_moments_frame_write(m->fd, m->partial, m->end, MB_MOMENTS_LAYER, (uint32_t)m->run.layer, padded,
                               m->table_nbytes, m->data_nbytes, err);
    free(padded);
    return status;
}

static enum mb_status sync_partial(const struct making *m, struct mb_error *err)
{
    return fdatasync(m->fd) == 0 ? MB_OK : mb_fail_errno(err, m->partial, "writing");
}

/* The file ends with the frame, which is written when its data is there. */
static enum mb_status finish_layer(struct making *m, struct mb_error *err)
{
    MB_TRY(sync_partial(m, err));
    MB_TRY(write_table(m, err));
    m->end = m->data_pos + m->data_nbytes;
    if (ftruncate(m->fd, (off_t)m->end) != 0) /* a layer without data ends in its padding */
        return mb_fail_errno(err, m->partial, "writing");
    MB_TRY(sync_partial(m, err));
    if (m->run.layer < m->run.n_layers)
        return mb_moments_states_save(m->states, &m->head.key, m->run.layer + 1, m->run.states,
                                      m->head.n_tokens * m->run.d_model, err);
    return MB_OK;
}

static enum mb_status make_layer(struct making *m, struct mb_error *err)
{
    MB_TRY(mb_layer_inputs_open(&m->run.inputs, m->run.model, m->run.layer, err));
    MB_TRY(measure_table(m, err));
    m->data_pos = mb_moments_data_pos(m->end, m->table_nbytes);
    m->data_nbytes = 0;
    m->table = json_array();
    enum mb_status status = m->table == NULL ? mb_fail_memory(err, "the list of inputs")
                                             : mb_moments_run_layer(&m->run, write_input, m, err);
    if (status == MB_OK)
        status = finish_layer(m, err);
    json_decref(m->table);
    m->table = NULL;
    mb_layer_inputs_close(&m->run.inputs);
    return status;
}

/* ---------------------------------------------------------------- what an earlier call left */

static bool is_same_head(const struct mb_moments_head *a, const struct mb_moments_head *b)
{
    return strcmp(a->key.model, b->key.model) == 0 && strcmp(a->key.tokenizer, b->key.tokenizer) == 0 &&
           strcmp(a->key.text, b->key.text) == 0 && strcmp(a->key.tokens, b->key.tokens) == 0 &&
           a->n_tokens == b->n_tokens && a->n_windows == b->n_windows && a->n_layers == b->n_layers;
}

/* How many of the first n_layers frames are in the partial file; *end: where they end. */
static size_t n_finished(const struct making *m, uint64_t file_nbytes, size_t n_layers, uint64_t *end)
{
    struct mb_moments_frame frame;
    struct mb_moments_head head;
    *end = 0;
    if (mb_moments_frame_read(m->fd, m->partial, file_nbytes, 0, MB_MOMENTS_FILE, &frame, NULL) != MB_OK)
        return 0;
    bool is_same = frame.number == MB_MOMENTS_VERSION &&
                   mb_moments_head_parse(frame.json, &head, NULL) == MB_OK && is_same_head(&head, &m->head);
    json_decref(frame.json);
    if (!is_same)
        return 0;
    *end = frame.end;
    size_t n = 0;
    while (n < n_layers && mb_moments_frame_read(m->fd, m->partial, file_nbytes, *end, MB_MOMENTS_LAYER,
                                                 &frame, NULL) == MB_OK) {
        json_decref(frame.json);
        if (frame.number != n)
            break;
        *end = frame.end;
        n++;
    }
    return n;
}

static enum mb_status begin_file(struct making *m, struct mb_error *err)
{
    size_t nbytes;
    json_t *json = mb_moments_head_json(&m->head);
    char *text = json == NULL ? NULL : mb_json_text(json, JSON_COMPACT, &nbytes);
    json_decref(json);
    if (text == NULL)
        return mb_fail_memory(err, "the head of moments");
    enum mb_status status = mb_moments_frame_write(m->fd, m->partial, 0, MB_MOMENTS_FILE, MB_MOMENTS_VERSION,
                                                   text, nbytes, 0, err);
    m->end = mb_moments_data_pos(0, nbytes);
    free(text);
    return status;
}

/* Sets the layer to go on with, and cuts what comes after it. */
static enum mb_status resume(struct making *m, struct mb_error *err)
{
    struct stat info;
    size_t layer;
    if (fstat(m->fd, &info) != 0)
        return mb_fail_errno(err, m->partial, "looking at");
    MB_TRY(mb_moments_states_load(m->states, &m->head.key, &layer, m->run.states,
                                  m->head.n_tokens * m->run.d_model, err));
    if (layer == 0 || layer > m->run.n_layers ||
        n_finished(m, (uint64_t)info.st_size, layer, &m->end) < layer)
        layer = 0;
    if (ftruncate(m->fd, layer == 0 ? 0 : (off_t)m->end) != 0)
        return mb_fail_errno(err, m->partial, "writing");
    m->run.layer = m->run.first_layer = layer;
    return layer == 0 ? begin_file(m, err) : MB_OK;
}

/* ---------------------------------------------------------------- the whole */

static enum mb_status open_partial(struct making *m, struct mb_error *err)
{
    bool is_there;
    MB_TRY(mb_look_at(m->path, &is_there, NULL, err));
    if (is_there)
        return mb_fail(err, MB_USAGE, "%s: exists", m->path);
    if ((size_t)snprintf(m->partial, sizeof m->partial, "%s.partial", m->path) >= sizeof m->partial ||
        (size_t)snprintf(m->states, sizeof m->states, "%s.states", m->path) >= sizeof m->states)
        return mb_fail(err, MB_BAD_DATA, "%.200s...: the path is too long", m->path);
    m->fd = open(m->partial, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (m->fd < 0)
        return mb_fail_errno(err, m->partial, "opening");
    if (flock(m->fd, LOCK_EX | LOCK_NB) != 0)
        return mb_fail(err, MB_IO, "%s: another process is making it", m->partial);
    return MB_OK;
}

static enum mb_status publish(const struct making *m, struct mb_error *err)
{
    if (rename(m->partial, m->path) != 0)
        return mb_fail_errno(err, m->path, "renaming");
    unlink(m->states);
    return mb_sync_folder_of(m->path, err);
}

static enum mb_status make(struct making *m, struct mb_model *model, const struct mb_calibration *calibration,
                           const struct mb_moments_options *options, struct mb_error *err)
{
    MB_TRY(open_partial(m, err));
    MB_TRY(mb_moments_run_open(&m->run, model, &calibration->windows, options, err));
    m->head.n_tokens = calibration->windows.n_tokens;
    m->head.n_windows = calibration->windows.n;
    m->head.n_layers = m->run.n_layers;
    MB_TRY(resume(m, err));
    for (; m->run.layer <= m->run.n_layers; m->run.layer++)
        MB_TRY(make_layer(m, err));
    return publish(m, err);
}

enum mb_status mb_moments_make(const char *path, struct mb_model *model,
                               const struct mb_calibration *calibration, const struct mb_moments_key *key,
                               const struct mb_moments_options *options, struct mb_moments_report *report,
                               struct mb_error *err)
{
    struct mb_moments_options taken;
    uint64_t begun_ns = mb_now_ns();
    *report = (struct mb_moments_report){0};
    MB_TRY(MB_OPTIONS_TAKE(taken, options, err));
    struct making *m = calloc(1, sizeof *m);
    if (m == NULL)
        return mb_fail_memory(err, "second moments");
    m->path = path;
    m->fd = -1;
    m->head.key = *key;
    enum mb_status status = make(m, model, calibration, &taken, err);
    *report = (struct mb_moments_report){.n_layers = m->run.n_layers + 1,
                                         .n_layers_resumed = m->run.first_layer,
                                         .n_runs = m->run.n_runs,
                                         .seconds = (double)(mb_now_ns() - begun_ns) * 1e-9,
                                         .sum_seconds = (double)m->run.sum_ns * 1e-9,
                                         .sum_flops = m->run.sum_flops,
                                         .nbytes = m->end};
    mb_moments_run_close(&m->run);
    if (m->fd >= 0)
        close(m->fd);
    free(m);
    return status;
}
