/*
 * sweep_compare.c - all runs against the clean one: paired tests, seeds together, corrected for their number.
 */
#include "base/error.h"
#include "sweep_work.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_RESAMPLES = 2000 };
static const double alpha = 0.05, z95 = 1.959963984540054;

/* What is right or wrong, question by question. */
static const char *const shares[] = {"ica", "pia"};
enum { N_SHARES = sizeof shares / sizeof *shares };

/* Figures that are only averaged over seeds. */
static const char *const means[] = {"kl",   "nll",    "ln_ratio",   "top1", "tv",           "flips",
                                    "lost", "gained", "same_reply", "dead", "reply_tokens", "route_changed"};
enum { N_MEANS = sizeof means / sizeof *means };

static const char nll_name[] = "nll"; /* more is worse */

/* Two-sided, of a mean whose interval is about normal. */
static double p_of(double value, double low, double high)
{
    double se = (high - low) / (2 * z95);
    return se > 0 ? erfc(fabs(value) / se / sqrt(2)) : value == 0 ? 1 : 0;
}

struct comparing {
    struct mb_sweep_work *work;
    struct mb_result_answer *clean;
    size_t n_questions;
    bool *base, *right;  /* [n_questions] */
    double *differences; /* [seeds of a group][n_questions] */
    double *rights;      /* the same of the values themselves */
    int64_t only_run;    /* the last run of the group that is in 'rights' */
    struct mb_result_comparison *comparisons;
    size_t n_comparisons;
    struct mb_result_pooled *pooled;
    size_t *first_runs; /* [n_pooled] of each one's group */
    size_t n_pooled;
};

static bool is_right(const struct mb_result_answer *answer, size_t share)
{
    return share == 0 ? answer->ica : answer->pia;
}

/* ---------------------------------------------------------------- run by run */

static enum mb_status compare_share(struct comparing *c, int64_t run, const struct mb_result_answer *answers,
                                    size_t share, struct mb_error *err)
{
    struct mb_bootstrap_options options = {.size = sizeof options, .n_resamples = N_RESAMPLES, .seed = 1};
    struct mb_paired paired;
    for (size_t i = 0; i < c->n_questions; i++) {
        c->base[i] = is_right(&c->clean[i], share);
        c->right[i] = is_right(&answers[i], share);
    }
    MB_TRY(mb_compare_paired(c->base, c->right, c->n_questions, &options, &paired, err));
    if (paired.n_better + paired.n_worse == 0) {
        mb_wilson95(0, c->n_questions, &paired.difference.low, &paired.difference.high);
        paired.difference.low = -paired.difference.high;
    }
    c->comparisons[c->n_comparisons++] = (struct mb_result_comparison){.run = run,
                                                                       .name = shares[share],
                                                                       .difference = paired.difference.value,
                                                                       .low = paired.difference.low,
                                                                       .high = paired.difference.high,
                                                                       .p = paired.mcnemar.p_exact,
                                                                       .n = c->n_questions};
    return MB_OK;
}

/* *has: the run is in the file, with as many answers as there are questions. */
static enum mb_status get_answers(struct comparing *c, size_t run, struct mb_result_answer **answers,
                                  bool *has, struct mb_error *err)
{
    size_t n;
    MB_TRY(mb_results_get_answers(c->work->results, (int64_t)run, answers, &n, err));
    *has = n == c->n_questions && n > 0;
    if (n == 0 || *has)
        return MB_OK;
    free(*answers);
    *answers = NULL;
    return mb_fail(err, MB_BAD_DATA, "the results file has %zu answers of run %zu, and %zu questions", n, run,
                   c->n_questions);
}

static enum mb_status compare_run(struct comparing *c, size_t run, struct mb_error *err)
{
    struct mb_result_answer *answers;
    bool has;
    enum mb_status status = MB_OK;
    MB_TRY(get_answers(c, run, &answers, &has, err));
    for (size_t share = 0; share < N_SHARES && has && status == MB_OK; share++)
        status = compare_share(c, (int64_t)run, answers, share, err);
    free(answers);
    return status;
}

/* ---------------------------------------------------------------- seeds together */

/* Runs that differ in their seed alone follow one another in a plan. */
static size_t group_end(const struct mb_sweep *plan, size_t begin)
{
    size_t end = begin + 1;
    const struct mb_sweep_item *first = &plan->items[begin];
    for (; end < plan->n_items; end++) {
        const struct mb_sweep_item *item = &plan->items[end];
        const char *a = first->bound == NULL ? "" : first->bound, *b = item->bound == NULL ? "" : item->bound;
        if (strcmp(first->target, item->target) != 0 || strcmp(first->error, item->error) != 0 ||
            strcmp(a, b) != 0)
            break;
    }
    return end;
}

/* Adds a row for the group; its figures are the caller's to fill. */
static struct mb_result_pooled *new_pooled(struct comparing *c, size_t begin, const char *name)
{
    const struct mb_sweep_item *item = &c->work->plan->items[begin];
    c->first_runs[c->n_pooled] = begin;
    struct mb_result_pooled *row = &c->pooled[c->n_pooled++];
    *row = (struct mb_result_pooled){.label = item->label,
                                     .target = item->target,
                                     .error = item->error,
                                     .bound = item->bound,
                                     .name = name,
                                     .mean = NAN,
                                     .low = NAN,
                                     .high = NAN,
                                     .seed_sd = NAN,
                                     .difference = NAN,
                                     .difference_low = NAN,
                                     .difference_high = NAN,
                                     .p = NAN,
                                     .p_adjusted = NAN};
    return row;
}

static double seed_sd(const double *values, size_t n_seeds, size_t n_questions)
{
    double sum = 0, squares = 0;
    if (n_seeds < 2)
        return NAN;
    for (size_t s = 0; s < n_seeds; s++) {
        double mean = 0;
        for (size_t i = 0; i < n_questions; i++)
            mean += values[s * n_questions + i];
        mean /= (double)n_questions;
        sum += mean;
        squares += mean * mean;
    }
    double mean = sum / (double)n_seeds;
    return sqrt(fmax(0, squares - sum * mean) / (double)(n_seeds - 1));
}

/* One run: the interval and the test that are exact for it. */
static void take_exact(const struct comparing *c, const char *name, struct mb_result_pooled *row)
{
    row->low = row->high = row->mean; /* Wilson's, by 'widen' */
    for (size_t i = 0; i < c->n_comparisons; i++) {
        const struct mb_result_comparison *one = &c->comparisons[i];
        if (one->run != c->only_run || one->name != name)
            continue;
        row->difference_low = one->low;
        row->difference_high = one->high;
        row->p = one->p;
    }
}

/*
 * Where few questions flip, resampled ones and their variance say too little: none of n that flipped would
 * give an interval of no width.  Then the share of flips that n questions leave possible takes its place, and
 * that of a value is never narrower than Wilson's of the questions.
 */
static void widen(struct comparing *c, size_t n_seeds, struct mb_result_pooled *row)
{
    double low, high, unused;
    uint64_t n_flips = 0;
    for (size_t i = 0; i < n_seeds * c->n_questions; i++)
        n_flips += c->differences[i] != 0;
    mb_wilson95((uint64_t)llround(row->mean * (double)c->n_questions), c->n_questions, &low, &high);
    row->low = fmin(fmax(0, row->low), low);
    row->high = fmax(fmin(1, row->high), high);
    row->difference_low = fmax(-1, row->difference_low);
    row->difference_high = fmin(1, row->difference_high);
    if (n_flips > 0)
        return;
    mb_wilson95(0, c->n_questions, &unused, &high);
    row->difference_low = -high;
    row->difference_high = high;
}

/* c->rights and c->differences hold 'n_seeds' runs of the group. */
static enum mb_status pool_share(struct comparing *c, size_t begin, size_t n_seeds, size_t share,
                                 struct mb_error *err)
{
    struct mb_two_level value, difference;
    MB_TRY(mb_two_level(c->rights, n_seeds, c->n_questions, &value, err));
    MB_TRY(mb_two_level(c->differences, n_seeds, c->n_questions, &difference, err));
    struct mb_result_pooled *row = new_pooled(c, begin, shares[share]);
    row->n_seeds = n_seeds;
    row->mean = value.mean;
    row->low = value.low;
    row->high = value.high;
    row->seed_sd = seed_sd(c->rights, n_seeds, c->n_questions);
    row->difference = difference.mean;
    row->difference_low = difference.low;
    row->difference_high = difference.high;
    row->p = difference.p;
    if (n_seeds == 1)
        take_exact(c, shares[share], row);
    widen(c, n_seeds, row);
    return MB_OK;
}

static enum mb_status pool_answers(struct comparing *c, size_t begin, size_t end, size_t share,
                                   struct mb_error *err)
{
    size_t n_seeds = 0;
    for (size_t run = begin; run < end; run++) {
        struct mb_result_answer *answers;
        bool has;
        MB_TRY(get_answers(c, run, &answers, &has, err));
        for (size_t i = 0; i < c->n_questions && has; i++) {
            double right = is_right(&answers[i], share), clean = is_right(&c->clean[i], share);
            c->rights[n_seeds * c->n_questions + i] = right;
            c->differences[n_seeds * c->n_questions + i] = right - clean;
        }
        n_seeds += has;
        c->only_run = has ? (int64_t)run : c->only_run;
        free(answers);
    }
    return n_seeds == 0 ? MB_OK : pool_share(c, begin, n_seeds, share, err);
}

static bool is_unbounded(const char *name)
{
    return strcmp(name, "kl") == 0 || strcmp(name, "nll") == 0 || strcmp(name, "reply_tokens") == 0;
}

/*
 * The mean over seeds.  All seeds see the same questions and tokens, so what these leave uncertain does not
 * shrink with more seeds: the interval adds both variances.
 */
static enum mb_status pool_mean(struct comparing *c, size_t begin, size_t end, const char *name,
                                struct mb_error *err)
{
    double sum = 0, squares = 0, inner = 0;
    struct mb_result_value last = {0};
    size_t n = 0;
    for (size_t run = begin; run < end; run++) {
        struct mb_result_value v;
        MB_TRY(mb_results_get_value(c->work->results, (int64_t)run, name, &v, err));
        if (isnan(v.value))
            continue;
        double se = isnan(v.low) || isnan(v.high) ? 0 : (v.high - v.low) / (2 * z95);
        sum += v.value;
        squares += v.value * v.value;
        inner += se * se;
        last = v;
        n++;
    }
    if (n == 0)
        return MB_OK;
    struct mb_result_pooled *row = new_pooled(c, begin, name);
    double count = (double)n, mean = sum / count;
    double between = n > 1 ? fmax(0, squares - sum * mean) / (count - 1) : 0;
    double half = z95 * sqrt(inner / count + between / count);
    row->n_seeds = n;
    row->mean = mean;
    row->low = n > 1 ? mean - half : last.low;
    row->high = n > 1 ? mean + half : last.high;
    if (n > 1 && strcmp(name, "ln_ratio") != 0) {
        row->low = fmax(0, row->low);
        row->high = is_unbounded(name) ? row->high : fmin(1, row->high);
    }
    row->seed_sd = n > 1 ? sqrt(between) : NAN;
    return MB_OK;
}

/* How the text is predicted: the mean ln_ratio is the difference of the two models' nll. */
static enum mb_status compare_nll(struct comparing *c, size_t run, struct mb_error *err)
{
    struct mb_result_value v;
    MB_TRY(mb_results_get_value(c->work->results, (int64_t)run, "ln_ratio", &v, err));
    if (isnan(v.value) || isnan(v.low) || isnan(v.high))
        return MB_OK;
    c->comparisons[c->n_comparisons++] = (struct mb_result_comparison){.run = (int64_t)run,
                                                                       .name = nll_name,
                                                                       .difference = v.value,
                                                                       .low = v.low,
                                                                       .high = v.high,
                                                                       .p = p_of(v.value, v.low, v.high),
                                                                       .n = mb_sweep_n_windows(c->work)};
    return MB_OK;
}

static void pool_nll(struct comparing *c, size_t first)
{
    const struct mb_result_pooled *ratio = NULL;
    struct mb_result_pooled *nll = NULL;
    for (size_t i = first; i < c->n_pooled; i++) {
        if (strcmp(c->pooled[i].name, "ln_ratio") == 0)
            ratio = &c->pooled[i];
        if (strcmp(c->pooled[i].name, nll_name) == 0)
            nll = &c->pooled[i];
    }
    if (ratio == NULL || nll == NULL)
        return;
    nll->name = nll_name;
    nll->difference = ratio->mean;
    nll->difference_low = ratio->low;
    nll->difference_high = ratio->high;
    nll->p = isnan(ratio->low) ? NAN : p_of(ratio->mean, ratio->low, ratio->high);
}

static enum mb_status pool_group(struct comparing *c, size_t begin, size_t end, struct mb_error *err)
{
    size_t first = c->n_pooled;
    for (size_t share = 0; share < N_SHARES && c->n_questions > 1; share++)
        MB_TRY(pool_answers(c, begin, end, share, err));
    for (size_t i = 0; i < N_MEANS; i++)
        MB_TRY(pool_mean(c, begin, end, means[i], err));
    pool_nll(c, first);
    return MB_OK;
}

/* ---------------------------------------------------------------- correction */

/* 'sign': -1 where more is worse. */
static void judge(double difference, double sign, double p, uint64_t n, char verdict[64])
{
    mb_verdict_text(mb_verdict_of(sign * difference, p, alpha), n, verdict);
}

/* Holm's, over all comparisons of one figure. */
static enum mb_status adjust_runs(struct comparing *c, const char *name, double sign, double *p,
                                  struct mb_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_comparisons; i++)
        if (c->comparisons[i].name == name)
            p[n++] = c->comparisons[i].p;
    MB_TRY(mb_adjust_holm(p, n, p, err));
    n = 0;
    for (size_t i = 0; i < c->n_comparisons; i++) {
        struct mb_result_comparison *one = &c->comparisons[i];
        if (one->name != name)
            continue;
        one->p_adjusted = p[n++];
        judge(one->difference, sign, one->p_adjusted, one->n, one->verdict);
    }
    return MB_OK;
}

static bool is_compared(const struct mb_result_pooled *row, const char *name)
{
    return row->name == name && !isnan(row->p) && strcmp(row->error, "none") != 0;
}

/*
 * The word that each run of a group got by itself, NULL where they differ.  '*at': where comparisons of the
 * group may begin; left at those of the next.
 */
static const char *common_verdict(const struct comparing *c, const char *name, size_t begin, size_t *at)
{
    size_t end = group_end(c->work->plan, begin);
    const char *common = NULL;
    bool is_same = true;
    for (; *at < c->n_comparisons; ++*at) {
        const struct mb_result_comparison *one = &c->comparisons[*at];
        if (one->name != name || one->run < (int64_t)begin)
            continue;
        if (one->run >= (int64_t)end)
            break;
        is_same = is_same && (common == NULL || strcmp(common, one->verdict) == 0);
        common = one->verdict;
    }
    return is_same ? common : NULL;
}

/*
 * Two or three seeds that differ say little about others, however much each of them loses: that is no reason
 * to say that nothing is seen.
 */
static void judge_seeds(const char *each, struct mb_result_pooled *row)
{
    bool is_seen = strcmp(row->verdict, "better") == 0 || strcmp(row->verdict, "worse") == 0;
    if (is_seen || each == NULL)
        return;
    const char *word = strcmp(each, "better") == 0 ? "better" : strcmp(each, "worse") == 0 ? "worse" : NULL;
    if (word != NULL)
        snprintf(row->verdict, sizeof row->verdict, "%s with each of %" PRIu64 " seeds", word, row->n_seeds);
}

static enum mb_status adjust_pooled(struct comparing *c, const char *name, double sign, double *p,
                                    struct mb_error *err)
{
    size_t n = 0, at = 0;
    uint64_t n_units = name == nll_name ? mb_sweep_n_windows(c->work) : c->n_questions;
    for (size_t i = 0; i < c->n_pooled; i++)
        if (is_compared(&c->pooled[i], name))
            p[n++] = c->pooled[i].p;
    MB_TRY(mb_adjust_holm(p, n, p, err));
    n = 0;
    for (size_t i = 0; i < c->n_pooled; i++) {
        struct mb_result_pooled *row = &c->pooled[i];
        if (!is_compared(row, name))
            continue;
        row->p_adjusted = p[n++];
        judge(row->difference, sign, row->p_adjusted, n_units, row->verdict);
        const char *each = common_verdict(c, name, c->first_runs[i], &at);
        if (row->n_seeds > 1)
            judge_seeds(each, row);
    }
    return MB_OK;
}

static enum mb_status adjust_name(struct comparing *c, const char *name, double sign, double *p,
                                  struct mb_error *err)
{
    MB_TRY(adjust_runs(c, name, sign, p, err));
    return adjust_pooled(c, name, sign, p, err);
}

static enum mb_status adjust(struct comparing *c, struct mb_error *err)
{
    size_t n_most = c->n_comparisons > c->n_pooled ? c->n_comparisons : c->n_pooled;
    enum mb_status status = MB_OK;
    double *p = calloc(n_most + 1, sizeof *p);
    if (p == NULL)
        return mb_fail_memory(err, "the comparisons");
    for (size_t share = 0; share < N_SHARES && status == MB_OK; share++)
        status = adjust_name(c, shares[share], 1, p, err);
    if (status == MB_OK)
        status = adjust_name(c, nll_name, -1, p, err);
    free(p);
    return status;
}

/* ---------------------------------------------------------------- all */

static enum mb_status allocate(struct comparing *c, struct mb_error *err)
{
    const struct mb_sweep *plan = c->work->plan;
    size_t n_widest = 1, n_questions = c->n_questions > 0 ? c->n_questions : 1;
    for (size_t begin = 0, end; begin < plan->n_items; begin = end) {
        end = group_end(plan, begin);
        n_widest = end - begin > n_widest ? end - begin : n_widest;
    }
    c->base = malloc(n_questions * sizeof *c->base);
    c->right = malloc(n_questions * sizeof *c->right);
    c->differences = malloc(n_widest * n_questions * sizeof *c->differences);
    c->rights = malloc(n_widest * n_questions * sizeof *c->rights);
    c->comparisons = calloc(plan->n_items + 1, (N_SHARES + 1) * sizeof *c->comparisons);
    c->pooled = calloc(plan->n_items + 1, (N_SHARES + N_MEANS) * sizeof *c->pooled);
    c->first_runs = calloc(plan->n_items + 1, (N_SHARES + N_MEANS) * sizeof *c->first_runs);
    return c->base != NULL && c->right != NULL && c->differences != NULL && c->rights != NULL &&
                   c->comparisons != NULL && c->pooled != NULL && c->first_runs != NULL
               ? MB_OK
               : mb_fail_memory(err, "the comparisons");
}

static enum mb_status compare_all(struct comparing *c, struct mb_error *err)
{
    const struct mb_sweep *plan = c->work->plan;
    bool has;
    MB_TRY(allocate(c, err));
    MB_TRY(get_answers(c, 0, &c->clean, &has, err));
    if (!has)
        c->n_questions = 0;
    for (size_t run = 1; run < plan->n_items && has; run++)
        MB_TRY(compare_run(c, run, err));
    for (size_t run = 1; run < plan->n_items; run++)
        MB_TRY(compare_nll(c, run, err));
    for (size_t begin = 0, end; begin < plan->n_items; begin = end) {
        end = group_end(plan, begin);
        MB_TRY(pool_group(c, begin, end, err));
    }
    return adjust(c, err);
}

static enum mb_status put_summary(const struct comparing *c, bool is_ended, struct mb_error *err)
{
    char ended[32];
    mb_sweep_now(ended);
    struct mb_result_summary summary = {.comparisons = c->comparisons,
                                        .n_comparisons = c->n_comparisons,
                                        .pooled = c->pooled,
                                        .n_pooled = c->n_pooled,
                                        .ended = is_ended ? ended : NULL};
    struct mb_result_paper *paper = NULL;
    struct mb_sweep_shape shape = mb_sweep_shape_of(c->work);
    if (c->work->plan->suite != NULL)
        MB_TRY(mb_sweep_paper_compare(c->pooled, c->n_pooled, &shape, &paper, &summary.n_paper, err));
    summary.paper = paper;
    enum mb_status status = mb_results_put_summary(c->work->results, &summary, err);
    mb_sweep_paper_free(paper, summary.n_paper);
    return status;
}

enum mb_status mb_sweep_compare(struct mb_sweep_work *work, bool is_ended, struct mb_error *err)
{
    struct comparing c = {.work = work, .n_questions = mb_sweep_n_questions(work)};
    enum mb_status status = compare_all(&c, err);
    if (status == MB_OK)
        status = put_summary(&c, is_ended, err);
    free(c.clean);
    free(c.base);
    free(c.right);
    free(c.differences);
    free(c.rights);
    free(c.comparisons);
    free(c.pooled);
    free(c.first_runs);
    return status;
}
