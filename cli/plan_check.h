/*
 * plan_check.h - plan --check: is a plan better than uniform bounds of the same size, on a text that nobody
 * planned with?
 */
#ifndef MOEBIUS_CLI_PLAN_CHECK_H
#define MOEBIUS_CLI_PLAN_CHECK_H

#include <moebius/plan.h>

struct plan_check {
    bool is_done, fell_back;
    double kl, kl_uniform; /* measured */
};

/*
 * Codes the model with the plan at plan_path and with a uniform one of the same size, and measures both on
 * the text: "question" and "reply" (else "answer") a line if its name ends in ".jsonl", else plain text.
 * Where the plan is no better the uniform one takes its place, and its report that of *report.  PLAN.check
 * beside the plan is the folder in which that is done, and goes.
 */
enum mb_status plan_check(const char *model, const char *plan_path, const char *text, size_t limit,
                          const struct mb_plan_options *options, struct mb_plan_report *report,
                          struct plan_check *check, struct mb_error *err);

#endif
