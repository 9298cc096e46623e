/*
 * check.h - what was read is what the file says, before anybody uses it.
 */
#ifndef MB_STORE_CHECK_H
#define MB_STORE_CHECK_H

#include <moebius/codec.h>
#include <moebius/weights.h>

/* The bytes of an exact tensor against its checksum. Messages name neither file nor tensor. */
enum mb_status mb_check_exact(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                              const uint8_t *bytes, struct mb_error *err);

/* Opens and checks a blob; 'tables' has what the index says that it needs. Messages as above. */
enum mb_status mb_check_blob(const struct mb_tensor *tensor, const uint8_t *bytes, uint8_t *tables,
                             uint64_t tables_nbytes, struct mb_blob *blob, struct mb_error *err);

/* The same of one whose check has begun (mb_blob_check_begin), now that all of it is there. */
enum mb_status mb_check_rest(struct mb_blob_check *check, struct mb_blob *blob, struct mb_error *err);

/* Fills the view of a coded weight from its blob.  MB_BAD_DATA: the file has changed since the index was
 * made; the message names both. */
enum mb_status mb_view_coded(const struct mb_checkpoint *ckpt, const struct mb_weight_info *weight,
                             const struct mb_blob *blob, struct mb_matrix *view, struct mb_error *err);

/* The same of an exact weight, whose values are at 'bytes'. */
void mb_view_exact(const struct mb_weight_info *weight, const void *bytes, struct mb_matrix *view);

#endif
