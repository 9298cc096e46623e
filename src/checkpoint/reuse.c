/*
 * reuse.c - see reuse.h.  What is damaged or unknown in the old folder is coded again, without a word.
 */
#include "reuse.h"
#include "base/error.h"
#include "base/json.h"
#include "each_blob.h"
#include "output_error.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t BLOB_NBYTES_MAX = 256 << 20; /* larger ones are not held in memory */

struct mb_reuse {
    struct mb_checkpoint *ckpt;
};

static bool is_same_member(const json_t *a, const json_t *b, const char *name)
{
    const json_t *x = json_object_get(a, name), *y = json_object_get(b, name);
    return x == NULL || y == NULL ? x == y : json_equal(x, y) == 1;
}

/* Another encoder, or other feedback, may choose other indices and widths for the same bound and step. */
static bool is_coded_alike(const struct mb_checkpoint *ckpt, const json_t *config)
{
    json_t *json = NULL;
    const char *text = mb_checkpoint_config_text(ckpt);
    if (mb_json_parse(text, strlen(text), 0, &json, NULL) != MB_OK)
        return false;
    const json_t *there = json_object_get(json, "quantization_config");
    bool is_alike = is_same_member(there, config, "encoder") && is_same_member(there, config, "feedback");
    json_decref(json);
    return is_alike;
}

enum mb_status mb_reuse_open(const char *path, const json_t *config, struct mb_reuse **reuse,
                             struct mb_error *err)
{
    struct mb_checkpoint *ckpt;
    *reuse = NULL;
    if (mb_checkpoint_open(path, &ckpt, NULL) != MB_OK)
        return MB_OK;
    if (!mb_checkpoint_is_coded(ckpt) || !is_coded_alike(ckpt, config)) {
        mb_checkpoint_close(ckpt);
        return MB_OK;
    }
    *reuse = malloc(sizeof **reuse);
    if (*reuse == NULL) {
        mb_checkpoint_close(ckpt);
        return mb_fail_memory(err, "the folder that is replaced");
    }
    (*reuse)->ckpt = ckpt;
    return MB_OK;
}

void mb_reuse_close(struct mb_reuse *reuse)
{
    if (reuse != NULL)
        mb_checkpoint_close(reuse->ckpt);
    free(reuse);
}

/* All that chooses the coded bytes beside weights and rounding. */
static bool is_same(const struct mb_blob_matrix *a, const struct mb_blob_matrix *b)
{
    return a->name_nbytes == b->name_nbytes && memcmp(a->name, b->name, a->name_nbytes) == 0 &&
           a->dtype == b->dtype && a->form == b->form && a->n_rows == b->n_rows && a->n_cols == b->n_cols &&
           a->eps == b->eps && a->step == b->step && a->exponents_nbytes == b->exponents_nbytes;
}

static bool has_matrices(const struct mb_checkpoint *ckpt, const struct mb_tensor *blob,
                         const struct mb_blob_matrix *infos, size_t n_infos)
{
    struct mb_blob_header header;
    if (mb_load_blob_header(ckpt, blob, &header, NULL) != MB_OK)
        return false;
    bool all = header.n_matrices == n_infos;
    for (size_t i = 0; i < n_infos && all; i++)
        all = is_same(&header.infos[i], &infos[i]);
    mb_free_blob_header(&header);
    return all;
}

bool mb_reuse_look(const struct mb_reuse *reuse, const char *name, const struct mb_blob_matrix *infos,
                   size_t n_infos, uint64_t *origin)
{
    const struct mb_tensor *blob = mb_checkpoint_find(reuse->ckpt, name);
    return blob != NULL && mb_tensor_is_blob(reuse->ckpt, blob) && blob->nbytes <= BLOB_NBYTES_MAX &&
           mb_blob_origin(reuse->ckpt, blob, origin) && has_matrices(reuse->ckpt, blob, infos, n_infos);
}

static void count(const struct mb_blob *blob, struct mb_reused *reused)
{
    struct mb_coded_statistics statistics = {0};
    for (size_t i = 0; i < blob->n_matrices; i++)
        mb_coded_statistics_add(&statistics, &blob->matrix[i], 0, blob->info[i].n_rows, NULL);
    reused->nbytes = blob->nbytes;
    reused->n_groups = statistics.n_groups;
    reused->n_raw_groups = statistics.n_raw_groups;
    reused->n_outliers = statistics.n_outliers;
}

static bool has_exponents(const struct mb_blob *blob, const int8_t *const *exponents)
{
    bool all = true;
    for (size_t i = 0; i < blob->n_matrices && all; i++) {
        const struct mb_coded_matrix *w = &blob->matrix[i];
        all = w->col_exponents == NULL || exponents[i] == NULL
                  ? w->col_exponents == exponents[i]
                  : memcmp(w->col_exponents, exponents[i], w->n_cols) == 0;
    }
    return all;
}

struct mb_reused mb_reuse_take(const struct mb_reuse *reuse, const char *name, const int8_t *const *exponents)
{
    const struct mb_tensor *tensor = mb_checkpoint_find(reuse->ckpt, name);
    struct mb_reused reused = {.bytes = malloc(tensor->nbytes + MB_SLACK_NBYTES)};
    struct mb_blob blob;
    if (reused.bytes == NULL)
        return reused;
    if (mb_checkpoint_read(reuse->ckpt, tensor, 0, reused.bytes, tensor->nbytes, NULL) != MB_OK ||
        mb_blob_open(reused.bytes, tensor->nbytes, &blob, NULL) != MB_OK) {
        free(reused.bytes);
        return (struct mb_reused){0};
    }
    count(&blob, &reused);
    if (!has_exponents(&blob, exponents)) {
        free(reused.bytes);
        reused = (struct mb_reused){0};
    }
    mb_blob_close(&blob);
    return reused;
}

const char *mb_reuse_output_error(const struct mb_reuse *reuse, const char *blob, const char *name)
{
    return mb_output_error_text(reuse->ckpt, mb_checkpoint_find(reuse->ckpt, blob), name);
}
