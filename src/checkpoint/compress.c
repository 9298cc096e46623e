/*
 * compress.c - a plain folder becomes a coded one, shard by shard.
 */
#include "base/bytes.h"
#include "blob_units.h"
#include "blob_writer.h"
#include "checksums.h"
#include "compress_report.h"
#include "estimate.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <xxhash.h>

/* ---------------------------------------------------------------- what is written down about it */

static json_t *bound_json(const struct mb_bound *bound, double default_fraction, bool is_given)
{
    struct mb_bound usual = {MB_BOUND_MEAN_ABS, default_fraction};
    char text[40];
    mb_bound_format(is_given ? bound : &usual, text);
    return json_string(text);
}

/* NULL: none were given, or no memory. */
static json_t *tensor_bounds_json(const struct mb_compress_options *options)
{
    json_t *patterns = options->n_tensor_bounds == 0 ? NULL : json_array();
    for (size_t i = 0; i < options->n_tensor_bounds && patterns != NULL; i++)
        if (json_array_append_new(patterns,
                                  json_pack("[s, o]", options->tensor_bounds[i].pattern,
                                            bound_json(&options->tensor_bounds[i].bound, 0, true))) != 0) {
            json_decref(patterns);
            patterns = NULL;
        }
    return patterns;
}

/*
 * The block in config.json, but for the checksums of files, which are known only at the end.  'plan_xxh3' is
 * of the bound of every tensor, by name.  NULL: no memory.
 */
static json_t *quantization_config(const struct mb_compress_options *options, const struct mb_layout *layout)
{
    char hash[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)layout->hash);
    json_t *config =
        json_pack("{s:s, s:i, s:o, s:o}", "quant_method", "moebius", "format_version", MB_FORMAT_VERSION,
                  "bound", bound_json(&options->bound, MB_EXPERT_FRACTION, options->has_bound), "dense_bound",
                  bound_json(&options->dense_bound, MB_LINEAR_FRACTION, options->has_dense_bound));
    bool ok = config != NULL;
    if (ok && options->n_tensor_bounds > 0)
        ok = json_object_set_new(config, "tensor_bounds", tensor_bounds_json(options)) == 0;
    ok = ok && json_object_set_new(config, "plan_xxh3", json_string(hash)) == 0;
    if (ok)
        return config;
    json_decref(config);
    return NULL;
}

/* ---------------------------------------------------------------- exact tensors */

enum { COPY_NBYTES = 1 << 20 };

struct compression {
    const struct mb_checkpoint *ckpt;
    const struct mb_layout *layout;
    struct mb_coder *coder;
    struct mb_output output;
    struct mb_progress progress;
    uint8_t *buffer; /* COPY_NBYTES */
};

static enum mb_status copy_piece(struct compression *c, const struct mb_tensor *tensor, uint64_t pos,
                                 uint64_t nbytes, struct mb_shard_writer *writer, struct mb_error *err)
{
    enum mb_status status = mb_checkpoint_read(c->ckpt, tensor, pos, c->buffer, nbytes, err);
    if (status == MB_OK && mb_tensor_is_float(tensor)) {
        struct mb_weight_stats unused = MB_WEIGHT_STATS_INIT;
        enum mb_dtype dtype = mb_tensor_dtype(tensor);
        size_t elem_nbytes = mb_dtype_nbytes(dtype), bad;
        if (mb_weight_stats_add(&unused, dtype, c->buffer, nbytes / elem_nbytes, &bad) != MB_OK)
            status = mb_fail_weight(c->ckpt, tensor, pos / elem_nbytes + bad, err);
    }
    return status == MB_OK ? mb_shard_write(writer, c->buffer, nbytes, err) : status;
}

static enum mb_status copy_exact(struct compression *c, const struct mb_tensor *tensor,
                                 struct mb_shard_writer *writer, struct mb_error *err)
{
    uint64_t begin = writer->at;
    XXH3_state_t *hash = XXH3_createState();
    if (hash == NULL)
        return mb_fail_memory(err, "a hash");
    XXH3_64bits_reset(hash);
    enum mb_status status = MB_OK;
    for (uint64_t pos = 0; pos < tensor->nbytes && status == MB_OK; pos += COPY_NBYTES) {
        uint64_t nbytes = tensor->nbytes - pos < COPY_NBYTES ? tensor->nbytes - pos : COPY_NBYTES;
        status = copy_piece(c, tensor, pos, nbytes, writer, err);
        XXH3_64bits_update(hash, c->buffer, nbytes);
        if (status == MB_OK)
            status = mb_progress_add(&c->progress, "compress", nbytes, err);
    }
    if (status == MB_OK)
        status = mb_shard_add(writer, begin, err);
    if (status == MB_OK)
        status = mb_shard_add_xxh3(writer, tensor->name, XXH3_64bits_digest(hash), err);
    XXH3_freeState(hash);
    return status;
}

/* ---------------------------------------------------------------- shards */

static enum mb_status fill_shard(struct compression *c, const struct mb_shard_layout *planned,
                                 struct mb_shard_writer *writer, struct mb_compress_report *report,
                                 struct mb_error *err)
{
    enum mb_status status =
        mb_coder_run(c->coder, c->layout->units + planned->first_unit, planned->n_units, writer, report, err);
    for (size_t i = 0; i < planned->n_exact && status == MB_OK; i++) {
        const struct mb_tensor *tensor = c->layout->exact[planned->first_exact + i].tensor;
        status = copy_exact(c, tensor, writer, err);
        report->n_weights_exact += tensor->n_elems;
        report->exact_nbytes += tensor->nbytes;
    }
    report->in_nbytes = report->expert_in_nbytes + report->dense_in_nbytes + report->exact_nbytes;
    report->out_nbytes = writer->data_pos + writer->at;
    return status;
}

static enum mb_status write_shard(struct compression *c, size_t shard, const struct mb_shard_layout *planned,
                                  struct mb_compress_report *report, struct mb_error *err)
{
    struct mb_shard_writer writer;
    enum mb_status status = mb_shard_begin(&c->output, shard, c->layout->n_shards, planned->tensors,
                                           planned->n_units + planned->n_exact, &writer, err);
    if (status != MB_OK)
        return status;
    status = fill_shard(c, planned, &writer, report, err);
    if (status != MB_OK) {
        mb_shard_cancel(&writer);
        return status;
    }
    json_t *json = mb_report_to_json(report);
    if (json == NULL) {
        mb_shard_cancel(&writer);
        return mb_fail_memory(err, "the note about unfinished work");
    }
    status = mb_shard_end(&writer, planned->hash, json, err);
    json_decref(json);
    return status;
}

static enum mb_status compress_shard(struct compression *c, size_t shard, struct mb_compress_report *sum,
                                     struct mb_error *err)
{
    struct mb_shard_layout planned;
    struct mb_compress_report report = {0};
    enum mb_status status = mb_shard_layout_make(c->layout, shard, &planned, err);
    if (status != MB_OK)
        return status;
    const json_t *noted = mb_output_report(&c->output, shard, c->layout->n_shards, planned.hash);
    if (noted != NULL) {
        mb_report_add_json(&report, noted);
        sum->n_shards_resumed++;
        status = mb_progress_add(&c->progress, "compress", report.in_nbytes, err);
    } else {
        status = write_shard(c, shard, &planned, &report, err);
    }
    mb_report_add(sum, &report);
    mb_shard_layout_free(&planned);
    return status;
}

static enum mb_status write_side_files(struct compression *c, const json_t *block, struct mb_error *err)
{
    enum mb_status status = mb_output_write_files(&c->output, c->ckpt, c->layout->n_shards, err);
    if (status != MB_OK)
        return status;
    char *text = mb_config_text_sealed(c->ckpt->config_text, block, c->output.files);
    if (text == NULL)
        return mb_fail_memory(err, "config.json");
    status = mb_output_write_config(&c->output, text, err);
    free(text);
    return status;
}

static enum mb_status fill_folder(struct compression *c, const json_t *block,
                                  struct mb_compress_report *report, struct mb_error *err)
{
    enum mb_status status = MB_OK;
    report->n_shards = c->layout->n_shards;
    for (size_t i = 0; i < c->layout->n_shards && status == MB_OK; i++)
        status = compress_shard(c, i, report, err);
    return status == MB_OK && !c->output.is_done ? write_side_files(c, block, err) : status;
}

static enum mb_status write_folder(struct compression *c, const char *out_path,
                                   const struct mb_compress_options *options,
                                   struct mb_compress_report *report, struct mb_error *err)
{
    json_t *block = quantization_config(options, c->layout);
    json_t *work = json_pack("{s:o, s:{s:s, s:O}}", "input", mb_input_identity(c->ckpt), "options", "verb",
                             "compress", "quantization_config", block);
    enum mb_status status = work == NULL
                                ? mb_fail_memory(err, "the note about unfinished work")
                                : mb_output_open(out_path, c->ckpt, work, options->force, &c->output, err);
    if (status == MB_OK) {
        status = fill_folder(c, block, report, err);
        if (status == MB_OK)
            status = mb_output_finish(&c->output, err);
        else
            mb_output_abandon(&c->output, status);
    }
    json_decref(work);
    json_decref(block);
    return status;
}

/* ---------------------------------------------------------------- the call */

static enum mb_status run(struct compression *c, const char *out_path,
                          const struct mb_compress_options *options, struct mb_compress_report *report,
                          struct mb_error *err)
{
    if (options->dry_run) {
        c->progress.total_nbytes = 0; /* only coded matrices are sampled */
        for (size_t i = 0; i < c->layout->n_items; i++)
            if (c->layout->items[i].bound.kind != MB_BOUND_EXACT)
                c->progress.total_nbytes += c->layout->items[i].tensor->nbytes;
        return mb_estimate(c->ckpt, c->layout, options->n_threads, &c->progress, report, err);
    }
    c->buffer = malloc(COPY_NBYTES);
    if (c->buffer == NULL)
        return mb_fail_memory(err, "copying");
    for (size_t i = 0; i < c->ckpt->n_tensors; i++)
        c->progress.total_nbytes += c->ckpt->tensors[i]->nbytes;
    enum mb_status status =
        mb_coder_create(c->ckpt, c->layout, options->n_threads, &c->progress, &c->coder, err);
    if (status == MB_OK)
        status = write_folder(c, out_path, options, report, err);
    mb_coder_free(c->coder);
    free(c->buffer);
    return status;
}

static double seconds_since(const struct timespec *begun)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begun->tv_sec) + (double)(now.tv_nsec - begun->tv_nsec) * 1e-9;
}

enum mb_status mb_compress(const char *in_path, const char *out_path,
                           const struct mb_compress_options *options, struct mb_compress_report *report,
                           struct mb_error *err)
{
    struct timespec begun;
    struct mb_checkpoint *ckpt;
    struct mb_layout layout;
    *report = (struct mb_compress_report){0};
    if (options->size != sizeof *options)
        return mb_fail(err, MB_USAGE, "mb_compress: options of another version of this library");
    clock_gettime(CLOCK_MONOTONIC, &begun);
    enum mb_status status = mb_checkpoint_open(in_path, &ckpt, err);
    if (status != MB_OK)
        return status;
    if (ckpt->is_coded)
        status =
            mb_fail(err, MB_UNSUPPORTED, "%s: is coded already; moebius decompress makes it plain", in_path);
    if (status == MB_OK)
        status = mb_layout_make(ckpt, options, &layout, err);
    if (status == MB_OK) {
        struct compression c = {.ckpt = ckpt,
                                .layout = &layout,
                                .progress = {.fn = options->progress, .ctx = options->progress_ctx}};
        status = run(&c, out_path, options, report, err);
        mb_layout_free(&layout);
    }
    mb_checkpoint_close(ckpt);
    report->seconds = seconds_since(&begun);
    return status;
}
