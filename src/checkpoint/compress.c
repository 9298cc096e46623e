/*
 * compress.c - a plain folder becomes a coded one, shard by shard.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/number.h"
#include "base/options.h"
#include "blob_units.h"
#include "blob_writer.h"
#include "bounds.h"
#include "checksums.h"
#include "compress_report.h"
#include "estimate.h"
#include "notes.h"
#include "originals.h"
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

/* ---------------------------------------------------------------- what is written down about it */

/* Grows with every change that codes other bytes with the same options: no folder mixes two ways. */
enum { ENCODER = 2 };

static json_t *bound_json(struct mb_bound bound)
{
    char text[40];
    mb_bound_format(&bound, text);
    return json_string(text);
}

/* NULL: none were given, or no memory. */
static json_t *tensor_bounds_json(const struct mb_compress_options *options)
{
    json_t *patterns = options->n_tensor_bounds == 0 ? NULL : json_array();
    for (size_t i = 0; i < options->n_tensor_bounds && patterns != NULL; i++)
        if (json_array_append_new(patterns, json_pack("[s, o]", options->tensor_bounds[i].pattern,
                                                      bound_json(options->tensor_bounds[i].bound))) != 0) {
            json_decref(patterns);
            patterns = NULL;
        }
    return patterns;
}

/* How indices are chosen: in the note about unfinished work too, so that no folder mixes two ways. */
static json_t *feedback_json(const struct mb_rounder *rounder)
{
    char rho[40], damping[40], hash[24];
    mb_number_format(rho, sizeof rho, "%.*g", 17, rounder->rho);
    mb_number_format(damping, sizeof damping, "%.*g", 17, rounder->damping);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)rounder->moments_hash);
    return json_pack("{s:s, s:s, s:s, s:b}", "rho", rho, "damping", damping, "moments_xxh3", hash,
                     "column_factors", (int)(rounder->exponents != NULL));
}

/* That of blobs may be lower. */
static int version_of(const struct mb_rounder *rounder)
{
    if (rounder == NULL)
        return MB_FORMAT_VERSION;
    return rounder->exponents == NULL ? MB_FORMAT_VERSION_STEPS : MB_FORMAT_VERSION_MAX;
}

/*
 * The block in config.json, but for the checksums of files, which are known only at the end.  'plan_xxh3' is
 * of the bound of every tensor, by name.  NULL: no memory.
 */
static json_t *quantization_config(const struct mb_compress_options *options, const struct mb_layout *layout)
{
    char hash[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)layout->hash);
    json_t *config = json_pack("{s:s, s:i, s:i, s:o, s:o}", "quant_method", "moebius", "format_version",
                               version_of(options->rounder), "encoder", ENCODER, "bound",
                               bound_json(mb_bound_of_class(options, MB_CLASS_EXPERT)), "dense_bound",
                               bound_json(mb_bound_of_class(options, MB_CLASS_LINEAR)));
    bool ok = config != NULL;
    if (ok && !options->has_dense_bound)
        ok = json_object_set_new(config, "head_bound",
                                 bound_json(mb_bound_of_class(options, MB_CLASS_HEAD))) == 0 &&
             json_object_set_new(config, "embedding_bound",
                                 bound_json(mb_bound_of_class(options, MB_CLASS_EMBEDDING))) == 0;
    if (ok && options->n_tensor_bounds > 0)
        ok = json_object_set_new(config, "tensor_bounds", tensor_bounds_json(options)) == 0;
    ok = ok && json_object_set_new(config, "plan_xxh3", json_string(hash)) == 0;
    if (ok && options->rounder != NULL)
        ok = json_object_set_new(config, "feedback", feedback_json(options->rounder)) == 0;
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
    bool has_errors; /* a rounder proves some of outputs */
    struct mb_output output;
    struct mb_progress progress;
    uint8_t *buffer; /* COPY_NBYTES */
};

/* Exact tensors too must be finite: a product with them would not be. */
static enum mb_status check_finite(const struct compression *c, const struct mb_tensor *tensor, uint64_t pos,
                                   uint64_t nbytes, struct mb_error *err)
{
    if (!mb_tensor_is_float(tensor))
        return MB_OK;
    struct mb_weight_stats unused = MB_WEIGHT_STATS_INIT;
    size_t elem_nbytes = mb_dtype_nbytes(mb_tensor_dtype(tensor)), bad;
    if (mb_weight_stats_add(&unused, mb_tensor_dtype(tensor), c->buffer, nbytes / elem_nbytes, &bad) == MB_OK)
        return MB_OK;
    return mb_fail_weight(c->ckpt, tensor, pos / elem_nbytes + bad, err);
}

static enum mb_status copy_pieces(struct compression *c, const struct mb_tensor *tensor, XXH3_state_t *hash,
                                  struct mb_shard_writer *writer, struct mb_error *err)
{
    uint64_t begin = writer->at;
    for (uint64_t pos = 0; pos < tensor->nbytes; pos += COPY_NBYTES) {
        uint64_t nbytes = tensor->nbytes - pos < COPY_NBYTES ? tensor->nbytes - pos : COPY_NBYTES;
        MB_TRY(mb_checkpoint_read(c->ckpt, tensor, pos, c->buffer, nbytes, err));
        MB_TRY(check_finite(c, tensor, pos, nbytes, err));
        MB_TRY(mb_shard_write(writer, c->buffer, nbytes, err));
        XXH3_64bits_update(hash, c->buffer, nbytes);
        MB_TRY(mb_progress_add(&c->progress, "compress", nbytes, err));
    }
    MB_TRY(mb_shard_add(writer, begin, err));
    return mb_shard_add_xxh3(writer, tensor->name, XXH3_64bits_digest(hash), err);
}

static enum mb_status copy_exact(struct compression *c, const struct mb_tensor *tensor,
                                 struct mb_shard_writer *writer, struct mb_error *err)
{
    XXH3_state_t *hash = XXH3_createState();
    if (hash == NULL)
        return mb_fail_memory(err, "a hash");
    XXH3_64bits_reset(hash);
    enum mb_status status = copy_pieces(c, tensor, hash, writer, err);
    XXH3_freeState(hash);
    return status;
}

/* ---------------------------------------------------------------- shards */

static enum mb_status fill_shard(struct compression *c, const struct mb_shard_layout *planned,
                                 struct mb_shard_writer *writer, struct mb_compress_report *report,
                                 struct mb_error *err)
{
    MB_TRY(mb_coder_run(c->coder, c->layout->units + planned->first_unit, planned->n_units, writer, report,
                        err));
    report->in_nbytes = report->expert_in_nbytes + report->dense_in_nbytes;
    for (size_t i = 0; i < planned->n_exact; i++) {
        const struct mb_tensor *tensor = c->layout->exact[planned->first_exact + i].tensor;
        MB_TRY(copy_exact(c, tensor, writer, err));
        report->n_weights_exact += tensor->n_elems;
        report->exact_nbytes += tensor->nbytes;
        report->in_nbytes += mb_tensor_stored_nbytes(c->ckpt, tensor);
    }
    report->out_nbytes = writer->data_pos + writer->at;
    return MB_OK;
}

static enum mb_status write_shard(struct compression *c, size_t shard, const struct mb_shard_layout *planned,
                                  struct mb_compress_report *report, struct mb_error *err)
{
    struct mb_shard_writer writer;
    const struct mb_shard_errors errors = {planned->coded, planned->n_coded};
    MB_TRY(mb_shard_begin(&c->output, shard, c->layout->n_shards, planned->tensors,
                          planned->n_units + planned->n_exact, c->has_errors ? &errors : NULL, &writer, err));
    enum mb_status status = fill_shard(c, planned, &writer, report, err);
    json_t *json = status == MB_OK ? mb_report_to_json(report) : NULL;
    if (status == MB_OK && json == NULL)
        status = mb_fail_memory(err, "the note about unfinished work");
    if (status == MB_OK)
        status = mb_shard_end(&writer, planned->hash, json, err);
    else
        mb_shard_cancel(&writer);
    json_decref(json);
    return status;
}

/* What a shard is made from, as it is read. */
static uint64_t read_nbytes(const struct compression *c, const struct mb_shard_layout *planned)
{
    uint64_t nbytes = 0;
    for (size_t u = planned->first_unit; u < planned->first_unit + planned->n_units; u++) {
        const struct mb_unit *unit = &c->layout->units[u];
        for (size_t i = unit->first; i < unit->first + unit->n; i++)
            if (c->layout->items[i].bound.kind != MB_BOUND_EXACT)
                nbytes += c->layout->items[i].tensor->nbytes;
    }
    for (size_t i = 0; i < planned->n_exact; i++)
        nbytes += c->layout->exact[planned->first_exact + i].tensor->nbytes;
    return nbytes;
}

/* A shard that an earlier call finished is only counted. */
static enum mb_status finish_shard(struct compression *c, size_t shard, const struct mb_shard_layout *planned,
                                   struct mb_compress_report *report, bool *is_resumed, struct mb_error *err)
{
    const json_t *noted = mb_output_report(&c->output, shard, c->layout->n_shards, planned->hash);
    *is_resumed = noted != NULL;
    if (noted == NULL)
        return write_shard(c, shard, planned, report, err);
    mb_report_add_json(report, noted);
    return mb_progress_add(&c->progress, "compress", read_nbytes(c, planned), err);
}

static enum mb_status compress_shard(struct compression *c, size_t shard, struct mb_compress_report *sum,
                                     struct mb_error *err)
{
    struct mb_shard_layout planned;
    struct mb_compress_report report = {0};
    bool is_resumed;
    MB_TRY(mb_shard_layout_make(c->layout, shard, &planned, err));
    enum mb_status status = finish_shard(c, shard, &planned, &report, &is_resumed, err);
    mb_report_add(sum, &report);
    sum->n_shards_resumed += is_resumed;
    mb_shard_layout_free(&planned);
    return status;
}

static enum mb_status write_side_files(struct compression *c, const json_t *block, struct mb_error *err)
{
    MB_TRY(mb_output_write_files(&c->output, c->ckpt, c->layout->n_shards, err));
    char *text = mb_config_text_sealed(c->ckpt->config_text, block, c->output.files);
    if (text == NULL)
        return mb_fail_memory(err, "config.json");
    enum mb_status status = mb_output_write_config(&c->output, text, err);
    free(text);
    return status;
}

static enum mb_status fill_folder(struct compression *c, const json_t *block,
                                  struct mb_compress_report *report, struct mb_error *err)
{
    report->n_shards = c->layout->n_shards;
    for (size_t i = 0; i < c->layout->n_shards; i++)
        MB_TRY(compress_shard(c, i, report, err));
    return c->output.is_done ? MB_OK : write_side_files(c, block, err);
}

static enum mb_status write_work(struct compression *c, const char *out_path, const json_t *block,
                                 const json_t *work, bool force, struct mb_compress_report *report,
                                 struct mb_error *err)
{
    struct mb_reuse *reuse = NULL;
    MB_TRY(mb_output_open(out_path, c->ckpt, work, force, &c->output, err));
    enum mb_status status = c->output.replaces ? mb_reuse_open(out_path, block, &reuse, err) : MB_OK;
    mb_coder_reuse(c->coder, reuse);
    if (status == MB_OK)
        status = fill_folder(c, block, report, err);
    mb_reuse_close(reuse);
    if (status == MB_OK)
        return mb_output_finish(&c->output, err);
    mb_output_abandon(&c->output, status);
    return status;
}

static enum mb_status write_folder(struct compression *c, const char *out_path,
                                   const struct mb_compress_options *options,
                                   struct mb_compress_report *report, struct mb_error *err)
{
    json_t *block = quantization_config(options, c->layout);
    enum mb_status status = block == NULL ? MB_OK : mb_originals_write(c->ckpt, block, err);
    if (status != MB_OK) {
        json_decref(block);
        return status;
    }
    json_t *work = json_pack("{s:o, s:{s:s, s:O}}", "input", mb_input_identity(c->ckpt), "options", "verb",
                             "compress", "quantization_config", block);
    status = work == NULL ? mb_fail_memory(err, "the note about unfinished work")
                          : write_work(c, out_path, block, work, options->force, report, err);
    json_decref(work);
    json_decref(block);
    return status;
}

/* ---------------------------------------------------------------- the call */

/* Only coded matrices are sampled. */
static enum mb_status predict(struct compression *c, const struct mb_compress_options *options,
                              struct mb_compress_report *report, struct mb_error *err)
{
    for (size_t i = 0; i < c->layout->n_items; i++)
        if (c->layout->items[i].bound.kind != MB_BOUND_EXACT)
            c->progress.total_nbytes += mb_tensor_stored_nbytes(c->ckpt, c->layout->items[i].tensor);
    return mb_estimate(c->ckpt, c->layout, options, &c->progress, report, err);
}

static enum mb_status write_coded(struct compression *c, const char *out_path,
                                  const struct mb_compress_options *options,
                                  struct mb_compress_report *report, struct mb_error *err)
{
    for (size_t i = 0; i < c->ckpt->n_tensors; i++)
        c->progress.total_nbytes += c->ckpt->tensors[i]->nbytes;
    c->buffer = malloc(COPY_NBYTES);
    if (c->buffer == NULL)
        return mb_fail_memory(err, "copying");
    enum mb_status status = mb_coder_create(c->ckpt, c->layout, options->rounder, options->n_threads,
                                            &c->progress, &c->coder, err);
    if (status == MB_OK)
        status = write_folder(c, out_path, options, report, err);
    mb_coder_free(c->coder);
    free(c->buffer);
    return status;
}

static enum mb_status compress(const struct mb_checkpoint *ckpt, const char *out_path,
                               const struct mb_compress_options *options, struct mb_compress_report *report,
                               struct mb_error *err)
{
    struct mb_layout layout;
    if (ckpt->is_coded)
        return mb_fail(err, MB_UNSUPPORTED,
                       "%s: is coded already; use its original, or make it plain with 'moebius decompress'",
                       ckpt->path);
    MB_TRY(mb_layout_make(ckpt, options, &layout, err));
    struct compression c = {
        .ckpt = ckpt,
        .layout = &layout,
        .has_errors = options->rounder != NULL,
        .progress = {.fn = options->progress, .ctx = options->progress_ctx},
    };
    enum mb_status status = options->dry_run ? predict(&c, options, report, err)
                                             : write_coded(&c, out_path, options, report, err);
    mb_layout_free(&layout);
    return status;
}

/* Folders inside are not copied, and this one may hold what a chat with tools goes by. */
static enum mb_status note_templates(struct mb_checkpoint *ckpt, struct mb_error *err)
{
    static const char NAME[] = "additional_chat_templates";
    char path[MB_PATH_MAX];
    bool is_there;
    MB_TRY(mb_join_path(path, ckpt->path, NAME, err));
    MB_TRY(mb_look_at(path, &is_there, NULL, err));
    return is_there
               ? mb_checkpoint_note(ckpt, err, "%s is not copied: copy that folder into the output", NAME)
               : MB_OK;
}

enum mb_status mb_compress(const char *in_path, const char *out_path, const struct mb_compress_options *given,
                           struct mb_compress_report *report, struct mb_error *err)
{
    struct mb_compress_options options;
    struct mb_checkpoint *ckpt;
    uint64_t begun_ns = mb_now_ns();
    *report = (struct mb_compress_report){0};
    MB_TRY(MB_OPTIONS_TAKE(options, given, err));
    MB_TRY(mb_checkpoint_open(in_path, &ckpt, err));
    enum mb_status status = note_templates(ckpt, err);
    snprintf(report->notes, sizeof report->notes, "%s", mb_checkpoint_notes(ckpt));
    if (status == MB_OK)
        status = compress(ckpt, out_path, &options, report, err);
    mb_checkpoint_close(ckpt);
    report->seconds = (double)(mb_now_ns() - begun_ns) * 1e-9;
    return status;
}
