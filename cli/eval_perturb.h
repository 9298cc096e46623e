/*
 * eval_perturb.h - errors that "eval" puts into the model, and the usage profile that it reads or writes.
 */
#ifndef MOEBIUS_CLI_EVAL_PERTURB_H
#define MOEBIUS_CLI_EVAL_PERTURB_H

#include "eval.h"
#include <jansson.h>
#include <moebius/measure.h>

/* Reads --profile and watches routes for --profile-out, where they are given. */
enum mb_status eval_perturb_open(struct eval *eval, struct mb_error *err);
void eval_perturb_close(struct eval *eval);

/* Puts in what --perturb says; the table of it is printed unless the output is JSON. */
enum mb_status eval_perturb_apply(const struct eval *eval, struct mb_error *err);

/* Where the first change is, after eval_perturb_apply. */
struct mb_measure_change eval_perturb_change(const struct eval *eval);

/* Writes the profile, if --profile-out says where. */
enum mb_status eval_perturb_finish(const struct eval *eval, struct mb_error *err);

/* cli_print_json of a report, with what was changed in it. Takes the reference. */
int eval_print_json(const struct eval *eval, json_t *report);

#endif
