/*
 * moebius.h - the whole library. Each header can also be included alone.
 */
#ifndef MOEBIUS_MOEBIUS_H
#define MOEBIUS_MOEBIUS_H

#include <moebius/api.h>
#include <moebius/calibrate.h>
#include <moebius/checkpoint.h>
#include <moebius/codec.h>
#include <moebius/codecs.h>
#include <moebius/engine.h>
#include <moebius/feedback.h>
#include <moebius/lab.h>
#include <moebius/measure.h>
#include <moebius/offload.h>
#include <moebius/perturb.h>
#include <moebius/plan.h>
#include <moebius/report.h>
#include <moebius/results.h>
#include <moebius/scheduler.h>
#include <moebius/status.h>
#include <moebius/sweep.h>
#include <moebius/timeline.h>
#include <moebius/tokenizer.h>
#include <moebius/version.h>
#include <moebius/weights.h>

#endif
