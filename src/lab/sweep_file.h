/*
 * sweep_file.h - a sweep as it is in memory.
 */
#ifndef MB_LAB_SWEEP_FILE_H
#define MB_LAB_SWEEP_FILE_H

#include <moebius/sweep.h>

/* One run of the plan, before anybody looked at the model. Texts belong to the sweep. */
struct mb_sweep_item {
    char *label, *target, *error;
    char *bound; /* NULL: none */
    uint64_t seed;
    /* Where a plan has the bounds (docs/plan.md): its path, and compress's --dense-bound or NULL. */
    char *plan, *dense_bound;
};

struct mb_sweep {
    char *task, *text; /* paths; NULL: none */
    char *examples;    /* the same; NULL: the task's own first questions */
    size_t limit, n_predict, n_ctx, n_windows, n_examples;
    uint64_t *seeds;
    size_t n_seeds;
    char *suite;                 /* NULL: none */
    char *form;                  /* the sweep as a sweep file */
    struct mb_sweep_item *items; /* the clean run first */
    size_t n_items, cap;
    size_t n_asked; /* runs, the same one again included */
};

enum { MB_SWEEP_ITEMS_MAX = 20000 };

/* A sweep of the same form, with runs of its own. */
enum mb_status mb_sweep_copy(const struct mb_sweep *sweep, struct mb_sweep **copy, struct mb_error *err);

/* The same run twice is one. bound NULL: none. */
enum mb_status mb_sweep_add(struct mb_sweep *sweep, const char *label, const char *target, const char *error,
                            const char *bound, struct mb_error *err);

/* Whether an error has a bound ('normal', not 'drop') and whether it is random. */
bool mb_sweep_has_bound(const char *error);
bool mb_sweep_is_random(const char *error);

#endif
