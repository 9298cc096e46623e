/*
 * fuzz_sweep.c - sweep files: what is read has the clean run and runs that are all different, and its form is
 * a sweep file of the same runs.
 */
#include "fuzz.h"
#include "json.h"
#include "lab/sweep_file.h"
#include <string.h>

struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    return (struct fuzz_input){data, size};
}

static bool is_same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool is_same_item(const struct mb_sweep_item *a, const struct mb_sweep_item *b)
{
    return a->seed == b->seed && is_same_text(a->target, b->target) && is_same_text(a->error, b->error) &&
           is_same_text(a->bound, b->bound);
}

static void look_at(const struct mb_sweep *sweep)
{
    REQUIRE(sweep->task != NULL || sweep->text != NULL);
    REQUIRE(sweep->n_seeds > 0 && sweep->form != NULL);
    REQUIRE(sweep->n_items > 0 && sweep->n_items <= MB_SWEEP_ITEMS_MAX);
    REQUIRE(strcmp(sweep->items[0].error, "none") == 0 && sweep->items[0].target[0] == '\0');
    for (size_t i = 1; i < sweep->n_items; i++) {
        const struct mb_sweep_item *item = &sweep->items[i];
        REQUIRE(strcmp(item->error, "none") != 0 && item->label != NULL && item->target[0] != '\0');
        REQUIRE((item->bound != NULL) == mb_sweep_has_bound(item->error));
        REQUIRE((item->seed != 0) == mb_sweep_is_random(item->error));
        for (size_t k = i < 100 ? 0 : i - 100; k < i; k++)
            REQUIRE(!is_same_item(item, &sweep->items[k]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_file file;
    struct mb_sweep_flags flags = {.size = sizeof flags};
    struct mb_sweep *sweep, *copy;
    struct mb_error err = {0};
    fuzz_file_set(&file, data, size, 0);
    enum mb_status status = mb_sweep_read(file.path, &flags, &sweep, &err);
    if (status != MB_OK) {
        REQUIRE(status == MB_BAD_DATA || status == MB_USAGE);
        REQUIRE(strncmp(err.msg, file.path, strlen(file.path)) == 0);
        return 0;
    }
    look_at(sweep);
    REQUIRE(mb_sweep_copy(sweep, &copy, &err) == MB_OK);
    REQUIRE(copy->n_items == sweep->n_items && strcmp(copy->form, sweep->form) == 0);
    for (size_t i = 0; i < copy->n_items; i++)
        REQUIRE(is_same_item(&copy->items[i], &sweep->items[i]));
    mb_sweep_close(copy);
    mb_sweep_close(sweep);
    return 0;
}
