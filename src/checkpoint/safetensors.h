/*
 * safetensors.h - the file format: headers read with every rule checked, headers written.
 */
#ifndef MB_CHECKPOINT_SAFETENSORS_H
#define MB_CHECKPOINT_SAFETENSORS_H

#include <jansson.h>
#include <moebius/checkpoint.h>

enum {
    MB_ST_PAGE_NBYTES = 4096,
    MB_TENSOR_NAME_MAX = 512, /* bytes */
    MB_XXH128_NBYTES = 33,    /* of the digits, terminated */
};

/* A file's header. Names belong to it. */
struct mb_st_header {
    struct mb_tensor *tensors; /* by position; 'shard' is the caller's to set */
    size_t n_tensors;
    size_t n_dropped; /* tensors after these: not of the checkpoint (shard_index.h) */
    json_t *metadata; /* __metadata__, an object of strings, or NULL */
    uint64_t data_pos;
    char xxh3[MB_XXH128_NBYTES]; /* of the header's text */
};

enum mb_status mb_st_read_header(int fd, const char *path, struct mb_st_header *header, struct mb_error *err);
void mb_st_free_header(struct mb_st_header *header);

/* Bits of an element by the name of its type ("BF16"); 0: a type that we do not know. */
size_t mb_st_elem_nbits(const char *type_name, enum mb_tensor_type *type);

/*
 * A header as JSON text for tensors in order; file_pos counts from the data section's beginning here.
 * *text is malloc'ed.
 */
enum mb_status mb_st_write_header(const struct mb_tensor *tensors, size_t n_tensors, const json_t *metadata,
                                  char **text, size_t *nbytes, struct mb_error *err);

#endif
