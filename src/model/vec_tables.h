/*
 * vec_tables.h - the tables that vec.c chooses from.
 */
#ifndef MB_MODEL_VEC_TABLES_H
#define MB_MODEL_VEC_TABLES_H

#include "vec.h"

extern const struct mb_vec mb_vec_scalar;
extern const struct mb_vec mb_vec_avx2;
extern const struct mb_vec mb_vec_avx512;

#endif
