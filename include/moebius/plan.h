/*
 * plan.h - plans: a bound for each matrix, from what was measured, for a size or a loss that is wanted
 * (docs/plan.md).
 *
 *     const char *files[] = {"results.db"};
 *     struct mb_plan_options options = {.size = sizeof options, .sensitivities = files, .n_sensitivities = 1,
 *                                       .target_bits = 3.2};
 *     mb_plan_make("models/reference", "plan.json", &options, &report, &err);
 *
 * The plan is the JSON file that mb_compress_options.plan_path takes; people may edit it.
 *
 * KL is the Kullback-Leibler divergence to the original model in nats a token.  A *fraction* is a bound as a
 * part of the mean absolute weight: 0.3 for "30%".
 */
#ifndef MOEBIUS_PLAN_H
#define MOEBIUS_PLAN_H

#include <moebius/calibrate.h>
#include <moebius/checkpoint.h>
#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Names of the policies, NULL after the last: "uniform", "depth", "frequency", "waterfill", "search". */
MB_API const char *const *mb_plan_policies(void);

/* Zeroed means defaults. Exactly one target is given; none is needed with 'depth'. */
struct mb_plan_options {
    size_t size;        /* sizeof(struct mb_plan_options) */
    const char *policy; /* NULL: waterfill with sensitivities or moments, depth with 'depth', else uniform */
    const char *const *sensitivities; /* [n_sensitivities] results of sweeps, Fisher traces (JSON) */
    size_t n_sensitivities;
    struct mb_moments *moments;       /* or NULL */
    const struct mb_rounder *rounder; /* how compress will round; NULL: plainly */
    const char *usage;                /* a usage profile, for "frequency" */
    double depth[3];                  /* "depth": fractions of shallow, middle and deep layers */
    double target_bits;               /* a weight, of all coded matrices together */
    uint64_t target_nbytes;           /* of the folder's safetensors files */
    double kl_max;                    /* the upper end of the predicted KL's interval */
    bool has_dense_bound;             /* other linear matrices than experts' get dense_bound */
    struct mb_bound dense_bound;
    int n_threads;           /* 0: as many as CPUs and cgroup quotas allow */
    mb_progress_fn progress; /* or NULL */
    void *progress_ctx;
};

struct mb_plan_report {
    const char *policy;
    size_t n_matrices, n_measured;                /* that the plan names; of these, with a sensitivity */
    uint64_t n_weights, coded_nbytes, out_nbytes; /* predicted, as mb_compress_report has them */
    double bits;                                  /* a weight, of all coded matrices */
    double kl, kl_low, kl_high;                   /* predicted, of what was measured; NAN: not known */
    double fraction_min, fraction_max;            /* of the planned matrices */
    char notes[1024];                             /* lines; "" when nothing */
};

/*
 * Writes the plan at plan_path, whole or not at all.  MB_USAGE: options that contradict each other, a policy
 * without what it needs, a target that no bounds reach.  MB_BAD_DATA: sensitivities, moments or a profile of
 * another model (by its hash), or damaged ones.
 */
MB_API enum mb_status mb_plan_make(const char *model_path, const char *plan_path,
                                   const struct mb_plan_options *options, struct mb_plan_report *report,
                                   struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
