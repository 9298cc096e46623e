/*
 * stats_seeds.c - several seeds on the same questions: how much of the spread is whose.
 */
#include "base/error.h"
#include "stats_distributions.h"
#include <math.h>
#include <moebius/lab.h>

/* Means and sums of squares of a table [n_seeds][n_questions]. */
struct table {
    const double *values;
    size_t n_seeds, n_questions;
    double mean;
};

static double mean_of(const double *values, size_t n, size_t stride)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i * stride];
    return sum / (double)n;
}

static double seed_mean(const struct table *t, size_t seed)
{
    return mean_of(t->values + seed * t->n_questions, t->n_questions, 1);
}

static double question_mean(const struct table *t, size_t question)
{
    return mean_of(t->values + question, t->n_seeds, t->n_questions);
}

/* Mean squares of the analysis of variance, each >= 0. */
struct mean_squares {
    double seeds, questions, rest;
};

static struct mean_squares mean_squares(const struct table *t)
{
    double seeds = 0, questions = 0, all = 0;
    double n_seeds = (double)t->n_seeds, n_questions = (double)t->n_questions;
    for (size_t s = 0; s < t->n_seeds; s++) {
        double away = seed_mean(t, s) - t->mean;
        seeds += away * away;
    }
    for (size_t q = 0; q < t->n_questions; q++) {
        double away = question_mean(t, q) - t->mean;
        questions += away * away;
    }
    for (size_t i = 0; i < t->n_seeds * t->n_questions; i++)
        all += (t->values[i] - t->mean) * (t->values[i] - t->mean);
    double rest = fmax(0, all - seeds * n_questions - questions * n_seeds);
    struct mean_squares ms = {.questions = questions * n_seeds / (n_questions - 1)};
    if (t->n_seeds > 1) {
        ms.seeds = seeds * n_questions / (n_seeds - 1);
        ms.rest = rest / ((n_seeds - 1) * (n_questions - 1));
    }
    return ms;
}

/*
 * The variance of the mean is (MS seeds + MS questions - MS rest) / cells.  Where chance makes a mean square
 * smaller than that of the rest, its part counts as 0: less than the other's alone it never is.
 */
static void combine(const struct mean_squares *ms, double n_seeds, double n_questions, struct mb_two_level *r)
{
    double cells = n_seeds * n_questions, common = fmin(ms->rest, fmin(ms->seeds, ms->questions));
    double sum = ms->seeds + ms->questions - common;
    r->se_seeds = sqrt(ms->seeds / cells);
    r->se_questions = sqrt(ms->questions / cells);
    r->se = sqrt(sum / cells);
    r->var_seeds = fmax(0, (ms->seeds - ms->rest) / n_questions);
    r->var_questions = fmax(0, (ms->questions - ms->rest) / n_seeds);
    r->var_rest = ms->rest;
    double spread = ms->questions * ms->questions / (n_questions - 1);
    if (n_seeds > 1)
        spread +=
            ms->seeds * ms->seeds / (n_seeds - 1) + common * common / ((n_seeds - 1) * (n_questions - 1));
    r->df = spread > 0 ? fmax(1, sum * sum / spread) : n_questions - 1;
}

enum mb_status mb_two_level(const double *values, size_t n_seeds, size_t n_questions,
                            struct mb_two_level *result, struct mb_error *err)
{
    *result = (struct mb_two_level){0};
    if (n_seeds == 0 || n_questions < 2)
        return mb_fail(err, MB_USAGE, "%zu seeds on %zu questions: 1 and 2 are the least", n_seeds,
                       n_questions);
    for (size_t i = 0; i < n_seeds * n_questions; i++)
        if (!isfinite(values[i]))
            return mb_fail(err, MB_USAGE, "value %zu of seed %zu is not finite", i % n_questions,
                           i / n_questions);
    struct table table = {values, n_seeds, n_questions, mean_of(values, n_seeds * n_questions, 1)};
    struct mean_squares ms = mean_squares(&table);
    combine(&ms, (double)n_seeds, (double)n_questions, result);
    double half = mb_student_quantile(0.05, result->df) * result->se;
    result->mean = table.mean;
    result->low = table.mean - half;
    result->high = table.mean + half;
    if (result->se > 0)
        result->p = mb_student_two_sided(table.mean / result->se, result->df);
    else
        result->p = table.mean == 0 ? 1 : 0;
    return MB_OK;
}
