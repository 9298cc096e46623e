/*
 * test_reader.c - safetensors files: every rule of the header, and what is said when one is broken.
 */
#include "base/bytes.h"
#include "cmocka_all.h"
#include "folder.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *folder;

static int begin(void **state)
{
    if (test_folder_begin(state) != 0)
        return -1;
    folder = strdup(test_path("model"));
    test_make_folder(folder);
    test_write_text(folder, "config.json", "{}");
    return 0;
}

static int end(void **state)
{
    free((char *)folder);
    return test_folder_end(state);
}

static enum mb_status open_folder(struct mb_error *err)
{
    struct mb_checkpoint *ckpt = NULL;
    enum mb_status status = mb_checkpoint_open(folder, &ckpt, err);
    if (status == MB_OK)
        mb_checkpoint_close(ckpt);
    return status;
}

/* Refused with this status, in one line that names the file and says these words. */
static void assert_refused(enum mb_status expected, const char *words)
{
    struct mb_error err = {0};
    enum mb_status status = open_folder(&err);
    if (status != expected || err.status != expected || strstr(err.msg, words) == NULL ||
        strstr(err.msg, "model.safetensors") == NULL || strchr(err.msg, '\n') != NULL)
        fail_msg("status %d, expected %d with '%s': %s", (int)status, (int)expected, words, err.msg);
}

static void assert_header_refused(const char *header, size_t data_nbytes, const char *words)
{
    static const uint8_t zeros[64];
    test_write_safetensors(folder, "model.safetensors", header, zeros, data_nbytes);
    assert_refused(MB_BAD_DATA, words);
}

#define TENSOR(name, type, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void a_sound_file_is_read(void **state)
{
    (void)state;
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"}," TENSOR("b", "F32", "[2]", 6, 14) "," TENSOR(
            "a", "BF16", "[1,3]", 0, 6) "," TENSOR("none", "F64", "[0,7]", 6, 6) "," TENSOR("one", "U8", "[]",
                                                                                            14, 15) "}   ";
    static const uint8_t data[15] = "abcdefghijklmn";
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    uint8_t bytes[8];
    test_write_safetensors(folder, "model.safetensors", header, data, sizeof data);
    assert_int_equal(mb_checkpoint_open(folder, &ckpt, &err), MB_OK);
    assert_int_equal(mb_checkpoint_n_tensors(ckpt), 4);
    assert_string_equal(mb_checkpoint_tensor(ckpt, 0)->name, "a");
    assert_string_equal(mb_checkpoint_tensor(ckpt, 1)->name, "none");
    assert_int_equal(mb_checkpoint_tensor(ckpt, 1)->n_elems, 0);
    const struct mb_tensor *b = mb_checkpoint_find(ckpt, "b");
    assert_non_null(b);
    assert_int_equal(b->type, MB_TENSOR_F32);
    assert_int_equal(b->n_dims, 1);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->nbytes, 8);
    assert_int_equal(mb_checkpoint_read(ckpt, b, 2, bytes, 6, &err), MB_OK);
    assert_memory_equal(bytes, "ijklmn", 6);
    assert_int_not_equal(mb_checkpoint_read(ckpt, b, 2, bytes, 7, &err), MB_OK);
    assert_int_not_equal(mb_checkpoint_read(ckpt, b, UINT64_MAX, bytes, 2, &err), MB_OK);
    const void *mapped;
    assert_int_equal(mb_checkpoint_map(ckpt, b, &mapped, &err), MB_OK);
    assert_memory_equal(mapped, "ghijklmn", 8);
    assert_null(mb_checkpoint_find(ckpt, "c"));
    assert_int_equal(mb_checkpoint_find(ckpt, "one")->n_dims, 0);
    assert_int_equal(mb_checkpoint_file_nbytes(ckpt), 8 + sizeof header - 1 + 15);
    assert_false(mb_checkpoint_is_coded(ckpt));
    mb_checkpoint_close(ckpt);
}

static void every_type_is_known_by_its_size(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int nbytes;
    } types[] = {{"F32", 4},         {"F16", 2},         {"BF16", 2}, {"U8", 1},     {"F8_E4M3", 1},
                 {"F8_E4M3FNUZ", 1}, {"F8_E5M2", 1},     {"BOOL", 1}, {"I8", 1},     {"I16", 2},
                 {"U16", 2},         {"F8_E5M2FNUZ", 1}, {"I32", 4},  {"U32", 4},    {"F64", 8},
                 {"I64", 8},         {"U64", 8},         {"C64", 8},  {"F8_E8M0", 1}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char header[200];
        struct mb_error err = {0};
        static const uint8_t zeros[64];
        int nbytes = 3 * types[i].nbytes;
        snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]}}",
                 types[i].name, nbytes);
        test_write_safetensors(folder, "model.safetensors", header, zeros, (size_t)nbytes);
        if (open_folder(&err) != MB_OK)
            fail_msg("%s", err.msg);
        snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]}}",
                 types[i].name, nbytes + 1);
        assert_header_refused(header, (size_t)nbytes + 1, "tensor t");
    }
    assert_header_refused("{" TENSOR("t", "F4_E2M1", "[2]", 0, 1) "}", 1, "dtype");
}

static void elements_may_be_smaller_than_a_byte(void **state)
{
    (void)state;
    static const char header[] =
        "{" TENSOR("a", "F4", "[3,2]", 0, 3) "," TENSOR("b", "F6_E2M3", "[4]", 3, 6) "," TENSOR(
            "c", "F6_E3M2", "[8]", 6, 12) "," TENSOR("d", "F4", "[0]", 12, 12) "}";
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    uint8_t bytes[6];
    test_write_safetensors(folder, "model.safetensors", header, "abcdefghijkl", 12);
    assert_int_equal(mb_checkpoint_open(folder, &ckpt, &err), MB_OK);
    const struct mb_tensor *c = mb_checkpoint_find(ckpt, "c");
    assert_int_equal(c->nbytes, 6);
    assert_int_equal(mb_checkpoint_read(ckpt, c, 0, bytes, 6, &err), MB_OK);
    assert_memory_equal(bytes, "ghijkl", 6);
    assert_int_equal(mb_checkpoint_read(ckpt, c, 0, bytes, 7, &err), MB_USAGE);
    assert_int_equal(mb_tensor_stored_nbytes(ckpt, mb_checkpoint_find(ckpt, "a")), 3);
    mb_checkpoint_close(ckpt);
    assert_header_refused("{" TENSOR("a", "F4", "[3]", 0, 1) "}", 1,
                          "tensor a: values that end inside a byte");
    assert_header_refused("{" TENSOR("a", "F4", "[4]", 0, 4) "}", 4,
                          "tensor a: data_offsets that do not hold");
    assert_header_refused("{" TENSOR("a", "F6_E2M3", "[2]", 0, 2) "}", 2, "tensor a: values that end inside");
    assert_header_refused("{" TENSOR("a", "F4", "[4611686018427387904]", 0, 0) "}", 0,
                          "tensor a: an impossible shape");
}

/* What the safetensors package reads, though it writes nothing like it. */
static void headers_that_the_official_reader_accepts_are_read(void **state)
{
    (void)state;
    static const char *const headers[] = {
        " {" TENSOR("a", "U8", "[1]", 0, 1) "}",
        "\n\t{" TENSOR("a", "U8", "[1]", 0, 1) "}\n",
        "{\"__metadata__\":null," TENSOR("a", "U8", "[1]", 0, 1) "}",
        "{\"__metadata__\":{\"x\":\"1\",\"y\":\"\",\"x\":\"2\"}," TENSOR("a", "U8", "[1]", 0, 1) "}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"more\":1}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"more\":{\"dtype\":[{}]},\"more\":2}"
        "}",
        "{\"a\":{\"x\":{\"dtype\":1,\"dtype\":2},\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
        "{" TENSOR("a", "U8", "[1]", 0, 1) ",\"__metadata__\":{\"dtype\":\"{\\\"\",\"dtype\":\"\"}}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        struct mb_checkpoint *ckpt;
        struct mb_error err;
        uint8_t byte;
        test_write_safetensors(folder, "model.safetensors", headers[i], "z", 1);
        if (mb_checkpoint_open(folder, &ckpt, &err) != MB_OK)
            fail_msg("%s: %s", headers[i], err.msg);
        assert_int_equal(mb_checkpoint_n_tensors(ckpt), 1);
        assert_int_equal(mb_checkpoint_read(ckpt, mb_checkpoint_find(ckpt, "a"), 0, &byte, 1, &err), MB_OK);
        assert_int_equal(byte, 'z');
        mb_checkpoint_close(ckpt);
    }
}

static void what_counts_may_not_be_there_twice(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{" TENSOR("a", "U8", "[1]", 0, 1) "," TENSOR("a", "U8", "[1]", 0, 1) "}",
        "{\"__metadata__\":{}," TENSOR("a", "U8", "[1]", 0, 1) ",\"__metadata__\":{\"x\":\"1\",\"x\":\"2\"}}",
        "{\"__metadata__\":{\"x\":\"1\",\"x\":\"2\"}," TENSOR("a", "U8", "[1]", 0,
                                                              1) "," TENSOR("a", "U8", "[1]", 0, 1) "}",
        "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1],\"dtype\":\"U8\"}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"shape\" : [1,1]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"data_\\u006fffsets\":[0,1]}}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        assert_header_refused(headers[i], 1, "uplicate");
}

static void the_length_is_checked_before_it_is_believed(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {0,         1, 3, 1000, 100000001, UINT64_C(1) << 63, UINT64_MAX - 7,
                                       UINT64_MAX};
    const char *path = test_path("model/model.safetensors");
    uint8_t bytes[10] = {0, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        mb_store_u64(bytes, lengths[i]);
        test_write(path, bytes, sizeof bytes);
        assert_refused(MB_BAD_DATA, "byte 0");
    }
    for (size_t n = 0; n < 8; n++) {
        test_write(path, bytes, n);
        assert_refused(MB_BAD_DATA, "truncated");
    }
    mb_store_u64(bytes, 2);
    test_write(path, bytes, sizeof bytes);
    struct mb_error err;
    assert_int_equal(open_folder(&err), MB_OK);
}

static void a_huge_header_is_refused_even_when_the_file_has_it(void **state)
{
    (void)state;
    const char *path = test_path("model/model.safetensors");
    uint8_t bytes[8];
    mb_store_u64(bytes, 100000001);
    test_write(path, bytes, sizeof bytes);
    assert_int_equal(truncate(path, 100000100), 0); /* sparse */
    assert_refused(MB_BAD_DATA, "byte 0");
}

static void bad_json_is_named_by_its_byte(void **state)
{
    (void)state;
    assert_header_refused("{\"a\":}", 0, "byte 1");
    assert_header_refused("{\"a\"", 0, "byte 1");
    assert_header_refused("{}{}", 0, "byte 1");
    assert_header_refused("[]", 0, "not an object");
    assert_header_refused("12", 0, "byte 8");
    assert_header_refused("{\"\xff\":1}", 0, "byte 1");
    assert_header_refused("{" TENSOR("a", "U8", "[1]", 0, 1) "," TENSOR("a", "U8", "[1]", 0, 1) "}", 1,
                          "uplicate");
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                          1, "uplicate");
}

static void a_tensor_has_type_shape_and_place(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{\"a\":1}",
        "{\"a\":null}",
        "{\"a\":[]}",
        "{\"a\":{}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}",
        "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}",
        "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}",
        "{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":{}}}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        assert_header_refused(headers[i], 1, "tensor a: not an object of dtype, shape and data_offsets");
}

static void impossible_shapes_and_offsets_are_refused(void **state)
{
    (void)state;
    static const char *const shapes[] = {
        "[-1]",
        "[1.0]",
        "[\"1\"]",
        "[null]",
        "[[1]]",
        "[4294967296,4294967296]",
        "[9223372036854775807,2]",
        "[9223372036854775807,3,0]",
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        char header[200];
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,4]}}",
                 shapes[i]);
        assert_header_refused(header, 4, "tensor a: an impossible shape");
    }
    assert_header_refused("{" TENSOR("a", "U8", "[9223372036854775808]", 0, 1) "}", 1, "an impossible shape");
    assert_header_refused("{" TENSOR("a", "F64", "[4611686018427387904]", 0, 0) "}", 0,
                          "tensor a: an impossible shape");
    assert_header_refused("{" TENSOR("a", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1,
                          "more than 8 dimensions");
    static const char *const offsets[] = {"[0]", "[0,1,1]", "[1,0]", "[-1,0]", "[0.0,1]", "[\"0\",1]", "[]"};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        char header[200];
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":%s}}",
                 offsets[i]);
        assert_header_refused(header, 1, "tensor a: impossible data_offsets");
    }
    assert_header_refused("{" TENSOR("a", "U8", "[3]", 0, 4) "}", 4,
                          "tensor a: data_offsets that do not hold its shape");
}

static void the_data_is_covered_once(void **state)
{
    (void)state;
    assert_header_refused("{" TENSOR("a", "U8", "[4]", 0, 4) "," TENSOR("b", "U8", "[4]", 3, 7) "}", 7,
                          "tensor b: byte 3: data_offsets overlap");
    assert_header_refused("{" TENSOR("a", "U8", "[4]", 0, 4) "," TENSOR("b", "U8", "[4]", 0, 4) "}", 4,
                          "overlap");
    assert_header_refused("{" TENSOR("a", "U8", "[4]", 0, 4) "," TENSOR("b", "U8", "[4]", 5, 9) "}", 9,
                          "tensor b: byte 5: data_offsets leave a hole");
    assert_header_refused("{" TENSOR("a", "U8", "[4]", 1, 5) "}", 5, "hole");
    assert_header_refused("{" TENSOR("a", "U8", "[4]", 0, 4) "}", 3, "tensor a: byte 0: truncated");
    assert_header_refused("{" TENSOR("a", "U8", "[2305843009213693951]", 0, 2305843009213693951) "}", 4,
                          "truncated");
    assert_header_refused("{" TENSOR("a", "U8", "[2305843009213693951]", 0, 2305843009213693951) "," TENSOR(
                              "b", "U8", "[4]", 2305843009213693947, 2305843009213693951) "}",
                          4, "tensor ");
    assert_header_refused("{" TENSOR("a", "U8", "[4]", 0, 4) "}", 6, "2 bytes after the last tensor");
    assert_header_refused("{}", 1, "1 bytes after the last tensor");
    assert_header_refused("{" TENSOR("a", "U8", "[0]", 1, 1) "}", 1, "tensor a");
}

static void names_are_short_and_printable(void **state)
{
    (void)state;
    char header[1200];
    assert_header_refused("{" TENSOR("", "U8", "[1]", 0, 1) "}", 1, "name");
    assert_header_refused("{" TENSOR("a\\nb", "U8", "[1]", 0, 1) "}", 1, "name");
    assert_header_refused("{" TENSOR("a\\u007f", "U8", "[1]", 0, 1) "}", 1, "name");
    assert_header_refused("{" TENSOR("a\\u001b[2J", "U8", "[1]", 0, 1) "}", 1, "name");
    assert_header_refused("{" TENSOR("a\\u0000b", "U8", "[1]", 0, 1) "}", 1,
                          "byte "); /* jansson's own rule */
    for (int n = 512; n <= 513; n++) {
        int at = snprintf(header, sizeof header, "{\"");
        memset(header + at, 'x', (size_t)n);
        snprintf(header + at + n, sizeof header - (size_t)(at + n),
                 "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
        struct mb_error err;
        test_write_safetensors(folder, "model.safetensors", header, "x", 1);
        assert_int_equal(open_folder(&err), n == 512 ? MB_OK : MB_BAD_DATA);
    }
}

static void metadata_is_an_object_of_strings(void **state)
{
    (void)state;
    assert_header_refused("{\"__metadata__\":1}", 0, "__metadata__");
    assert_header_refused("{\"__metadata__\":[]}", 0, "__metadata__");
    assert_header_refused("{\"__metadata__\":{\"a\":1}}", 0, "__metadata__");
    assert_header_refused("{\"__metadata__\":{\"a\":{}}}", 0, "__metadata__");
    struct mb_error err;
    test_write_safetensors(folder, "model.safetensors", "{\"__metadata__\":{}}", NULL, 0);
    assert_int_equal(open_folder(&err), MB_OK);
}

/* Two million brackets: a reader that recurses on them dies. */
static void depth_bombs_are_refused(void **state)
{
    (void)state;
    enum { N = 2000000 };
    static const char *const opens[] = {"[", "{\"a\":", "{\"a\":["};
    char *bomb = malloc(8 * N + 1);
    assert_non_null(bomb);
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(opens[i]);
        for (size_t k = 0; k < N; k++)
            memcpy(bomb + k * n, opens[i], n);
        bomb[n * N] = '\0';
        assert_header_refused(bomb, 0, "byte ");
    }
    free(bomb);
}

static void files_that_are_none_are_refused(void **state)
{
    (void)state;
    const char *path = test_path("model/model.safetensors");
    test_remove(path);
    assert_int_equal(mkdir(path, 0777), 0);
    struct mb_error err;
    assert_int_equal(open_folder(&err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "model.safetensors"));
    test_remove(path);
    assert_int_equal(mkfifo(path, 0666), 0); /* must not wait for a writer */
    assert_int_equal(open_folder(&err), MB_BAD_DATA);
    test_remove(path);
    assert_refused(MB_BAD_DATA, "neither");
}

/* Every truncation and every flipped bit of a small header: a verdict, never a crash; lengths are not
 * believed. */
static void damaged_headers_never_crash(void **state)
{
    (void)state;
    static const char header[] =
        "{" TENSOR("a", "BF16", "[2,3]", 0, 12) "," TENSOR("b", "F32", "[1]", 12, 16) "}";
    const char *path = test_path("model/model.safetensors");
    struct mb_error err;
    size_t nbytes, n_opened = 0;
    test_write_safetensors(folder, "model.safetensors", header, "0123456789abcdef", 16);
    uint8_t *bytes = test_read(path, &nbytes);
    for (size_t i = 0; i < nbytes - 16; i++)
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] ^= (uint8_t)(1 << bit);
            test_write(path, bytes, nbytes);
            n_opened += open_folder(&err) == MB_OK;
            bytes[i] ^= (uint8_t)(1 << bit);
        }
    for (size_t n = 0; n < nbytes; n++) {
        test_write(path, bytes, n);
        assert_int_equal(open_folder(&err), MB_BAD_DATA);
    }
    assert_true(n_opened > 0 && n_opened < 64); /* other names, and dtypes of the same size */
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file_is_read),
        cmocka_unit_test(every_type_is_known_by_its_size),
        cmocka_unit_test(elements_may_be_smaller_than_a_byte),
        cmocka_unit_test(headers_that_the_official_reader_accepts_are_read),
        cmocka_unit_test(what_counts_may_not_be_there_twice),
        cmocka_unit_test(the_length_is_checked_before_it_is_believed),
        cmocka_unit_test(a_huge_header_is_refused_even_when_the_file_has_it),
        cmocka_unit_test(bad_json_is_named_by_its_byte),
        cmocka_unit_test(a_tensor_has_type_shape_and_place),
        cmocka_unit_test(impossible_shapes_and_offsets_are_refused),
        cmocka_unit_test(the_data_is_covered_once),
        cmocka_unit_test(names_are_short_and_printable),
        cmocka_unit_test(metadata_is_an_object_of_strings),
        cmocka_unit_test(depth_bombs_are_refused),
        cmocka_unit_test(files_that_are_none_are_refused),
        cmocka_unit_test(damaged_headers_never_crash),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
