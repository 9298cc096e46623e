/*
 * gram_tables.h - the tables that gram.c chooses from.
 */
#ifndef MB_CALIBRATE_GRAM_TABLES_H
#define MB_CALIBRATE_GRAM_TABLES_H

#include "base/dispatch.h"
#include "gram.h"

extern const struct mb_gram_ops mb_gram_scalar, mb_gram_avx2, mb_gram_avx512, mb_gram_neon;

/* What the architecture has, slowest first (x86/gram_tables.c, arm/, generic/). */
extern const struct mb_dispatch_table mb_gram_tables[];

#endif
