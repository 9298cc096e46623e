/*
 * feedback.c - which table of feedback kernels this process uses, and the check that a table has to pass.
 */
#include "feedback_kernels.h"
#include <math.h>
#include <string.h>

/* Small, with every hard place: weights at the ends of what is admissible, outliers, rests of vectors. */
enum { N_COLS = 90, STRIDE = 96, N_ROWS = 21, ROWS = 32 };

struct trial {
    uint32_t order[N_COLS];
    float feeds[N_COLS * STRIDE];
    double weights[N_COLS], reach[N_COLS], drift[N_COLS];
    float w[N_ROWS * N_COLS];
};

/* What comes of it. */
struct outcome {
    int8_t wanted[N_ROWS * N_COLS];
    float fed[ROWS * STRIDE], errors[ROWS * MB_FEED_PANEL];
    double row_errors2[ROWS], sums[N_ROWS * STRIDE];
    uint32_t n_clipped[ROWS];
};

static float next_value(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(*state >> 40) * 0x1p-23 - 1); /* -1 .. 1 */
}

static void make_trial(struct trial *t)
{
    uint64_t state = 2026;
    memset(t, 0, sizeof *t);
    for (size_t j = 0; j < N_COLS; j++) {
        t->order[j] = (uint32_t)(j * 7 % N_COLS);
        t->weights[j] = 1.5 + (double)next_value(&state);
        t->drift[j] = 1e-5;
        for (size_t k = j + 1; k < N_COLS; k++)
            t->feeds[j * STRIDE + k] = 0.3F * next_value(&state);
    }
    for (size_t i = 0; i < N_ROWS * N_COLS; i++) {
        t->w[i] = 9 * next_value(&state);
        t->w[i] = i % 5 == 0 ? rintf(t->w[i]) : i % 31 == 0 ? 100 * t->w[i] : t->w[i];
    }
}

static void run_trial(const struct mb_feedback_kernels *kernels, struct trial *t, double rho,
                      struct outcome *outcome)
{
    const struct mb_factor factor = {.n = N_COLS,
                                     .stride = STRIDE,
                                     .order = t->order,
                                     .feeds = t->feeds,
                                     .weights = t->weights,
                                     .reach = t->reach};
    const struct mb_coding coding = {
        .dtype = MB_F32, .form = MB_FORM_PATCHED, .n_cols = N_COLS, .eps = rho, .step = 1};
    const struct mb_feed feed = {.factor = &factor,
                                 .coding = &coding,
                                 .weights = (const uint8_t *)t->w,
                                 .n_rows = N_ROWS,
                                 .wanted = outcome->wanted,
                                 .fed = outcome->fed,
                                 .errors = outcome->errors,
                                 .drift = t->drift,
                                 .row_errors2 = outcome->row_errors2,
                                 .n_clipped = outcome->n_clipped};
    double a[N_ROWS * MB_FEED_PANEL], b[MB_FEED_PANEL * STRIDE];
    memset(outcome, 0, sizeof *outcome);
    kernels->round_rows(&feed);
    for (size_t i = 0; i < N_ROWS * MB_FEED_PANEL; i++)
        a[i] = (double)t->w[i] / 3;
    for (size_t i = 0; i < MB_FEED_PANEL * STRIDE; i++)
        b[i] = (double)t->feeds[i] / 3;
    kernels->update_f64(outcome->sums, STRIDE, N_ROWS, STRIDE, a, MB_FEED_PANEL, b, STRIDE, MB_FEED_PANEL);
}

static bool same(const void *a, const void *b, size_t nbytes)
{
    return memcmp(a, b, nbytes) == 0;
}

static bool same_outcome(const struct outcome *a, const struct outcome *b)
{
    return same(a->wanted, b->wanted, sizeof a->wanted) &&
           same(a->row_errors2, b->row_errors2, N_ROWS * sizeof a->row_errors2[0]) &&
           same(a->n_clipped, b->n_clipped, N_ROWS * sizeof a->n_clipped[0]) &&
           same(a->sums, b->sums, sizeof a->sums);
}

static bool agrees(const void *table)
{
    static struct trial trial; /* the dispatcher lets one thread check */
    static struct outcome outcomes[2];
    static const double rhos[] = {0.5, 0.75, 1, 2.5, 4};
    make_trial(&trial);
    for (size_t i = 0; i < sizeof rhos / sizeof rhos[0]; i++) {
        run_trial(&mb_feedback_kernels_scalar, &trial, rhos[i], &outcomes[0]);
        run_trial(table, &trial, rhos[i], &outcomes[1]);
        if (!same_outcome(&outcomes[0], &outcomes[1]))
            return false;
    }
    return true;
}

static struct mb_dispatch dispatch = MB_DISPATCH(mb_feedback_tables, agrees);

const struct mb_feedback_kernels *mb_feedback_kernels(void)
{
    return mb_dispatch_best(&dispatch);
}

const struct mb_feedback_kernels *mb_feedback_kernels_by_isa(const char *isa)
{
    return mb_dispatch_by_isa(&dispatch, isa);
}
