/*
 * form_choice.h - which form coded matrices get in memory: from sizes, and only where these leave it open
 * from a measurement.
 */
#ifndef MB_STORE_FORM_CHOICE_H
#define MB_STORE_FORM_CHOICE_H

#include "base/pool.h"
#include <moebius/codec.h>
#include <moebius/weights.h>

struct mb_form_facts {
    enum mb_memory_form wanted;
    bool has_faster;           /* this machine's kernels have a form of their own */
    uint64_t blob_nbytes;      /* as stored */
    uint64_t available_nbytes; /* of memory; UINT64_MAX: not known */
};

struct mb_form_choice {
    enum mb_memory_form form; /* AUTO: the speed of memory decides */
    enum mb_memory_reason reason;
    bool may_be_fast; /* AUTO: memory has room for the larger of the faster forms */
};

/* By what is known without a measurement. */
struct mb_form_choice mb_choose_form_by_size(const struct mb_form_facts *facts);

/*
 * By bytes per second that each thread reads when all of them read (0: not known), for a table with a form,
 * and by how many bits a weight takes as stored.
 */
enum mb_memory_form mb_choose_form_by_speed(const struct mb_kernels *kernels, double thread_bytes_per_s,
                                            double weight_bits, bool may_be_fast);

/*
 * Measures these bytes per second, in the processor time of each thread, so that turns of other programs do
 * not count; the median of some passes over more than the cache holds.  0: no memory for it.  Takes some 50
 * ms.
 */
double mb_thread_bytes_per_s(struct mb_pool *pool);

#endif
