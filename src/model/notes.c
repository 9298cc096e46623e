/*
 * notes.c - what was found in a folder and is not used, for people who wonder.
 */
#include "base/error.h"
#include "base/names.h"
#include "model.h"
#include <stdio.h>
#include <stdlib.h>

/* Buffers that programs of old stored beside the weights, and compute today. */
static bool is_buffer(const char *name)
{
    static const char *const ends[] = {"rotary_emb.inv_freq", "rotary_emb.cos_cached",
                                       "rotary_emb.sin_cached", "position_ids", "masked_bias"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (n >= strlen(ends[i]) && strcmp(name + n - strlen(ends[i]), ends[i]) == 0)
            return true;
    return false;
}

static enum mb_status add_line(struct mb_bytes *notes, const char *line, struct mb_error *err)
{
    if (!mb_bytes_reserve(notes, strlen(line) + 2))
        return mb_fail_memory(err, "the notes on a model");
    if (notes->n > 0 && line[0] != '\0')
        notes->p[notes->n++] = '\n';
    memcpy(notes->p + notes->n, line, strlen(line) + 1);
    notes->n += strlen(line);
    return MB_OK;
}

/* Those that the checkpoint's own notes do not count. */
static enum mb_status add_unused(struct mb_model *model, const char **names, size_t n, struct mb_error *err)
{
    size_t n_unused = 0;
    for (size_t i = 0; i < n; i++)
        if (!is_buffer(names[i]) && mb_tensor_is_text(model->ckpt, names[i]))
            names[n_unused++] = names[i];
    if (n_unused == 0)
        return MB_OK;
    char list[MB_NAMES_NBYTES], line[MB_NOTE_NBYTES];
    mb_names_text(names, n_unused, list);
    snprintf(line, sizeof line, "%zu tensor%s not used: %s", n_unused, n_unused == 1 ? " is" : "s are", list);
    return add_line(&model->notes, line, err);
}

static enum mb_status add_tensors(struct mb_model *model, struct mb_error *err)
{
    size_t n = mb_store_unused(model->store, NULL, 0);
    const char **names = calloc(n + 1, sizeof *names);
    if (names == NULL)
        return mb_fail_memory(err, "the notes on a model");
    mb_store_unused(model->store, names, n);
    enum mb_status status = add_unused(model, names, n, err);
    free(names);
    return status;
}

enum mb_status mb_notes_make(struct mb_model *model, struct mb_error *err)
{
    const struct mb_config *c = &model->config;
    MB_TRY(add_line(&model->notes, mb_checkpoint_notes(model->ckpt), err));
    MB_TRY(add_line(&model->notes, c->note != NULL ? c->note : "", err));
    MB_TRY(add_tensors(model, err));
    return add_line(&model->notes, c->unused, err);
}
