/*
 * fuzz_safetensors.c - headers of safetensors files.
 *
 * The first byte's lowest bit says how the rest is taken: 0, as a whole file; 1, as four bytes of the data
 * section's size and the header's text.
 */
#include "base/error.h"
#include "checkpoint/safetensors.h"
#include "fuzz.h"
#include "json.h"
#include <stdlib.h>
#include <string.h>

static struct fuzz_file file, copy;

/* The tensors cover the file from data_pos to its end, each with as many bytes as its shape says. */
static void check_header(const struct mb_st_header *header)
{
    uint64_t at = header->data_pos;
    for (size_t i = 0; i < header->n_tensors; i++) {
        const struct mb_tensor *tensor = &header->tensors[i];
        enum mb_tensor_type type;
        size_t elem_nbits = mb_st_elem_nbits(tensor->type_name, &type);
        unsigned __int128 n = 1;
        REQUIRE(tensor->n_dims <= MB_DIMS_MAX && type == tensor->type && strlen(tensor->name) > 0);
        for (size_t d = 0; d < tensor->n_dims; d++) {
            n *= tensor->shape[d];
            REQUIRE(n <= UINT64_MAX);
        }
        REQUIRE(tensor->n_elems == n && tensor->nbytes * (unsigned __int128)8 == n * elem_nbits);
        REQUIRE(tensor->file_pos == at);
        at += tensor->nbytes;
    }
    REQUIRE(at == file.nbytes);
}

/* Written again, it reads the same. */
static void check_copy(struct mb_st_header *header)
{
    json_t *empty = json_object();
    char *text;
    size_t nbytes;
    struct mb_error err;
    struct mb_st_header again;
    for (size_t i = 0; i < header->n_tensors; i++)
        header->tensors[i].file_pos -= header->data_pos;
    REQUIRE(mb_st_write_header(header->tensors, header->n_tensors,
                               header->metadata != NULL ? header->metadata : empty, &text, &nbytes,
                               &err) == MB_OK);
    fuzz_file_set_safetensors(&copy, text, nbytes, file.nbytes - header->data_pos);
    REQUIRE(mb_st_read_header(copy.fd, "copy", &again, &err) == MB_OK);
    REQUIRE(again.n_tensors == header->n_tensors);
    for (size_t i = 0; i < again.n_tensors; i++) {
        const struct mb_tensor *a = &header->tensors[i], *b = &again.tensors[i];
        REQUIRE(strcmp(a->name, b->name) == 0 && a->type_name == b->type_name && a->n_dims == b->n_dims);
        REQUIRE(memcmp(a->shape, b->shape, sizeof a->shape) == 0);
        REQUIRE(a->file_pos == b->file_pos - again.data_pos && a->nbytes == b->nbytes);
    }
    mb_st_free_header(&again);
    free(text);
    json_decref(empty);
}

struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    if ((fuzz_u8(&input) & 1) == 0)
        return (struct fuzz_input){data, 0}; /* the length in front of the text would be wrong */
    fuzz_u32(&input);
    return input;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct mb_st_header header;
    struct mb_error err = {0};
    bool is_whole = (fuzz_u8(&input) & 1) == 0;
    uint64_t data_nbytes = is_whole ? 0 : fuzz_u32(&input);
    if (is_whole)
        fuzz_file_set(&file, input.p, input.n, 0);
    else
        fuzz_file_set_safetensors(&file, input.p, input.n, data_nbytes);
    enum mb_status status = mb_st_read_header(file.fd, "file", &header, &err);
    if (status == MB_OK) {
        check_header(&header);
        check_copy(&header);
        mb_st_free_header(&header);
    } else {
        REQUIRE(status == MB_BAD_DATA && strncmp(err.msg, "file: ", 6) == 0);
    }
    return 0;
}
