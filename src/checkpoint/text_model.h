/*
 * text_model.h - which tensors are the text model, and what its families call them.
 *
 * A checkpoint may hold more: layers that predict several tokens at once, towers for images and sound.  They
 * are left alone: handed out as they are stored, copied by compress, used by nobody.
 *
 * The text model's tensors lose what multimodal checkpoints put before their names ("model.language_model."),
 * and where newer programs spell them otherwise they get the published spelling.
 */
#ifndef MB_CHECKPOINT_TEXT_MODEL_H
#define MB_CHECKPOINT_TEXT_MODEL_H

#include "checkpoint.h"

/* The member of config.json that describes the text model, or all of it. */
const json_t *mb_text_config(const struct mb_checkpoint *ckpt);

/* Its model_type, that of the whole where it has none, or "". */
const char *mb_text_model_type(const struct mb_checkpoint *ckpt);

enum mb_part {
    MB_PART_TEXT,
    MB_PART_PREDICTION, /* multi-token prediction: "mtp.", layers beyond num_hidden_layers */
    MB_PART_TOWER,      /* images, sound */
};
enum { MB_N_PARTS = 3 };

/* By the stored or the logical name. */
enum mb_part mb_part_of(const struct mb_checkpoint *ckpt, const char *name);

/* What a stored tensor is called for everybody else: malloc'ed, NULL when there is no memory. */
char *mb_logical_name(const struct mb_checkpoint *ckpt, const char *stored_name);

/* A note for each part that is left alone. */
enum mb_status mb_note_parts(struct mb_checkpoint *ckpt, struct mb_error *err);

#endif
