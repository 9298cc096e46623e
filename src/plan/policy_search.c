/*
 * policy_search.c - accuracy-limited search, after DeepSZ (Jin et al., HPDC 2019): of several bounds for each
 * group of matrices those are taken that make the smallest folder while the losses together stay within what
 * is allowed.
 *
 * A group is what was measured together: a layer, an expert, or a matrix.  Its loss at a bound is measured
 * where the results have it at several bounds, and between them.  A price for loss is sought with which each
 * group's cheapest choice adds up to the loss that is allowed.
 */
#include "base/error.h"
#include "planner.h"
#include <string.h>

enum { N_CHOICES = 17, N_PRICES = 60 };

/* Within the limits of all policies: far bounds were predicted to cost a hundredth of what they did. */
static double choice(double level, int i)
{
    double share = (double)i / (N_CHOICES - 1);
    double fraction = level * MB_PLAN_FACTOR_MIN * pow(MB_PLAN_FACTOR_MAX / MB_PLAN_FACTOR_MIN, share);
    return fmin(fmax(fraction, MB_PLAN_FRACTION_MIN), MB_PLAN_FRACTION_MAX);
}

static bool is_same_group(const struct mb_plan_matrix *a, const struct mb_plan_matrix *b)
{
    return a->is_planned && b->is_planned && a->role.layer == b->role.layer &&
           strcmp(a->reason, b->reason) == 0;
}

/* The matrices of a group follow one another. */
static size_t group_end(const struct mb_planner *planner, size_t first)
{
    size_t end = first + 1;
    while (end < planner->n_matrices && is_same_group(&planner->matrices[first], &planner->matrices[end]))
        end++;
    return end;
}

static double loss(const struct mb_planner *planner, size_t first, size_t end, double fraction)
{
    double sum = 0, quadratic = 0;
    for (size_t i = first; i < end; i++) {
        const struct mb_plan_matrix *matrix = &planner->matrices[i];
        double error = matrix->amplitude * fraction;
        quadratic += isnan(matrix->sensitivity) ? 0 : matrix->sensitivity * error * error;
        sum += isnan(matrix->sensitivity) ? 0 : matrix->sensitivity;
    }
    const struct mb_plan_matrix *matrix = &planner->matrices[first];
    if (matrix->run >= planner->n_runs || planner->runs[matrix->run].n != end - first || quadratic == 0)
        return quadratic;
    return mb_plan_measured(planner, &planner->runs[matrix->run], sqrt(quadratic / sum));
}

static double nbytes(const struct mb_planner *planner, size_t first, size_t end, double fraction)
{
    double sum = 0;
    for (size_t i = first; i < end; i++)
        sum += mb_plan_nbytes(&planner->matrices[i], fraction);
    return sum;
}

/* The cheapest choice of a group at a price for each nat; its loss. Without a measured loss: the level. */
static double choose_group(struct mb_planner *planner, size_t first, size_t end, double level, double price)
{
    double best = INFINITY, best_loss = 0, best_fraction = level;
    for (int i = 0; i < N_CHOICES && !isnan(planner->matrices[first].sensitivity); i++) {
        double fraction = choice(level, i), lost = loss(planner, first, end, fraction);
        double cost = nbytes(planner, first, end, fraction) + price * lost;
        if (cost < best) {
            best = cost;
            best_loss = lost;
            best_fraction = fraction;
        }
    }
    for (size_t i = first; i < end; i++)
        planner->matrices[i].fraction = best_fraction;
    return best_loss;
}

/* Sets all fractions; the sum of losses. 'price' NAN: all at the level. */
static double choose_all(struct mb_planner *planner, double level, double price)
{
    double sum = 0;
    for (size_t first = 0, end; first < planner->n_matrices; first = end) {
        end = group_end(planner, first);
        if (!planner->matrices[first].is_planned)
            continue;
        sum +=
            isnan(price) ? loss(planner, first, end, level) : choose_group(planner, first, end, level, price);
    }
    return sum;
}

static enum mb_status choose(struct mb_planner *planner, double level, struct mb_error *err)
{
    double allowed = choose_all(planner, level, NAN), low = 0, high = 120; /* of log2 of the price */
    (void)err;
    for (int i = 0; i < N_PRICES; i++) {
        double middle = (low + high) / 2;
        if (choose_all(planner, level, exp2(middle)) > allowed)
            low = middle;
        else
            high = middle;
    }
    choose_all(planner, level, exp2(high));
    return MB_OK;
}

static enum mb_status prepare(struct mb_planner *planner, struct mb_error *err)
{
    for (size_t i = 0; i < planner->n_matrices; i++)
        if (planner->is_absolute && planner->matrices[i].is_planned &&
            !isnan(planner->matrices[i].sensitivity))
            return MB_OK;
    return mb_fail(err, MB_USAGE,
                   "the policy 'search' needs sensitivities in nats: results of a sweep, or "
                   "Fisher traces");
}

const struct mb_plan_policy mb_plan_search = {"search", "smallest folder within a loss", prepare, choose};
