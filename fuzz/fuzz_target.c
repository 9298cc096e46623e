/*
 * fuzz_target.c - selections and errors: any text, for a small model, with a usage profile and without.
 */
#include "fuzz.h"
#include <moebius/perturb.h>
#include <stdlib.h>
#include <string.h>

static struct mb_model *model;
static struct mb_profile *profile;

static void open_once(void)
{
    struct mb_model_options options = {.size = sizeof options, .n_threads = 1};
    if (model != NULL)
        return;
    REQUIRE(mb_model_open(MB_REPO "/tests/model/data/checkpoints/groups", &options, &model, NULL) == MB_OK);
    REQUIRE(mb_profile_open(model, &profile, NULL) == MB_OK);
    for (int32_t i = 0; i < 40; i++) /* some experts are never used */
        mb_profile_count(profile, (size_t)(1 + i % 2), 0, &(int32_t){i * i % 11}, &(float){0.5F}, 1, 0);
}

/* What is selected is in the model, in order, each matrix once; what is not says why, in one line. */
static void check_selection(const char *text, const struct mb_profile *used)
{
    struct mb_selection selection;
    struct mb_error err = {.msg = ""};
    size_t n;
    mb_model_matrices(model, &n);
    if (mb_select(model, text, used, &selection, &err) != MB_OK) {
        REQUIRE(err.status == MB_USAGE && strncmp(err.msg, "selection '", 11) == 0);
        REQUIRE(selection.at == NULL && selection.n == 0);
        return;
    }
    REQUIRE(selection.n > 0 && selection.n <= n && selection.at[selection.n - 1] < n);
    for (size_t i = 1; i < selection.n; i++)
        REQUIRE(selection.at[i] > selection.at[i - 1]);
    char *words = mb_selection_text(model, &selection);
    REQUIRE(words != NULL && words[0] != 0);
    free(words);
    mb_selection_free(&selection);
}

static void check_error(const char *text)
{
    struct mb_perturbation perturbation;
    struct mb_error err;
    if (mb_perturbation_parse(text, &perturbation, &err) != MB_OK) {
        REQUIRE(err.status == MB_USAGE || err.status == MB_UNSUPPORTED);
        return;
    }
    REQUIRE(perturbation.bound.kind == MB_BOUND_EXACT || perturbation.bound.value > 0);
    REQUIRE(perturbation.codec == NULL || perturbation.kind == MB_PERTURB_CODEC);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    open_once();
    char *text = malloc(size + 1);
    REQUIRE(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = 0;
    check_selection(text, NULL);
    check_selection(text, profile);
    check_error(text);
    free(text);
    return 0;
}
