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
 * Makes a plan, codes the model with it and with a uniform one of the same size, and measures both on the
 * text: "question" and "reply" (else "answer") a line if its name ends in ".jsonl", else plain text.  The
 * better one is written to plan_path, and its report to *report; without a measurement nothing is.
 * PLAN.planned, PLAN.uniform and the folder PLAN.check beside the plan are what that is done with, and go.
 * MB_IO: another process does it.
 */
enum mb_status plan_check(const char *model, const char *plan_path, const char *text, size_t limit,
                          const struct mb_plan_options *options, struct mb_plan_report *report,
                          struct plan_check *check, struct mb_error *err);

#endif
