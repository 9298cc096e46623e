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

static void a_tensor_that_no_shard_has_as_the_index_says_is_named(void **state)
{
    (void)state;
    test_write_text(
        folder, INDEX,
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"c\":\"two.safetensors\"}}");
    assert_refused(MB_BAD_DATA, INDEX, "tensor c: not in two.safetensors");
    test_write_text(folder, INDEX, "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}}");
    assert_refused(MB_BAD_DATA, INDEX, "tensor b: not in one.safetensors");
    test_write_text(folder, INDEX, "{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}}");
    assert_refused(MB_BAD_DATA, INDEX, "where the index says it is");
}

/* "NAME=BYTE" of each tensor of a shard, one byte each: "a=1 b=2". */
static void write_tensors(const char *name, const char *tensors)
{
    char header[400] = "{";
    char data[16];
    size_t n = 0;
    for (const char *at = tensors; *at != '\0'; at += 3 + (at[3] == ' '), n++) {
        char one[100];
        snprintf(one, sizeof one, "%s\"%c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}",
                 n == 0 ? "" : ",", at[0], n, n + 1);
        strcat(header, one);
        data[n] = at[2];
    }
    test_write_safetensors(folder, name, strcat(header, "}"), data, n);
}

/* Opens the folder: its tensors are 'tensors', written as above, and its notes have these words. */
static void assert_opens_as(const char *tensors, const char *notes)
{
    struct mb_checkpoint *ckpt;
    struct mb_error err = {0};
    char found[100] = "";
    if (mb_checkpoint_open(folder, &ckpt, &err) != MB_OK)
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        char value, one[50];
        assert_ptr_equal(mb_checkpoint_find(ckpt, tensor->name), tensor);
        assert_int_equal(tensor->number, i);
        assert_int_equal(mb_checkpoint_read(ckpt, tensor, 0, &value, 1, &err), MB_OK);
        snprintf(one, sizeof one, "%s%s=%c", i == 0 ? "" : " ", tensor->name, value);
        strcat(found, one);
    }
    assert_string_equal(found, tensors);
    if (notes[0] == '\0')
        assert_string_equal(mb_checkpoint_notes(ckpt), "");
    else if (strstr(mb_checkpoint_notes(ckpt), notes) == NULL)
        fail_msg("'%s' is not in the notes: %s", notes, mb_checkpoint_notes(ckpt));
    mb_checkpoint_close(ckpt);
}

/* Overlay checkpoints, whose last shards have new values of old tensors. */
static void of_a_tensor_in_two_shards_the_one_that_the_index_names_counts(void **state)
{
    (void)state;
    write_tensors("one.safetensors", "a=1 b=2");
    write_tensors("two.safetensors", "a=3 b=4 c=5");
    static const char MAP[] = "{\"weight_map\":{\"a\":\"%s.safetensors\",\"b\":\"%s.safetensors\","
                              "\"c\":\"two.safetensors\"}}";
    char text[200];
    snprintf(text, sizeof text, MAP, "one", "two");
    test_write_text(folder, INDEX, text);
    assert_opens_as("a=1 b=4 c=5", "2 tensors are in more than one shard");
    snprintf(text, sizeof text, MAP, "two", "one");
    test_write_text(folder, INDEX, text);
    assert_opens_as("b=2 a=3 c=5", "where the index says is used: b, a");
}

/* As transformers, which reads whole shards in the order of their names. */
static void a_tensor_that_the_index_does_not_name_is_used_the_last_one(void **state)
{
    (void)state;
    write_tensors("one.safetensors", "a=1 c=2 d=3");
    assert_opens_as("a=1 c=2 d=3 b=x", "");
    write_tensors("two.safetensors", "b=4 c=5");
    assert_opens_as("a=1 d=3 b=4 c=5", "1 tensor is in more than one shard; where the index says is used: c");
}

static void in_a_coded_folder_the_index_and_the_shards_say_the_same(void **state)
{
    (void)state;
    test_write_text(folder, "config.json",
                    "{\"quantization_config\":{\"quant_method\":\"moebius\",\"format_version\":1}}");
    write_tensors("two.safetensors", "b=1 c=2");
    assert_refused(MB_BAD_DATA, "two.safetensors", "tensor c: not in the index");
    write_tensors("two.safetensors", "b=1 a=2");
    assert_refused(MB_BAD_DATA, "two.safetensors", "tensor a: the index says that it is in another file");
}

static void shards_in_folders_of_the_folder_are_read(void **state)
{
    (void)state;
    test_make_folder(test_path("model/more"));
    write_shard("more/three.safetensors", "c");
    test_write_text(folder, INDEX,
                    "{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"more/three.safetensors\"}}");
    assert_opens_as("c=x a=x", "1 file with weights is not read: two.safetensors");
}

static void files_with_weights_that_are_not_read_are_noted(void **state)
{
    (void)state;
    assert_opens_as("a=x b=x", "");
    write_shard("consolidated.safetensors", "c");
    assert_opens_as("a=x b=x", "1 file with weights is not read: consolidated.safetensors");
    write_shard("model.safetensors", "c");
    assert_opens_as("c=x", "4 files with weights are not read: consolidated.safetensors, " INDEX
                           ", one.safetensors and 1 more");
}

static void a_missing_shard_is_named(void **state)
{
    (void)state;
    assert_int_equal(unlink(test_path("model/two.safetensors")), 0);
    assert_refused(MB_BAD_DATA, "two.safetensors",
                   "No such file or directory, but the index names it: download it too");
    assert_int_equal(symlink("../../blobs/0123", test_path("model/two.safetensors")), 0);
    assert_refused(MB_BAD_DATA, "two.safetensors", "a link to a file that is not there");
}

static void links_to_tokenizers_that_are_not_there_are_noted(void **state)
{
    (void)state;
    assert_int_equal(symlink("../../blobs/4", test_path("model/tokenizer.json")), 0);
    assert_int_equal(symlink("../../blobs/5", test_path("model/picture.png")), 0);
    assert_opens_as("a=x b=x",
                    "1 link leads to a file that is not there, as half a download leaves it: tokenizer.json");
    assert_int_equal(symlink("../../blobs/6", test_path("model/chat_template.jinja")), 0);
    assert_opens_as("a=x b=x", "2 links lead to a file that is not there, as half a download leaves it: "
                               "chat_template.jinja, tokenizer.json");
}

static void shard_names_stay_in_the_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"\"../one.safetensors\"",
                                        "\"/one.safetensors\"",
                                        "\"x/../one.safetensors\"",
                                        "\"x//one.safetensors\"",
                                        "\"x/.safetensors\"",
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
    test_write_text(folder, "config.json", "");
    assert_refused(MB_BAD_DATA, "config.json", "the file is empty");
    test_write_text(folder, "config.json", " \n");
    assert_refused(MB_BAD_DATA, "config.json", "the file is empty");
    test_write_text(folder, "config.json", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n");
    assert_refused(MB_BAD_DATA, "config.json", "git lfs pull");
    test_write_text(folder, "config.json", "\n<html>404</html>");
    assert_refused(MB_BAD_DATA, "config.json", "a web page");
    assert_int_equal(unlink(test_path("model/config.json")), 0);
    assert_refused(MB_BAD_DATA, "config.json", "has no config.json");
}

/* transformers refuses it too: Python's json does. */
static void a_byte_order_mark_is_named(void **state)
{
    (void)state;
    test_write_text(folder, INDEX, "\xef\xbb\xbf{\"weight_map\":{\"a\":\"one.safetensors\"}}");
    assert_refused(MB_BAD_DATA, INDEX, "save the file as UTF-8 without one");
    test_write_text(folder, "config.json", "\xef\xbb\xbf{}");
    assert_refused(MB_BAD_DATA, "config.json", "byte order mark");
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
                    "{\"quantization_config\":{\"quant_method\":\"moebius\",\"format_version\":4}}");
    assert_refused(MB_UNSUPPORTED, "config.json", "format version 4");
    test_write_text(folder, "config.json", "{\"quantization_config\":{\"quant_method\":\"moebius\"}}");
    assert_refused(MB_UNSUPPORTED, "config.json", "format version");
    struct mb_error err;
    test_write_text(folder, "config.json", "{\"quantization_config\":null}");
    assert_int_equal(open_folder(&err), MB_OK);
}

/* What older tools write: the tensors alone say that they are packed. */
static void packed_weights_are_refused_without_a_word_in_config_json(void **state)
{
    (void)state;
    static const struct {
        const char *tensor, *maker;
    } packed[] = {
        {"model.layers.0.mlp.experts.0.up_proj.qweight", "GPTQ or AWQ"},
        {"model.layers.0.mlp.experts.0.up_proj.weight_packed", "compressed-tensors"},
        {"model.layers.0.mlp.experts.0.up_proj.weight.absmax", "bitsandbytes"},
        {"model.layers.0.mlp.experts.0.up_proj.weight_scale_2", "NVFP4"},
        {"model.layers.0.mlp.experts.gate_up_proj_blocks", "MXFP4"},
    };
    for (size_t i = 0; i < sizeof packed / sizeof packed[0]; i++) {
        write_shard("model.safetensors", packed[i].tensor);
        assert_refused(MB_UNSUPPORTED, packed[i].tensor, packed[i].maker);
    }
    write_shard("model.safetensors", "vision_tower.blocks.0.fc.qweight");
    struct mb_error err;
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
    test_write_text(folder, "main.c", "x");
    assert_int_equal(mb_checkpoint_open(test_path("model/main.c"), &ckpt, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "not a folder"));
    assert_int_equal(mb_checkpoint_open("", &ckpt, &err), MB_BAD_DATA);
}

static void a_file_in_place_of_a_folder_is_named_with_what_to_do(void **state)
{
    (void)state;
    static const struct {
        const char *path, *words;
    } others[] = {
        {"model/x-Q4_K_M.gguf", "is a GGUF file"},
        {"model/one.safetensors", "give the folder that it is in"},
        {"model/" INDEX, "give the folder that it is in"},
        {"model/config.json", "give the folder that it is in"},
        {"model/pytorch_model.bin", "convert the model to safetensors"},
        {"model/x.pt", "convert the model to safetensors"},
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct mb_error err;
        test_write(test_path(others[i].path), "x", 1);
        assert_int_equal(mb_checkpoint_look(test_path(others[i].path), &err), MB_BAD_DATA);
        assert_non_null(strstr(err.msg, others[i].words));
    }
}

static void the_name_of_a_model_on_the_hub_is_told_from_a_path(void **state)
{
    (void)state;
    struct mb_error err;
    assert_int_equal(mb_checkpoint_look("Qwen/Qwen3-30B-A3B", &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "hf download Qwen/Qwen3-30B-A3B"));
    static const char *const paths[] = {"./nothing", "a/b/c", "/nothing", "nothing/", "nothing/x.gguf"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        assert_int_equal(mb_checkpoint_look(paths[i], &err), MB_BAD_DATA);
        assert_null(strstr(err.msg, "hf download"));
        assert_non_null(strstr(err.msg, "no such folder"));
    }
    assert_int_equal(mb_checkpoint_look("https://huggingface.co/Qwen/Qwen3-30B-A3B", &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "is an address: download the model"));
    assert_int_equal(symlink("nothing", test_path("link")), 0);
    assert_int_equal(mb_checkpoint_look(test_path("link"), &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "a link to a folder that is not there"));
    test_remove(test_path("link"));
}

/* What half a download, or the wrong one, leaves in a folder: the message says what it is. */
static void what_is_there_in_place_of_weights_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *name, *words;
    } others[] = {
        {"model-00001-of-00002.safetensors", "index is not there"},
        {"model-00002-of-00002.safetensors.part", "half a download"},
        {"tf_model.h5", "TensorFlow"},
        {"flax_model.msgpack", "Flax"},
        {"model.onnx", "ONNX"},
        {"pytorch_model.bin", "PyTorch"},
        {"consolidated.safetensors", "Hugging Face form"},
        {"adapter_model.safetensors", "LoRA"},
        {"weights.safetensors", "a name that is not read"},
        {"tiny-Q4_K_M.gguf", "GGUF"},
        {"snapshots", "snapshots/NAME"},
    };
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, INDEX);
    test_remove(path);
    test_remove(test_path("model/one.safetensors"));
    test_remove(test_path("model/two.safetensors"));
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
    test_write_text(folder, "model.safetensors", "Entry not found");
    assert_refused(MB_BAD_DATA, "model.safetensors",
                   "no safetensors file, or a damaged one; download it again");
    test_write_text(folder, "model.safetensors", "");
    assert_refused(MB_BAD_DATA, "model.safetensors", "truncated to 0 bytes; download it again");
    test_write_text(folder, "model.safetensors", "GGUF\003 and more than eight bytes");
    assert_refused(MB_BAD_DATA, "model.safetensors", "GGUF");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_test, end_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(two_shards_are_one_model),
        TEST(a_single_file_goes_before_the_index),
        TEST(a_tensor_that_no_shard_has_as_the_index_says_is_named),
        TEST(of_a_tensor_in_two_shards_the_one_that_the_index_names_counts),
        TEST(a_tensor_that_the_index_does_not_name_is_used_the_last_one),
        TEST(in_a_coded_folder_the_index_and_the_shards_say_the_same),
        TEST(shards_in_folders_of_the_folder_are_read),
        TEST(files_with_weights_that_are_not_read_are_noted),
        TEST(a_missing_shard_is_named),
        TEST(links_to_tokenizers_that_are_not_there_are_noted),
        TEST(packed_weights_are_refused_without_a_word_in_config_json),
        TEST(shard_names_stay_in_the_folder),
        TEST(a_bad_index_is_named),
        TEST(a_folder_has_a_config),
        TEST(a_byte_order_mark_is_named),
        TEST(other_quantisations_are_refused_by_name),
        TEST(messages_are_printable),
        TEST(depth_bombs_are_refused),
        TEST(what_is_no_folder_is_refused),
        TEST(a_file_in_place_of_a_folder_is_named_with_what_to_do),
        TEST(the_name_of_a_model_on_the_hub_is_told_from_a_path),
        TEST(what_is_there_in_place_of_weights_is_named),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
