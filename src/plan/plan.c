/*
 * plan.c - from options to a plan: sources, a policy, and the level at which it meets the target.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "planner.h"
#include <moebius/perturb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_POLICIES = 5, N_HALVINGS = 40, N_ROUNDS = 12 };
static const struct mb_plan_policy *const policies[N_POLICIES] = {
    &mb_plan_uniform, &mb_plan_depth, &mb_plan_frequency, &mb_plan_waterfill, &mb_plan_search};
static const double SIZE_TOLERANCE = 0.0005;

const char *const *mb_plan_policies(void)
{
    static const char *names[N_POLICIES + 1];
    for (size_t i = 0; i < N_POLICIES; i++)
        names[i] = policies[i]->name;
    return names;
}

/* ---------------------------------------------------------------- options */

static bool has_depth(const struct mb_plan_options *options)
{
    return options->depth[0] != 0 || options->depth[1] != 0 || options->depth[2] != 0;
}

static enum mb_status find_policy(const struct mb_plan_options *options, const struct mb_plan_policy **policy,
                                  struct mb_error *err)
{
    bool knows = options->n_sensitivities > 0 || options->moments != NULL;
    const char *name = options->policy != NULL ? options->policy
                       : has_depth(options)    ? "depth"
                       : knows                 ? "waterfill"
                                               : "uniform";
    for (size_t i = 0; i < N_POLICIES; i++)
        if (strcmp(policies[i]->name, name) == 0) {
            *policy = policies[i];
            return MB_OK;
        }
    return mb_fail(err, MB_USAGE, "'%.60s' is no policy: uniform, depth, frequency, waterfill and search are",
                   name);
}

static enum mb_status check_target(const struct mb_plan_options *options, struct mb_error *err)
{
    int n = (options->target_bits != 0) + (options->target_nbytes != 0) + (options->kl_max != 0);
    if (n > 1)
        return mb_fail(err, MB_USAGE, "more than one target: give bits, a size, or a KL");
    if (n == 0 && !has_depth(options))
        return mb_fail(err, MB_USAGE, "no target: give bits a weight, a size, or a KL");
    if (!(options->target_bits >= 0 && options->target_bits <= 32) ||
        !(options->kl_max >= 0 && options->kl_max <= 100))
        return mb_fail(err, MB_USAGE,
                       "the target is not a positive number of bits (up to 32) or nats (up to 100)");
    return MB_OK;
}

/* ---------------------------------------------------------------- a level */

static enum mb_status choose(struct mb_planner *planner, const struct mb_plan_policy *policy, double level,
                             struct mb_error *err)
{
    if (policy->choose != NULL)
        return policy->choose(planner, level, err);
    for (size_t i = 0; i < planner->n_matrices; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        matrix->fraction = fmin(fmax(level * matrix->factor, MB_PLAN_FRACTION_MIN), MB_PLAN_FRACTION_MAX);
    }
    return MB_OK;
}

static double planned_nbytes(const struct mb_planner *planner)
{
    double sum = 0;
    for (size_t i = 0; i < planner->n_matrices; i++)
        if (planner->matrices[i].is_planned)
            sum += mb_plan_nbytes(&planner->matrices[i], planner->matrices[i].fraction);
    return sum;
}

/* Whether the fractions as they are take no more than what is wanted: then the level need not grow. */
static bool is_beyond(const struct mb_planner *planner)
{
    const struct mb_plan_options *options = &planner->options;
    double nbytes = planned_nbytes(planner), kl, low, high;
    if (options->target_nbytes != 0)
        return nbytes + planner->other_nbytes <= (double)options->target_nbytes;
    if (options->target_bits != 0)
        return 8 * (nbytes + planner->other_coded_nbytes) <=
               options->target_bits * (double)planner->report->n_weights;
    mb_plan_predict(planner, &kl, &low, &high);
    return high > options->kl_max;
}

/* The smallest level that meets a size, or the largest that meets a KL. */
static enum mb_status find_level(struct mb_planner *planner, const struct mb_plan_policy *policy,
                                 double *level, struct mb_error *err)
{
    double low = log(MB_PLAN_FRACTION_MIN), high = log(MB_PLAN_FRACTION_MAX);
    for (int i = 0; i < N_HALVINGS; i++) {
        *level = (low + high) / 2;
        MB_TRY(choose(planner, policy, exp(*level), err));
        if (is_beyond(planner))
            high = *level;
        else
            low = *level;
    }
    *level = exp(planner->options.kl_max != 0 ? low : high);
    return choose(planner, policy, *level, err);
}

/* ---------------------------------------------------------------- the folder that it makes */

static enum mb_status dry_run(struct mb_planner *planner, const char *path, struct mb_error *err)
{
    const struct mb_plan_options *from = &planner->options;
    struct mb_compress_report report;
    const struct mb_compress_options options = {.size = sizeof options,
                                                .has_dense_bound = from->has_dense_bound,
                                                .dense_bound = from->dense_bound,
                                                .dry_run = true,
                                                .dense = true,
                                                .plan_path = path,
                                                .rounder = from->rounder,
                                                .n_threads = from->n_threads,
                                                .progress = from->progress,
                                                .progress_ctx = from->progress_ctx};
    MB_TRY(mb_compress(planner->model_path, "", &options, &report, err));
    struct mb_plan_report *to = planner->report;
    double nbytes = planned_nbytes(planner);
    to->n_weights = report.n_weights;
    to->coded_nbytes = report.coded_nbytes;
    to->out_nbytes = report.out_nbytes;
    to->bits = 8 * (double)report.coded_nbytes / fmax((double)report.n_weights, 1);
    planner->other_nbytes = (double)report.out_nbytes - nbytes;
    planner->other_coded_nbytes = (double)report.coded_nbytes - nbytes;
    return MB_OK;
}

/* How far the folder is below what is wanted, as a share; negative: it is too large. */
static double room_left(const struct mb_planner *planner)
{
    const struct mb_plan_options *options = &planner->options;
    if (options->target_nbytes != 0)
        return 1 - (double)planner->report->out_nbytes / (double)options->target_nbytes;
    return options->target_bits != 0 ? 1 - planner->report->bits / options->target_bits : 0;
}

static enum mb_status try_level(struct mb_planner *planner, const struct mb_plan_policy *policy, double level,
                                const char *path, struct mb_error *err)
{
    MB_TRY(choose(planner, policy, level, err));
    MB_TRY(mb_plan_write_trial(planner, policy, path, err));
    return dry_run(planner, path, err);
}

/*
 * The level whose folder comes nearest to the size from below.  Sizes between those of the grid are a little
 * off, and blobs are padded to pages: what a dry run finds corrects the next level, which is kept between
 * those that are known to be too large and to fit.
 */
static enum mb_status meet_size(struct mb_planner *planner, const struct mb_plan_policy *policy,
                                const char *path, struct mb_error *err)
{
    double too_large = MB_PLAN_FRACTION_MIN / 2, fits = 2 * MB_PLAN_FRACTION_MAX, level, best = 0;
    for (int i = 0; i < N_ROUNDS && fits / too_large > 1.001; i++) {
        MB_TRY(find_level(planner, policy, &level, err));
        if (!(level > too_large && level < fits))
            level = sqrt(too_large * fits);
        MB_TRY(try_level(planner, policy, level, path, err));
        double room = room_left(planner);
        if (room >= -SIZE_TOLERANCE)
            best = fits = level;
        else
            too_large = level;
        if (fabs(room) < SIZE_TOLERANCE)
            return MB_OK;
    }
    if (best > 0)
        MB_TRY(try_level(planner, policy, best, path, err));
    bool is_between = too_large >= MB_PLAN_FRACTION_MIN; /* blobs fill pages: sizes come in steps */
    if (best > 0 && (is_between || room_left(planner) < 0.1))
        return MB_OK;
    return mb_fail(err, MB_USAGE,
                   "no bounds between 1 %% and 512 %% meet the target: the nearest are %.3f bits a weight, "
                   "%.4g GB",
                   planner->report->bits, (double)planner->report->out_nbytes / 1e9);
}

static enum mb_status meet_target(struct mb_planner *planner, const struct mb_plan_policy *policy,
                                  const char *path, struct mb_error *err)
{
    const struct mb_plan_options *options = &planner->options;
    double level;
    MB_TRY(try_level(planner, policy, has_depth(options) ? 1 : 0.3, path, err));
    if (options->target_bits != 0 || options->target_nbytes != 0)
        return meet_size(planner, policy, path, err);
    if (options->kl_max == 0)
        return MB_OK;
    MB_TRY(find_level(planner, policy, &level, err));
    if (is_beyond(planner))
        return mb_fail(err, MB_USAGE, "no bounds from 1 %% on keep the predicted KL below %g",
                       options->kl_max);
    return try_level(planner, policy, level, path, err);
}

/* ---------------------------------------------------------------- the call */

static void fill_report(struct mb_planner *planner, const struct mb_plan_policy *policy)
{
    struct mb_plan_report *report = planner->report;
    report->policy = policy->name;
    report->fraction_min = INFINITY;
    for (size_t i = 0; i < planner->n_matrices; i++) {
        const struct mb_plan_matrix *matrix = &planner->matrices[i];
        if (!matrix->is_planned)
            continue;
        report->n_matrices++;
        report->n_measured += !isnan(matrix->sensitivity);
        report->fraction_min = fmin(report->fraction_min, matrix->fraction);
        report->fraction_max = fmax(report->fraction_max, matrix->fraction);
    }
    mb_plan_predict(planner, &report->kl, &report->kl_low, &report->kl_high);
    if (planner->is_absolute && report->n_measured < report->n_matrices)
        mb_plan_note(planner,
                     "%zu of the planned matrices were not measured: the predicted KL is without them",
                     report->n_matrices - report->n_measured);
}

/* What was given for other linear matrices is not planned. */
static void leave_dense(struct mb_planner *planner)
{
    for (size_t i = 0; i < planner->n_matrices && planner->options.has_dense_bound; i++)
        if (planner->matrices[i].role.projection == MB_PROJECTION_NONE)
            planner->matrices[i].is_planned = false;
}

static enum mb_status make(struct mb_planner *planner, const struct mb_plan_policy *policy,
                           const char *plan_path, const char *partial, struct mb_error *err)
{
    MB_TRY(mb_model_hash(planner->model_path, planner->model_hash, err));
    if (planner->options.moments != NULL &&
        strcmp(mb_moments_contents(planner->options.moments)->key.model, planner->model_hash) != 0)
        return mb_fail(err, MB_BAD_DATA, "the moments are of another model than %s", planner->model_path);
    MB_TRY(mb_plan_list(planner, err));
    MB_TRY(mb_plan_sensitivities(planner, err));
    leave_dense(planner);
    MB_TRY(policy->prepare(planner, err));
    if (planner->options.kl_max != 0 && !planner->is_absolute)
        return mb_fail(
            err, MB_USAGE,
            "a KL as the target needs sensitivities in nats: results of a sweep, or Fisher traces");
    MB_TRY(meet_target(planner, policy, partial, err));
    fill_report(planner, policy);
    return mb_plan_write(planner, policy, plan_path, err);
}

static void free_planner(struct mb_planner *planner)
{
    for (size_t i = 0; i < planner->n_matrices; i++)
        free(planner->matrices[i].name);
    for (size_t i = 0; i < planner->n_runs; i++)
        free(planner->runs[i].at);
    free(planner->runs);
    free(planner->matrices);
}

enum mb_status mb_plan_make(const char *model_path, const char *plan_path,
                            const struct mb_plan_options *options, struct mb_plan_report *report,
                            struct mb_error *err)
{
    struct mb_planner planner = {.model_path = model_path, .report = report};
    const struct mb_plan_policy *policy;
    char partial[4096];
    *report = (struct mb_plan_report){.kl = NAN, .kl_low = NAN, .kl_high = NAN};
    MB_TRY(MB_OPTIONS_TAKE(planner.options, options, err));
    MB_TRY(check_target(&planner.options, err));
    MB_TRY(find_policy(&planner.options, &policy, err));
    if ((size_t)snprintf(partial, sizeof partial, "%s.partial", plan_path) >= sizeof partial)
        return mb_fail(err, MB_USAGE, "the path of the plan is too long");
    MB_TRY(mb_create_partial(partial, &planner.trial_fd, err));
    enum mb_status status = make(&planner, policy, plan_path, partial, err);
    unlink(partial); /* before it is closed, which lets the lock go */
    close(planner.trial_fd);
    free_planner(&planner);
    return status;
}
