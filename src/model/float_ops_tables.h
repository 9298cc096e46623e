/*
 * float_ops_tables.h - the tables that float_ops.c chooses from, and their check.
 */
#ifndef MB_MODEL_FLOAT_OPS_TABLES_H
#define MB_MODEL_FLOAT_OPS_TABLES_H

#include "base/dispatch.h"
#include "float_ops.h"

extern const struct mb_float_ops mb_float_ops_scalar;
extern const struct mb_float_ops mb_float_ops_avx2;
extern const struct mb_float_ops mb_float_ops_avx512;
extern const struct mb_float_ops mb_float_ops_neon;

/* What the architecture has, slowest first (x86/float_ops_tables.c, arm/, generic/). */
extern const struct mb_dispatch_table mb_float_ops_tables[];

/* Whether a table gives the bits of the scalar one on short hard vectors. One thread at a time. */
bool mb_float_ops_agree(const struct mb_float_ops *ops);

#endif
