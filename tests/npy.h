/*
 * npy.h - reads the .npy files of goldens: little-endian int32 or float32, C order, at most 3 dimensions.
 *
 * A file that is not as expected fails the running test.
 */
#ifndef TESTS_NPY_H
#define TESTS_NPY_H

#include "cmocka_all.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct npy {
    size_t shape[3]; /* 1 where there are fewer dimensions */
    size_t n;        /* elements */
    void *data;      /* free with free() */
};

/* 'type' is "<i4" or "<f4". */
static inline struct npy npy_read(const char *path, const char *type)
{
    struct npy npy = {.shape = {1, 1, 1}};
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail_msg("%s: cannot open", path);
    unsigned char head[10];
    char text[1024] = "";
    if (fread(head, 1, sizeof head, file) != sizeof head || memcmp(head, "\x93NUMPY\x01", 7) != 0)
        fail_msg("%s: not a version 1 npy file", path);
    size_t text_nbytes = (size_t)(head[8] | head[9] << 8);
    if (text_nbytes >= sizeof text || fread(text, 1, text_nbytes, file) != text_nbytes)
        fail_msg("%s: header too long", path);
    const char *shape = strstr(text, "'shape': (");
    if (strstr(text, type) == NULL || strstr(text, "'fortran_order': False") == NULL || shape == NULL ||
        sscanf(shape, "'shape': (%zu, %zu, %zu", &npy.shape[0], &npy.shape[1], &npy.shape[2]) < 1)
        fail_msg("%s: unexpected header %s", path, text);
    npy.n = npy.shape[0] * npy.shape[1] * npy.shape[2];
    npy.data = malloc(npy.n * 4);
    assert_non_null(npy.data);
    if (fread(npy.data, 4, npy.n, file) != npy.n || fgetc(file) != EOF)
        fail_msg("%s: %zu elements expected", path, npy.n);
    fclose(file);
    return npy;
}

#endif
