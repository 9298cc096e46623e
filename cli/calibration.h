/*
 * calibration.h - compress --calibrate, --moments and --feedback: moments are made or taken from a file, and
 * become a rounder.
 */
#ifndef MOEBIUS_CLI_CALIBRATION_H
#define MOEBIUS_CLI_CALIBRATION_H

#include <jansson.h>
#include <moebius/calibrate.h>
#include <moebius/feedback.h>

struct cli_calibration_args {
    const char *text;    /* a file, "default", or NULL */
    const char *moments; /* a file, or NULL */
    uint64_t n_tokens;   /* 0: all */
    double rho;          /* 0: the default */
    bool no_column_factors;
    int n_threads;
};

/* Begins zeroed. */
struct cli_calibration {
    char path[4096]; /* of the moments */
    bool is_own;     /* they go when the folder is there */
    bool was_made;   /* by this call */
    struct mb_moments_report made;
    struct mb_moments *moments;
    struct mb_moments_source source;
    struct mb_feedback *feedback;
};

/* Makes or opens the moments of MODEL, for work that ends in OUT. */
enum mb_status cli_calibration_open(struct cli_calibration *c, const struct cli_calibration_args *args,
                                    const char *model_path, const char *out_path, struct mb_error *err);

/* is_done: OUT is there, and moments that nobody asked to keep are removed. */
void cli_calibration_close(struct cli_calibration *c, bool is_done);

/* What was calibrated, and which experts had few tokens or none: to stderr. */
void cli_calibration_print(const struct cli_calibration *c);
json_t *cli_calibration_json(const struct cli_calibration *c);

#endif
