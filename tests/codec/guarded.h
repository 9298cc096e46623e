/*
 * guarded.h - buffers with an unmapped page directly before and behind them: a stray access ends the test.
 */
#ifndef TESTS_CODEC_GUARDED_H
#define TESTS_CODEC_GUARDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guarded {
    uint8_t *data;
    uint8_t *map;
    size_t map_nbytes;
};

/* Zeroed. At the end of its pages ('at_end': the byte behind is unmapped) or at their beginning. */
struct guarded guarded_alloc(size_t nbytes, bool at_end);
void guarded_free(struct guarded *guarded);

#endif
