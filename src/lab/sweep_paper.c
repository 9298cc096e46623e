/*
 * sweep_paper.c - the experiments of arXiv:2509.07727: its places in a model of another depth, its figures,
 * and whether ours agree.
 *
 * The paper adds noise to experts of a model with 26 MoE layers of 64 experts, and gives ICA and PIA with two
 * decimals and without a number of questions: its intervals here are those of 100.
 */
#include "sweep_paper.h"
#include "base/error.h"
#include <math.h>
#include <moebius/lab.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAPER_LAYERS = 26, PAPER_EXPERTS = 64, PAPER_QUESTIONS = 100 };

enum which { COLDEST, HOTTEST, TOP_SIX, ALL };

/* first == last: one layer; else the hottest expert of each layer. A figure that is not known is NAN. */
struct cell {
    const char *part;
    int first, last;
    enum which which;
    const char *bound; /* NULL: random weights */
    double ica, pia;
    double clean_ica, clean_pia;
};

#define GSM8K 0.86, 0.96
#define GSM8K_T5 0.85, 0.96
#define MATH 0.62, 0.70
#define DEAD 0, 0
#define UNKNOWN NAN

static const struct cell cells[] = {
    {"3.2.1", 1, 1, COLDEST, "10%", GSM8K, GSM8K},
    {"3.2.1", 1, 1, COLDEST, "30%", GSM8K, GSM8K},
    {"3.2.1", 1, 1, COLDEST, "50%", GSM8K, GSM8K},
    {"3.2.1", 1, 1, COLDEST, "80%", GSM8K, GSM8K},
    {"3.2.1", 1, 1, COLDEST, NULL, UNKNOWN, UNKNOWN, GSM8K},
    {"T3", 1, 1, HOTTEST, "30%", 0.82, 0.96, GSM8K},
    {"T3", 1, 1, HOTTEST, "50%", 0.80, 0.96, GSM8K},
    {"T3", 1, 1, HOTTEST, "80%", 0.79, 0.95, GSM8K},
    {"T4", 1, 1, HOTTEST, "80%", 0.79, 0.95, GSM8K},
    {"T4", 13, 13, HOTTEST, "80%", 0.75, 0.94, GSM8K},
    {"T4", 20, 20, HOTTEST, "80%", 0.89, 0.96, GSM8K},
    {"T4", 26, 26, HOTTEST, "80%", 0.96, 0.96, GSM8K},
    {"T5", 1, 1, TOP_SIX, "80%", 0.74, 0.90, GSM8K_T5},
    {"T5", 26, 26, TOP_SIX, "80%", 0.90, 0.93, GSM8K_T5},
    {"T6", 1, 1, ALL, "80%", 0.33, 0.71, GSM8K},
    {"T6", 13, 13, ALL, "80%", 0.38, 0.65, GSM8K},
    {"T6", 20, 20, ALL, "80%", 0.61, 0.80, GSM8K},
    {"T6", 26, 26, ALL, "80%", 0.85, 0.90, GSM8K},
    {"T7", 1, 10, HOTTEST, "30%", 0.86, 0.94, GSM8K},
    {"T7", 1, 10, HOTTEST, "50%", 0.81, 0.91, GSM8K},
    {"T7", 1, 10, HOTTEST, "80%", DEAD, GSM8K},
    {"T7", 9, 18, HOTTEST, "30%", 0.81, 0.89, GSM8K},
    {"T7", 9, 18, HOTTEST, "50%", 0.69, 0.75, GSM8K},
    {"T7", 9, 18, HOTTEST, "80%", DEAD, GSM8K},
    {"T7", 17, 26, HOTTEST, "30%", 0.91, 0.95, GSM8K},
    {"T7", 17, 26, HOTTEST, "50%", 0.92, 0.94, GSM8K},
    {"T7", 17, 26, HOTTEST, "80%", DEAD, GSM8K},
    {"T8", 1, 1, HOTTEST, "80%", 0.60, 0.65, MATH},
    {"T8", 13, 13, HOTTEST, "80%", 0.56, 0.60, MATH},
    {"T8", 20, 20, HOTTEST, "80%", 0.62, 0.68, MATH},
    {"T8", 26, 26, HOTTEST, "80%", 0.66, 0.70, MATH},
    {"T9", 1, 10, HOTTEST, "30%", 0.60, 0.63, MATH},
    {"T9", 1, 10, HOTTEST, "50%", 0.50, 0.58, MATH},
    {"T9", 9, 18, HOTTEST, "30%", 0.58, UNKNOWN, MATH},
    {"T9", 9, 18, HOTTEST, "50%", UNKNOWN, 0.50, MATH},
    {"T9", 17, 26, HOTTEST, "30%", 0.63, 0.65, MATH},
    {"T9", 17, 26, HOTTEST, "50%", 0.56, 0.60, MATH},
};
enum { N_CELLS = sizeof cells / sizeof *cells };

/* The error models of the suite. The paper's own is 'normal'. */
static const char *const errors[] = {"normal", "uniform", "codec"};
enum { N_ERRORS = sizeof errors / sizeof *errors, TARGET_NBYTES = 96 };

/* ---------------------------------------------------------------- places */

/* The same fraction of the depth: the first layer is the first, the last the last. */
static int layer_of(const struct mb_sweep_shape *shape, int paper_layer)
{
    double fraction = (double)(paper_layer - 1) / (PAPER_LAYERS - 1);
    return shape->moe_layers[(size_t)lround(fraction * (double)(shape->n_moe_layers - 1))];
}

/* The same share of a layer's experts as the paper's six. */
static size_t top_count(const struct mb_sweep_shape *shape)
{
    long n = lround(6.0 * (double)shape->n_experts / PAPER_EXPERTS);
    return n < 1 ? 1 : (size_t)n;
}

static void write_target(const struct mb_sweep_shape *shape, const struct cell *cell,
                         char target[TARGET_NBYTES])
{
    char experts[32];
    switch (cell->which) {
    case COLDEST:
        snprintf(experts, sizeof experts, "cold1");
        break;
    case HOTTEST:
        snprintf(experts, sizeof experts, "top1");
        break;
    case TOP_SIX:
        snprintf(experts, sizeof experts, "top%zu", top_count(shape));
        break;
    default:
        snprintf(experts, sizeof experts, "all");
    }
    int first = layer_of(shape, cell->first), last = layer_of(shape, cell->last);
    if (cell->first == cell->last)
        snprintf(target, TARGET_NBYTES, "layer=%d experts=%s", first, experts);
    else
        snprintf(target, TARGET_NBYTES, "layers=%d-%d experts=%s", first, last, experts);
}

enum mb_status mb_sweep_paper_add(struct mb_sweep *sweep, const struct mb_sweep_shape *shape,
                                  struct mb_error *err)
{
    char target[TARGET_NBYTES];
    if (shape->n_moe_layers == 0)
        return mb_fail(err, MB_UNSUPPORTED, "the paper's suite needs a model with routed experts");
    for (size_t i = 0; i < N_CELLS; i++) {
        write_target(shape, &cells[i], target);
        if (cells[i].bound == NULL)
            MB_TRY(mb_sweep_add(sweep, cells[i].part, target, "random", NULL, err));
        for (size_t e = 0; e < N_ERRORS && cells[i].bound != NULL; e++)
            MB_TRY(mb_sweep_add(sweep, cells[i].part, target, errors[e], cells[i].bound, err));
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- agreement */

struct interval {
    double low, high;
};

/* Newcombe's interval of the difference of two shares of n questions each that are not paired. */
static struct interval difference95(double share, double clean, uint64_t n)
{
    double low, high, clean_low, clean_high, d = share - clean;
    mb_wilson95((uint64_t)llround(share * (double)n), n, &low, &high);
    mb_wilson95((uint64_t)llround(clean * (double)n), n, &clean_low, &clean_high);
    return (struct interval){d - hypot(share - low, clean_high - clean),
                             d + hypot(high - share, clean - clean_low)};
}

/*
 * Two intervals of a difference from the clean run: apart, they disagree.  Both on the same side of zero,
 * they agree.  Otherwise one of them cannot tell a difference from none.
 */
static const char *agreement(struct interval paper, struct interval ours)
{
    if (ours.low > paper.high || ours.high < paper.low)
        return "disagree";
    if ((paper.high < 0 && ours.high < 0) || (paper.low > 0 && ours.low > 0))
        return "agree";
    return "n too small to tell";
}

/* Of random weights the paper says in words that answers become wrong. */
static const char *agreement_in_words(struct interval ours)
{
    return ours.high < 0 ? "agree" : ours.low > -0.05 ? "disagree" : "n too small to tell";
}

static const struct mb_result_pooled *find(const struct mb_result_pooled *pooled, size_t n,
                                           const char *target, const char *error, const char *bound,
                                           const char *name)
{
    for (size_t i = 0; i < n; i++) {
        const struct mb_result_pooled *p = &pooled[i];
        if (strcmp(p->target, target) == 0 && strcmp(p->error, error) == 0 && strcmp(p->name, name) == 0 &&
            (bound == NULL ? p->bound == NULL : p->bound != NULL && strcmp(p->bound, bound) == 0))
            return p;
    }
    return NULL;
}

static const char *const names[] = {"ica", "pia"};

/* Nothing where our run is not done. */
static enum mb_status add_row(const struct mb_result_pooled *pooled, size_t n_pooled, const struct cell *cell,
                              const char *target, const char *error, size_t name,
                              struct mb_result_paper *rows, size_t *n_rows, struct mb_error *err)
{
    const struct mb_result_pooled *ours = find(pooled, n_pooled, target, error, cell->bound, names[name]);
    if (ours == NULL)
        return MB_OK;
    double paper = name == 0 ? cell->ica : cell->pia, clean = name == 0 ? cell->clean_ica : cell->clean_pia;
    struct interval mine = {ours->difference_low, ours->difference_high};
    struct interval theirs =
        isnan(paper) ? (struct interval){NAN, NAN} : difference95(paper, clean, PAPER_QUESTIONS);
    char *place = strdup(target);
    if (place == NULL)
        return mb_fail_memory(err, "the paper's tables");
    rows[(*n_rows)++] = (struct mb_result_paper){
        .part = cell->part,
        .place = place,
        .bound = cell->bound,
        .error = error,
        .name = names[name],
        .paper = paper,
        .paper_clean = clean,
        .paper_low = theirs.low,
        .paper_high = theirs.high,
        .ours = ours->mean,
        .ours_clean = ours->mean - ours->difference,
        .low = mine.low,
        .high = mine.high,
        .agrees = cell->bound == NULL ? agreement_in_words(mine)
                  : isnan(paper)      ? "not known"
                                      : agreement(theirs, mine),
    };
    return MB_OK;
}

static enum mb_status add_cell(const struct mb_result_pooled *pooled, size_t n_pooled,
                               const struct mb_sweep_shape *shape, const struct cell *cell,
                               struct mb_result_paper *rows, size_t *n_rows, struct mb_error *err)
{
    static const char *const random[] = {"random"};
    char target[TARGET_NBYTES];
    write_target(shape, cell, target);
    bool is_random = cell->bound == NULL;
    const char *const *list = is_random ? random : errors;
    size_t n_errors = is_random ? 1 : N_ERRORS;
    for (size_t e = 0; e < n_errors; e++)
        for (size_t name = 0; name < 2; name++)
            MB_TRY(add_row(pooled, n_pooled, cell, target, list[e], name, rows, n_rows, err));
    return MB_OK;
}

enum mb_status mb_sweep_paper_compare(const struct mb_result_pooled *pooled, size_t n_pooled,
                                      const struct mb_sweep_shape *shape, struct mb_result_paper **rows,
                                      size_t *n_rows, struct mb_error *err)
{
    enum mb_status status = MB_OK;
    *n_rows = 0;
    *rows = malloc(N_CELLS * N_ERRORS * 2 * sizeof **rows);
    if (*rows == NULL)
        return mb_fail_memory(err, "the paper's tables");
    for (size_t i = 0; i < N_CELLS && status == MB_OK; i++)
        status = add_cell(pooled, n_pooled, shape, &cells[i], *rows, n_rows, err);
    if (status != MB_OK) {
        mb_sweep_paper_free(*rows, *n_rows);
        *rows = NULL;
    }
    return status;
}

void mb_sweep_paper_free(struct mb_result_paper *rows, size_t n_rows)
{
    for (size_t i = 0; i < n_rows; i++)
        free((char *)rows[i].place);
    free(rows);
}
