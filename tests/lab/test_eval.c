/*
 * test_eval.c - answering and perplexity on the reference model: order, independence of the batch, truth from
 * torch.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <jansson.h>
#include <math.h>
#include <moebius/lab.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REFERENCE MB_REPO "/models/reference"
#define DATA MB_REPO "/tests/lab/data"

enum { N_QUESTIONS = 24 };

static struct mb_model *model;
static struct mb_tokenizer *tokenizer;
static struct mb_task task;

static int open_all(void **state)
{
    struct mb_error err;
    struct mb_task_options task_options = {.size = sizeof task_options, .limit = N_QUESTIONS};
    (void)state;
    if (mb_model_open(REFERENCE, NULL, &model, &err) != MB_OK ||
        mb_tokenizer_open(REFERENCE, &tokenizer, &err) != MB_OK ||
        mb_task_open(REFERENCE "/eval.jsonl", &task_options, &task, &err) != MB_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    mb_task_close(&task);
    mb_tokenizer_close(tokenizer);
    mb_model_close(model);
    return 0;
}

/* What the callback was told. */
struct told {
    size_t n;
    char *replies[N_QUESTIONS];
    size_t n_tokens[N_QUESTIONS];
    uint64_t n_ica, n_pia;
};

static void note_reply(void *ctx, size_t index, const struct mb_task_item *item, const char *reply,
                       struct mb_score score, size_t n_tokens)
{
    struct told *told = ctx;
    assert_int_equal(index, told->n);
    assert_ptr_equal(item, &task.items[index]);
    told->replies[told->n] = strdup(reply);
    told->n_tokens[told->n++] = n_tokens;
    told->n_ica += score.ica;
    told->n_pia += score.pia;
}

static struct mb_eval_report answer(size_t n_parallel, size_t n_predict, struct told *told)
{
    struct mb_eval_options options = {.size = sizeof options,
                                      .n_parallel = n_parallel,
                                      .n_predict = n_predict,
                                      .reply = note_reply,
                                      .reply_ctx = told};
    struct mb_eval_report report;
    struct mb_error err;
    *told = (struct told){0};
    if (mb_eval_task(model, tokenizer, &task, &options, &report, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(told->n, N_QUESTIONS);
    assert_int_equal(report.n, N_QUESTIONS);
    assert_int_equal(report.n_ica, told->n_ica);
    assert_int_equal(report.n_pia, told->n_pia);
    return report;
}

static void forget(struct told *told)
{
    for (size_t i = 0; i < told->n; i++)
        free(told->replies[i]);
}

/* The reference model answers nearly all of its questions (its card: 0.995). */
static void reference_answers_its_questions(void **state)
{
    struct told told;
    (void)state;
    struct mb_eval_report report = answer(0, 0, &told);
    assert_true(report.n_ica >= N_QUESTIONS - 1);
    assert_true(report.n_pia >= report.n_ica);
    assert_int_equal(report.n_truncated, 0);
    assert_non_null(strstr(told.replies[0], "Answer: 20"));
    forget(&told);
}

static void replies_do_not_depend_on_the_batch(void **state)
{
    static const size_t n_parallels[] = {1, 3, 16, 100};
    struct told first, told;
    (void)state;
    struct mb_eval_report report = answer(5, 0, &first);
    for (size_t i = 0; i < sizeof n_parallels / sizeof *n_parallels; i++) {
        struct mb_eval_report again = answer(n_parallels[i], 0, &told);
        assert_int_equal(again.n_reply_tokens, report.n_reply_tokens);
        assert_int_equal(again.n_prompt_tokens, report.n_prompt_tokens);
        for (size_t k = 0; k < N_QUESTIONS; k++)
            assert_string_equal(told.replies[k], first.replies[k]);
        forget(&told);
    }
    forget(&first);
}

static void long_replies_are_cut(void **state)
{
    struct told whole, cut;
    (void)state;
    answer(0, 0, &whole);
    struct mb_eval_report report = answer(0, 4, &cut);
    assert_int_equal(report.n_truncated, N_QUESTIONS);
    for (size_t i = 0; i < N_QUESTIONS; i++) {
        assert_int_equal(cut.n_tokens[i], 4);
        assert_memory_equal(cut.replies[i], whole.replies[i], strlen(cut.replies[i]));
    }
    forget(&cut);
    forget(&whole);
}

/* tokenizer.json of the reference without one token, which leaves a hole; it is part of no other. */
static struct mb_tokenizer *open_without(const char *content, const char *left, const char *right)
{
    json_t *root = json_load_file(REFERENCE "/tokenizer.json", 0, NULL);
    json_t *bpe = json_object_get(root, "model"), *merges = json_object_get(bpe, "merges");
    assert_int_equal(json_object_del(json_object_get(bpe, "vocab"), content), 0);
    size_t n = json_array_size(merges);
    for (size_t i = n; i-- > 0;)
        if (strcmp(json_string_value(json_array_get(json_array_get(merges, i), 0)), left) == 0 &&
            strcmp(json_string_value(json_array_get(json_array_get(merges, i), 1)), right) == 0)
            json_array_remove(merges, i);
    assert_int_equal(json_array_size(merges), n - 1);
    assert_int_equal(json_dump_file(root, test_path("tokenizer.json"), 0), 0);
    json_decref(root);
    assert_int_equal(symlink(REFERENCE "/tokenizer_config.json", test_path("tokenizer_config.json")), 0);
    struct mb_tokenizer *opened = NULL;
    struct mb_error err;
    if (mb_tokenizer_open(test_path("."), &opened, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return opened;
}

/* The model says " = " in its replies, and the tokenizer knows no such token. */
static void ids_in_a_hole_have_no_text(void **state)
{
    struct told told;
    struct mb_tokenizer *whole = tokenizer;
    size_t n_equals = 0;
    (void)state;
    answer(0, 0, &told);
    for (size_t i = 0; i < N_QUESTIONS; i++)
        n_equals += strstr(told.replies[i], " = ") != NULL;
    assert_true(n_equals > 0);
    forget(&told);
    tokenizer = open_without("\xc4\xa0=", "\xc4\xa0", "=");
    answer(0, 0, &told);
    mb_tokenizer_close(tokenizer);
    tokenizer = whole;
    for (size_t i = 0; i < N_QUESTIONS; i++)
        assert_null(strstr(told.replies[i], " ="));
    forget(&told);
}

/* A caller that forgot 'size', and one with a later header. */
static void sizes_of_options_are_checked(void **state)
{
    struct {
        struct mb_eval_options options;
        uint64_t later;
    } later = {.options = {.size = sizeof later}, .later = 1};
    struct mb_eval_options options = {.n_predict = 1};
    struct mb_perplexity_options ppl_options = {.n_ctx = 8};
    struct mb_eval_report report;
    struct mb_perplexity_report ppl_report;
    struct mb_error err;
    (void)state;
    assert_int_equal(mb_eval_task(model, tokenizer, &task, &options, &report, &err), MB_USAGE);
    assert_int_equal(mb_eval_task(model, tokenizer, &task, &later.options, &report, &err), MB_USAGE);
    assert_int_equal(mb_eval_perplexity(model, tokenizer, "a", 1, &ppl_options, &ppl_report, &err), MB_USAGE);
}

static bool stop_at_once(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    (void)ctx, (void)what, (void)done, (void)total;
    return true;
}

static void progress_may_stop(void **state)
{
    struct mb_eval_options options = {.size = sizeof options, .progress = stop_at_once};
    struct mb_eval_report report;
    struct mb_perplexity_options ppl_options = {
        .size = sizeof ppl_options, .n_ctx = 8, .progress = stop_at_once};
    struct mb_perplexity_report ppl_report;
    struct mb_error err;
    const char *text =
        "To be, or not to be, that is the question: whether it is nobler in the mind to suffer";
    (void)state;
    assert_int_equal(mb_eval_task(model, tokenizer, &task, &options, &report, &err), MB_CANCELLED);
    assert_int_equal(
        mb_eval_perplexity(model, tokenizer, text, strlen(text), &ppl_options, &ppl_report, &err),
        MB_CANCELLED);
}

/* Goldens: tools/goldens. The cache holds floats, as torch's does; 1e-4 of a nll is far below its error. */
static void perplexity_is_that_of_torch(void **state)
{
    json_t *goldens = json_load_file(DATA "/perplexity.json", 0, NULL);
    size_t nbytes;
    char *text = (char *)test_read(DATA "/perplexity.txt", &nbytes);
    (void)state;
    assert_true(json_array_size(goldens) > 0);
    for (size_t i = 0; i < json_array_size(goldens); i++) {
        int n_ctx, n_windows, n_scored;
        double nll, ppl, ppl_stderr;
        assert_int_equal(json_unpack(json_array_get(goldens, i), "{s:i, s:i, s:i, s:f, s:f, s:f}", "n_ctx",
                                     &n_ctx, "n_windows", &n_windows, "n_scored", &n_scored, "nll_mean", &nll,
                                     "ppl", &ppl, "ppl_stderr", &ppl_stderr),
                         0);
        struct mb_perplexity_options options = {
            .size = sizeof options, .n_ctx = (size_t)n_ctx, .cache_type = MB_CACHE_F32};
        struct mb_perplexity_report report;
        struct mb_error err;
        if (mb_eval_perplexity(model, tokenizer, text, strlen(text), &options, &report, &err) != MB_OK)
            fail_msg("%s", err.msg);
        printf("windows of %d: nll %.6f, torch %.6f; ppl %.4f +/- %.4f\n", n_ctx, report.nll_mean, nll,
               report.ppl, report.ppl_stderr);
        assert_int_equal(report.n_windows, n_windows);
        assert_int_equal(report.n_tokens_scored, n_scored);
        assert_true(fabs(report.nll_mean - nll) < 1e-4);
        assert_true(fabs(report.ppl / ppl - 1) < 1e-4);
        assert_true(fabs(report.ppl_stderr / ppl_stderr - 1) < 1e-3);
    }
    json_decref(goldens);
    free(text);
}

static void perplexity_refuses_what_it_cannot_do(void **state)
{
    struct mb_perplexity_options options = {.size = sizeof options, .n_ctx = 64};
    struct mb_perplexity_report report;
    struct mb_error err;
    (void)state;
    assert_int_equal(mb_eval_perplexity(model, tokenizer, "short", 5, &options, &report, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "a window needs 64"));
    options.n_ctx = 3;
    assert_int_equal(mb_eval_perplexity(model, tokenizer, "short", 5, &options, &report, &err), MB_USAGE);
    options.n_ctx = 257; /* the model was trained on 256 */
    assert_int_equal(mb_eval_perplexity(model, tokenizer, "short", 5, &options, &report, &err), MB_USAGE);
}

static void note_dead(void *ctx, size_t index, const struct mb_task_item *item, const char *reply,
                      struct mb_score score, size_t n_tokens)
{
    struct told *told = ctx;
    (void)item;
    if (score.dead == MB_DEAD_NO_ROOM) {
        assert_true(index == 0 && n_tokens == 0 && reply[0] == '\0' && !score.pia);
        told->n++;
    }
}

/* ---------------------------------------------------------------- multiple choice */

#define CHOICE_QUESTION "{\"question\": \"Q\", \"choices\": [\"a\", \"b\"], \"answer\": 0}\n"

enum { N_CHOICE_QUESTIONS = 6, N_CHOICES_MAX = 5 };

struct chosen {
    size_t n;
    double sums[N_CHOICE_QUESTIONS][N_CHOICES_MAX];
    struct mb_choice_score scores[N_CHOICE_QUESTIONS];
};

static void note_choice(void *ctx, size_t index, const struct mb_choice_item *item,
                        const struct mb_choice_score *score)
{
    struct chosen *chosen = ctx;
    assert_int_equal(index, chosen->n++);
    chosen->scores[index] = *score;
    for (size_t i = 0; score->has_room && i < item->n_choices; i++)
        chosen->sums[index][i] = score->log_likelihoods[i];
}

static struct mb_choices_report choose(const char *path, size_t n_parallel, struct chosen *chosen)
{
    struct mb_choices_options options = {.size = sizeof options,
                                         .n_parallel = n_parallel,
                                         .cache_type = MB_CACHE_F32,
                                         .choice = note_choice,
                                         .choice_ctx = chosen};
    struct mb_choices_report report;
    struct mb_task questions;
    struct mb_error err;
    *chosen = (struct chosen){0};
    if (mb_task_open(path, NULL, &questions, &err) != MB_OK ||
        mb_eval_choices(model, tokenizer, &questions, &options, &report, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(report.n, questions.n_choices);
    mb_task_close(&questions);
    return report;
}

/* tools/goldens/check_choices.py golden: questions of every form, one with a space at a context's end. */
static void choices_are_as_likely_as_in_lm_evaluation_harness(void **state)
{
    json_t *golden = json_load_file(DATA "/choices.json", 0, NULL);
    struct chosen chosen;
    (void)state;
    struct mb_choices_report report = choose(DATA "/choices.jsonl", 0, &chosen);
    assert_int_equal(json_array_size(golden), N_CHOICE_QUESTIONS);
    for (size_t i = 0; i < N_CHOICE_QUESTIONS; i++) {
        const json_t *sums = json_array_get(golden, i);
        for (size_t k = 0; k < json_array_size(sums); k++)
            assert_true(fabs(chosen.sums[i][k] - json_real_value(json_array_get(sums, k))) < 1e-3);
    }
    /* "12" is the likeliest, and a long choice the likeliest by its length. */
    assert_true(chosen.scores[0].chosen == 1 && chosen.scores[0].chosen_norm == 2 && !chosen.scores[0].acc);
    assert_true(chosen.scores[5].chosen == 1 && chosen.scores[5].chosen_norm == 2 &&
                chosen.scores[5].acc_norm && chosen.scores[5].acc_bytes && !chosen.scores[5].acc);
    assert_int_equal(report.n_acc, 1);
    json_decref(golden);
}

static void choices_do_not_depend_on_the_batch(void **state)
{
    static const size_t n_parallels[] = {1, 2, 4, 100};
    struct chosen first, again;
    (void)state;
    choose(DATA "/choices.jsonl", 0, &first);
    for (size_t i = 0; i < sizeof n_parallels / sizeof *n_parallels; i++) {
        choose(DATA "/choices.jsonl", n_parallels[i], &again);
        assert_memory_equal(again.sums, first.sums, sizeof first.sums);
    }
}

/* The four letters after one question are one pass, and a question that begins like the last one reads less.
 */
static void what_choices_share_is_computed_once(void **state)
{
    static const char question[] = "{\"subject\": \"sums\", \"question\": \"What is 2 + 3?\", \"choices\": "
                                   "[\"4\", \"5\", \"6\", \"7\"], \"answer\": 1}\n";
    struct chosen chosen;
    int32_t *ids;
    size_t n;
    struct mb_error err;
    struct mb_task questions;
    (void)state;
    test_write_text(test_path("."), "one.jsonl", question);
    struct mb_choices_report report = choose(test_path("one.jsonl"), 1, &chosen);
    assert_int_equal(mb_task_open(test_path("one.jsonl"), NULL, &questions, &err), MB_OK);
    const char *context = questions.choices[0].contexts[0];
    assert_int_equal(mb_tokenizer_encode(tokenizer, context, strlen(context), true, &ids, &n, &err), MB_OK);
    assert_int_equal(report.n_tokens_computed, n);
    free(ids);
    mb_task_close(&questions);
    char both[2 * sizeof question];
    snprintf(both, sizeof both, "%s%s", question, question);
    test_write_text(test_path("."), "two.jsonl", both);
    report = choose(test_path("two.jsonl"), 1, &chosen);
    assert_int_equal(report.n_tokens_computed, n + 1);
    assert_memory_equal(chosen.sums[0], chosen.sums[1], sizeof chosen.sums[0]);
}

static void questions_longer_than_the_context_are_counted(void **state)
{
    char text[8192] = "{\"question\": \"";
    struct chosen chosen;
    struct told told = {0};
    struct mb_task long_task;
    struct mb_error err;
    struct mb_eval_report replies;
    (void)state;
    for (size_t i = 0; i < 300; i++)
        strcat(text, "pears and "); /* NOLINT(clang-analyzer-security.insecureAPI.strcpy): 3000 bytes */
    size_t n = strlen(text);
    snprintf(text + n, sizeof text - n, "\", \"choices\": [\"a\", \"b\"], \"answer\": 0}\n" CHOICE_QUESTION);
    test_write_text(test_path("."), "long.jsonl", text);
    struct mb_choices_report report = choose(test_path("long.jsonl"), 0, &chosen);
    assert_true(report.n == 2 && report.n_no_room == 1 && !chosen.scores[0].has_room &&
                !chosen.scores[0].acc);
    assert_true(chosen.scores[1].has_room);
    snprintf(text + n, sizeof text - n, "\", \"answer\": 0}\n{\"question\": \"Q\", \"answer\": 1}");
    test_write_text(test_path("."), "long.jsonl", text);
    struct mb_eval_options options = {.size = sizeof options, .reply = note_dead, .reply_ctx = &told};
    assert_int_equal(mb_task_open(test_path("long.jsonl"), NULL, &long_task, &err), MB_OK);
    assert_int_equal(mb_eval_task(model, tokenizer, &long_task, &options, &replies, &err), MB_OK);
    assert_true(replies.n == 2 && replies.n_no_room == 1 && replies.n_dead >= 1 && told.n == 1);
    mb_task_close(&long_task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_answers_its_questions),
        cmocka_unit_test(replies_do_not_depend_on_the_batch),
        cmocka_unit_test(long_replies_are_cut),
        cmocka_unit_test_setup_teardown(ids_in_a_hole_have_no_text, test_folder_begin, test_folder_end),
        cmocka_unit_test(sizes_of_options_are_checked),
        cmocka_unit_test(progress_may_stop),
        cmocka_unit_test(perplexity_is_that_of_torch),
        cmocka_unit_test(choices_are_as_likely_as_in_lm_evaluation_harness),
        cmocka_unit_test(choices_do_not_depend_on_the_batch),
        cmocka_unit_test_setup_teardown(what_choices_share_is_computed_once, test_folder_begin,
                                        test_folder_end),
        cmocka_unit_test_setup_teardown(questions_longer_than_the_context_are_counted, test_folder_begin,
                                        test_folder_end),
        cmocka_unit_test(perplexity_refuses_what_it_cannot_do),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
