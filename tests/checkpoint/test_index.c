/*
 * test_index.c - folders: config.json, and shards that must say what the index says.
 */
#include "cmocka_all.h"
#include "folder.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INDEX "model.safetensors.index.json"

static const char *folder;

static void write_shard(const char *name, const char *tensor)
{
    char header[200];
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
             tensor);
    test_write_safetensors(folder, name, header, "x", 1);
}

/* Two shards with the tensors a and b, and an index: sound until a test changes something. */
static int begin_test(void **state)
{
    (void)state;
    folder = strdup(test_path("model"));
    test_make_folder(folder);
    test_write_text(folder, "config.json", "{}");
    write_shard("one.safetensors", "a");
    write_shard("two.safetensors", "b");
    test_write_text(folder, INDEX, "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    return 0;
}

static int end_test(void **state)
{
    (void)state;
    test_remove(folder);
    free((char *)folder);
    return 0;
}

static enum mb_status open_folder(struct mb_error *err)
{
    struct mb_checkpoint *ckpt = NULL;
    enum mb_status status = mb_checkpoint_open(folder, &ckpt, err);
    if (status == MB_OK)
        mb_checkpoint_close(ckpt);
    return status;
}

static void assert_refused(enum mb_status expected, const char *file, const char *words)
{
    struct mb_error err = {0};
    enum mb_status status = open_folder(&err);
    if (status != expected || strstr(err.msg, words) == NULL || strstr(err.msg, file) == NULL ||
        strchr(err.msg, '\n') != NULL)
        fail_msg("status %d, expected %d with '%s' and '%s': %s", (int)status, (int)expected, file, words,
                 err.msg);
}

static void two_shards_are_one_model(void **state)
{
    (void)state;
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    assert_int_equal(mb_checkpoint_open(folder, &ckpt, &err), MB_OK);
    assert_int_equal(mb_checkpoint_n_tensors(ckpt), 2);
    assert_string_equal(mb_checkpoint_shard_name(ckpt, mb_checkpoint_find(ckpt, "b")->shard),
                        "two.safetensors");
    assert_string_equal(mb_checkpoint_path(ckpt), folder);
    mb_checkpoint_close(ckpt);
}

static void a_single_file_goes_before_the_index(void **state)
{
    (void)state;
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    write_shard("model.safetensors", "c");
    assert_int_equal(mb_checkpoint_open(folder, &ckpt, &err), MB_OK);
    assert_int_equal(mb_checkpoint_n_tensors(ckpt), 1);
    mb_checkpoint_close(ckpt);
}

static void the_index_and_the_shards_say_the_same(void **state)
{
    (void)state;
    test_write_text(
        folder, INDEX,
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"c\":\"two.safetensors\"}}");
    assert_refused(MB_BAD_DATA, INDEX, "tensor c: not in two.safetensors");
    test_write_text(folder, INDEX, "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}}");
    assert_refused(MB_BAD_DATA, "one.safetensors", "tensor b");
    test_write_text(folder, INDEX, "{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}}");
    assert_refused(MB_BAD_DATA, "one.safetensors", "the index says");
    test_write_text(folder, INDEX, "{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"}}");
    assert_refused(MB_BAD_DATA, "two.safetensors", "tensor");
}

static void a_tensor_that_the_index_lacks_is_an_error(void **state)
{
    (void)state;
    test_write_safetensors(folder, "two.safetensors",
                           "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                           "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                           "xy", 2);
    assert_refused(MB_BAD_DATA, "two.safetensors", "tensor c: not in the index");
}

static void a_tensor_stands_in_one_shard(void **state)
{
    (void)state;
    test_write_safetensors(folder, "two.safetensors",
                           "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                           "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                           "xy", 2);
    assert_refused(MB_BAD_DATA, "one.safetensors", "tensor a: also in");
}

static void a_missing_shard_is_named(void **state)
{
    (void)state;
    assert_int_equal(unlink(test_path("model/two.safetensors")), 0);
    assert_refused(MB_BAD_DATA, "two.safetensors", "No such file");
}

static void shard_names_stay_in_the_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"\"../one.safetensors\"",
                                        "\"/one.safetensors\"",
                                        "\"x/one.safetensors\"",
                                        "\"\"",
                                        "\".safetensors\"",
                                        "\"..\"",
                                        "\"one.bin\"",
                                        "1",
                                        "null",
                                        "\".one.safetensors\""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char text[200];
        snprintf(text, sizeof text, "{\"weight_map\":{\"a\":%s,\"b\":\"two.safetensors\"}}", names[i]);
        test_write_text(folder, INDEX, text);
        assert_refused(MB_BAD_DATA, INDEX, "tensor a: not a file name");
    }
}

static void a_bad_index_is_named(void **state)
{
    (void)state;
    test_write_text(folder, INDEX, "{\"weight_map\":{\"a\":\"one.safetensors\",}}");
    assert_refused(MB_BAD_DATA, INDEX, "byte 3");
    test_write_text(folder, INDEX, "{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}}");
    assert_refused(MB_BAD_DATA, INDEX, "uplicate");
    test_write_text(folder, INDEX, "{}");
    assert_refused(MB_BAD_DATA, INDEX, "weight_map");
    test_write_text(folder, INDEX, "[]");
    assert_refused(MB_BAD_DATA, INDEX, "not a JSON object");
    test_write_text(folder, INDEX, "{\"weight_map\":[]}");
    assert_refused(MB_BAD_DATA, INDEX, "weight_map");
    test_write_text(folder, INDEX, "{\"weight_map\":{}}");
    assert_refused(MB_BAD_DATA, INDEX, "names 0 files");
    test_write_text(folder, INDEX, "");
    assert_refused(MB_BAD_DATA, INDEX, "byte 0");
}

static void a_folder_has_a_config(void **state)
{
    (void)state;
    test_write_text(folder, "config.json", "{\"a\":}");
    assert_refused(MB_BAD_DATA, "config.json", "byte ");
    test_write_text(folder, "config.json", "[]");
    assert_refused(MB_BAD_DATA, "config.json", "not a JSON object");
    test_write_text(folder, "config.json", "{\"a\":1,\"a\":1}");
    assert_refused(MB_BAD_DATA, "config.json", "uplicate");
    assert_int_equal(unlink(test_path("model/config.json")), 0);
    assert_refused(MB_BAD_DATA, "config.json", "has no config.json");
}

static void other_quantisations_are_refused_by_name(void **state)
{
    (void)state;
    test_write_text(folder, "config.json", "{\"quantization_config\":{\"quant_method\":\"awq\"}}");
    assert_refused(MB_UNSUPPORTED, "config.json", "'awq'");
    test_write_text(folder, "config.json", "{\"quantization_config\":{}}");
    assert_refused(MB_BAD_DATA, "config.json", "quant_method");
    test_write_text(folder, "config.json", "{\"quantization_config\":7}");
    assert_refused(MB_BAD_DATA, "config.json", "quant_method");
    test_write_text(folder, "config.json",
                    "{\"quantization_config\":{\"quant_method\":\"moebius\",\"format_version\":2}}");
    assert_refused(MB_UNSUPPORTED, "config.json", "format version 2");
    test_write_text(folder, "config.json", "{\"quantization_config\":{\"quant_method\":\"moebius\"}}");
    assert_refused(MB_UNSUPPORTED, "config.json", "format version");
    struct mb_error err;
    test_write_text(folder, "config.json", "{\"quantization_config\":null}");
    assert_int_equal(open_folder(&err), MB_OK);
}

/* What a file says may be quoted in the message, but not its escape sequences. */
static void messages_are_printable(void **state)
{
    (void)state;
    test_write_text(folder, INDEX, "{\"weight_map\":\x1b[2J}");
    assert_refused(MB_BAD_DATA, INDEX, "near '?'");
    test_write_text(folder, INDEX, "{\"weight_map\":{\"a\\n\\u001b\":7}}");
    assert_refused(MB_BAD_DATA, INDEX, "tensor a??");
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    assert_int_equal(mb_checkpoint_open("no\nfolder", &ckpt, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "no?folder"));
}

/* In config.json and in the index: refused by depth, without recursion on our side. */
static void depth_bombs_are_refused(void **state)
{
    (void)state;
    enum { N = 1000000 };
    char *bomb = malloc(5 * N + 1);
    assert_non_null(bomb);
    for (size_t i = 0; i < N; i++)
        memcpy(bomb + 5 * i, "{\"a\":", 5);
    bomb[5 * N] = '\0';
    test_write_text(folder, INDEX, bomb);
    assert_refused(MB_BAD_DATA, INDEX, "byte ");
    test_write_text(folder, "config.json", bomb);
    assert_refused(MB_BAD_DATA, "config.json", "byte ");
    free(bomb);
}

static void what_is_no_folder_is_refused(void **state)
{
    (void)state;
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    assert_int_equal(mb_checkpoint_open(test_path("nothing"), &ckpt, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "nothing"));
    assert_int_equal(mb_checkpoint_open(test_path("model/config.json"), &ckpt, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "not a folder"));
    assert_int_equal(mb_checkpoint_open("", &ckpt, &err), MB_BAD_DATA);
}

/* What half a download, or the wrong one, leaves in a folder: the message says what it is. */
static void what_is_there_in_place_of_weights_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *name, *words;
    } others[] = {
        {"model-00001-of-00002.safetensors", "index is not there"},
        {"pytorch_model.bin", "PyTorch"},
        {"tiny-Q4_K_M.gguf", "GGUF"},
        {"snapshots", "snapshots/NAME"},
    };
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, INDEX);
    test_remove(path);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        test_write_text(folder, others[i].name, "x");
        assert_refused(MB_BAD_DATA, others[i].name, others[i].words);
        snprintf(path, sizeof path, "%s/%s", folder, others[i].name);
        test_remove(path);
    }
    assert_refused(MB_BAD_DATA, "neither", "is there");
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(symlink("../../blobs/0123", path), 0);
    assert_refused(MB_BAD_DATA, "model.safetensors", "link");
    test_remove(path);
    test_write_text(folder, "model.safetensors",
                    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n");
    assert_refused(MB_BAD_DATA, "model.safetensors", "git lfs pull");
    test_write_text(folder, "model.safetensors", "<!DOCTYPE html><title>Not found</title>");
    assert_refused(MB_BAD_DATA, "model.safetensors", "web page");
    test_write_text(folder, "model.safetensors", "GGUF\003 and more than eight bytes");
    assert_refused(MB_BAD_DATA, "model.safetensors", "GGUF");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_test, end_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(two_shards_are_one_model),
        TEST(a_single_file_goes_before_the_index),
        TEST(the_index_and_the_shards_say_the_same),
        TEST(a_tensor_that_the_index_lacks_is_an_error),
        TEST(a_tensor_stands_in_one_shard),
        TEST(a_missing_shard_is_named),
        TEST(shard_names_stay_in_the_folder),
        TEST(a_bad_index_is_named),
        TEST(a_folder_has_a_config),
        TEST(other_quantisations_are_refused_by_name),
        TEST(messages_are_printable),
        TEST(depth_bombs_are_refused),
        TEST(what_is_no_folder_is_refused),
        TEST(what_is_there_in_place_of_weights_is_named),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
