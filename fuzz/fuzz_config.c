/*
 * fuzz_config.c - config.json of a folder, and the edit of its text that compress and decompress make.
 */
#include "checkpoint/checkpoint.h"
#include "checkpoint/config_text.h"
#include "fuzz.h"
#include "json.h"
#include <stdlib.h>
#include <string.h>

static const char KEY[] = "quantization_config";

/* Setting or removing (value NULL) a member changes that and nothing else. */
static void check_edit(const char *text, const json_t *config, const char *key, json_t *value)
{
    char *edited = mb_config_text_set(text, key, value);
    REQUIRE(edited != NULL);
    json_t *got = json_loads(edited, JSON_REJECT_DUPLICATES, NULL), *expected = json_copy((json_t *)config);
    if (value != NULL)
        json_object_set(expected, key, value);
    else
        json_object_del(expected, key);
    REQUIRE(got != NULL && json_equal(got, expected));
    json_decref(expected);
    json_decref(got);
    free(edited);
}

static void check_edits(const char *text, size_t nbytes)
{
    json_t *config = json_loadb(text, nbytes, JSON_REJECT_DUPLICATES, NULL);
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
        check_edits(mb_checkpoint_config_text(ckpt), size);
        mb_checkpoint_close(ckpt);
    } else {
        REQUIRE((status == MB_BAD_DATA || status == MB_UNSUPPORTED) &&
                strstr(err.msg, "config.json: ") != NULL);
    }
    return 0;
}
