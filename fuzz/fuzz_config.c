/*
 * fuzz_config.c - config.json of a folder, the edit of its text that compress and decompress make, and the
 * checksums of files that it keeps.
 */
#include "base/json.h"
#include "checkpoint/checksums.h"
#include "checkpoint/config_text.h"
#include "fuzz.h"
#include "json.h"
#include <stdlib.h>
#include <string.h>

static const char KEY[] = "quantization_config";

/* As the program reads it: numbers and literals that jansson alone refuses are taken. NULL: not JSON. */
static json_t *parse(const char *text)
{
    json_t *root;
    return mb_json_parse(text, strlen(text), 0, &root, NULL) == MB_OK ? root : NULL;
}

/* Setting or removing (value NULL) a member changes that and nothing else. */
static void check_edit(const char *text, const json_t *config, const char *key, json_t *value)
{
    char *edited = mb_config_text_set(text, key, value);
    REQUIRE(edited != NULL);
    json_t *got = parse(edited), *expected = json_copy((json_t *)config);
    if (value != NULL)
        json_object_set(expected, key, value);
    else
        json_object_del(expected, key);
    REQUIRE(got != NULL && json_equal(got, expected));
    json_decref(expected);
    json_decref(got);
    free(edited);
}

static void check_edits(const char *text)
{
    json_t *config = parse(text);
    if (json_is_object(config)) {
        json_t *value = json_pack("{s:s,s:i,s:[s,s]}", "quant_method", "moebius", "format_version", 1,
                                  "bounds", "30%", "\"}");
        const char *first = json_object_iter_key(json_object_iter(config));
        check_edit(text, config, KEY, value);
        check_edit(text, config, KEY, NULL);
        if (first != NULL) {
            check_edit(text, config, first, value);
            check_edit(text, config, first, NULL);
        }
        json_decref(value);
    }
    json_decref(config);
}

/* A sealed text has the checksum that it says, whatever stands around. */
static void check_sealed(const char *text)
{
    json_t *block = json_pack("{s:s,s:i}", "quant_method", "moebius", "format_version", 1);
    json_t *files = json_object();
    char *sealed = mb_config_text_sealed(text, block, files);
    REQUIRE(sealed != NULL);
    json_t *got = parse(sealed);
    uint64_t n_files;
    struct mb_error err;
    const struct mb_checkpoint ckpt = {.path = (char[]){"."}, .config_text = sealed, .config = got};
    REQUIRE(mb_check_files(&ckpt, &n_files, &err) == MB_OK && n_files == 1);
    json_decref(got);
    json_decref(files);
    json_decref(block);
    free(sealed);
}

struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    return (struct fuzz_input){data, size};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mb_checkpoint *ckpt;
    struct mb_error err = {0};
    enum mb_status status = mb_checkpoint_open(fuzz_folder_with_config(data, size), &ckpt, &err);
    if (status == MB_OK) {
        REQUIRE(strlen(mb_checkpoint_config_text(ckpt)) == size);
        check_edits(mb_checkpoint_config_text(ckpt));
        uint64_t n_files;
        status = mb_check_files(ckpt, &n_files, &err);
        REQUIRE(status == MB_OK || status == MB_BAD_DATA);
        check_sealed(mb_checkpoint_config_text(ckpt));
        mb_checkpoint_close(ckpt);
    } else {
        REQUIRE((status == MB_BAD_DATA || status == MB_UNSUPPORTED) &&
                strstr(err.msg, "config.json: ") != NULL);
    }
    return 0;
}
