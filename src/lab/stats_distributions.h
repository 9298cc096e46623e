/*
 * stats_distributions.h - quantiles and tails that the tests need.
 */
#ifndef MB_LAB_STATS_DISTRIBUTIONS_H
#define MB_LAB_STATS_DISTRIBUTIONS_H

#include <stdint.h>

/* The normal distribution's quantile, 0 < p < 1. */
double mb_normal_quantile(double p);

/* P(|T| >= t) of Student's t with df > 0 degrees of freedom, and the t >= 0 of which it is p, 0 < p < 1. */
double mb_student_two_sided(double t, double df);
double mb_student_quantile(double p, double df);

/* Of k heads in n throws of a fair coin. */
double mb_coin_exactly(uint64_t k, uint64_t n);
double mb_coin_at_most(uint64_t k, uint64_t n);

#endif
