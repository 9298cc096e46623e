/*
 * bounds.h - which error bound each tensor gets: rules from options and a plan file, asked by name.
 */
#ifndef MB_CHECKPOINT_BOUNDS_H
#define MB_CHECKPOINT_BOUNDS_H

#include "checkpoint.h"

/*
 * Bounds without options, as parts of the mean absolute weight: measured, docs/quality.md.  A rounder's are
 * 2 rho times as wide, which is the same step; the embedding's is not, since it is rounded plainly.
 */
#define MB_EXPERT_FRACTION 0.3
#define MB_LINEAR_FRACTION 0.1
#define MB_VOCABULARY_FRACTION 0.05

/* What the default bound of a tensor depends on. */
enum mb_bound_class {
    MB_CLASS_EXPERT, /* gate, up and down of a routed or shared expert */
    MB_CLASS_LINEAR, /* any other linear matrix, but for */
    MB_CLASS_HEAD,   /* lm_head, and */
    MB_CLASS_EMBEDDING,
    MB_CLASS_OTHER, /* router, norms, biases: exact unless a rule names them */
};
enum mb_bound_class mb_bound_class_of(const char *tensor_name);

/* Of a class, by the options or by default. */
struct mb_bound mb_bound_of_class(const struct mb_compress_options *options, enum mb_bound_class class);

struct mb_bounds;

/*
 * The rules of the options, of which each one is stronger than those before: the defaults of the classes,
 * bound and dense_bound, the plan file, tensor_bounds in their order.  MB_USAGE: a pattern is none.
 * MB_BAD_DATA: the plan file is damaged.  The options must live as long as the rules.
 */
enum mb_status mb_bounds_create(const struct mb_compress_options *options, struct mb_bounds **bounds,
                                struct mb_error *err);
void mb_bounds_free(struct mb_bounds *bounds);

/*
 * The bound of a tensor.  'is_text': it belongs to the text model, others are exact unless a rule names them.
 * *is_planned: it came from the plan file, which names this tensor and
 * no other.  One thread at a time.
 */
enum mb_status mb_bounds_find(struct mb_bounds *bounds, const char *tensor_name, bool is_text,
                              struct mb_bound *bound, bool *is_planned, struct mb_error *err);

/*
 * MB_BAD_DATA: the plan file names a tensor that mb_bounds_find has not seen.  MB_USAGE: a pattern matched
 * none of those that it has seen.
 */
enum mb_status mb_bounds_check_used(const struct mb_bounds *bounds, const char *model, struct mb_error *err);

#endif
