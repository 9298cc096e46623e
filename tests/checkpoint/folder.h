/*
 * folder.h - temporary folders, safetensors files of any content, and small random models for tests.
 */
#ifndef TESTS_CHECKPOINT_FOLDER_H
#define TESTS_CHECKPOINT_FOLDER_H

#include <moebius/checkpoint.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A fresh folder for a test program (a cmocka group fixture), and all that is in it removed. */
int test_folder_begin(void **state);
int test_folder_end(void **state);

/* "FOLDER/name" in one of a few static buffers. */
const char *test_path(const char *name);

void test_make_folder(const char *path);
void test_remove(const char *path); /* a file or a folder with all in it; nothing there is fine */
bool test_exists(const char *path);

/* Whole files. test_read mallocs. */
void test_write(const char *path, const void *bytes, size_t nbytes);
uint8_t *test_read(const char *path, size_t *nbytes);

/* FOLDER/NAME with this text. */
void test_write_text(const char *folder, const char *name, const char *text);

/* FOLDER/NAME: header length, header, data. */
void test_write_safetensors(const char *folder, const char *name, const char *header, const void *data,
                            size_t nbytes);

/* Both folders hold the same files with the same bytes; the first difference is printed. */
bool test_same_folders(const char *a, const char *b);
bool test_equal_folders(const char *a, const char *b); /* the same, nothing printed */
bool test_holds_folder(const char *a, const char *b);  /* a has all files of b, and maybe more */

/* Pointers to options with these members: VERIFY_OPTIONS(.n_threads = 2). */
#define VERIFY_OPTIONS(...) \
    (&(const struct mb_verify_options){.size = sizeof(struct mb_verify_options), __VA_ARGS__})
#define DECOMPRESS_OPTIONS(...) \
    (&(const struct mb_decompress_options){.size = sizeof(struct mb_decompress_options), __VA_ARGS__})

/* ---------------------------------------------------------------- small random models */

struct test_model {
    enum mb_dtype dtype;
    size_t n_layers, n_experts; /* layer 0 is dense */
    bool is_bare;               /* a norm and a linear matrix in one layer, one expert in another, no more */
    size_t n_hidden, n_inner;
    size_t n_shards;      /* tensors are dealt out to them one by one; 1: one file */
    uint64_t deal;        /* another number: another way to deal them */
    const char *odd_name; /* this tensor gets odd_value at odd_index, or at n_odd places from there on */
    size_t odd_index, n_odd;
    float odd_value;
};

/* Two layers, two experts, everything small. */
struct test_model test_model_small(void);

/* Weights depend on names and shapes alone, not on how they are dealt out. */
void test_write_model(const char *folder, const struct test_model *model);

#endif
