/*
 * output_error.h - output errors of matrices as text in the headers of shards.
 */
#ifndef MB_CHECKPOINT_OUTPUT_ERROR_H
#define MB_CHECKPOINT_OUTPUT_ERROR_H

#include <moebius/checkpoint.h>

#define MB_OUTPUT_ERROR_KEY "output_error:%s" /* of __metadata__, with the matrix's full name */
enum { MB_OUTPUT_ERROR_NBYTES = 96 };

/* "RMS MAX CLIPPED", the errors rounded up: what was proved stays true. */
void mb_output_error_format(const struct mb_output_error *error, char text[MB_OUTPUT_ERROR_NBYTES]);

/* The text that a blob's file has for a matrix; NULL: none, or no sound one. */
const char *mb_output_error_text(const struct mb_checkpoint *ckpt, const struct mb_tensor *blob,
                                 const char *name);

/* false: the text is not that of an error. */
bool mb_output_error_parse(const char *text, struct mb_output_error *error);

#endif
