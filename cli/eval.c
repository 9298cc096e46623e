/*
 * eval.c - the verb "eval": answers to a task, perplexity of a text, KL to another model, or logits.
 */
#include "eval.h"
#include "base/error.h"
#include "eval_perturb.h"
#include "expert_profile.h"
#include "memory.h"
#include "report.h"
#include "timeline.h"
#include <string.h>

static struct eval_args args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT(0, "task", "FILE.jsonl", args.task, "answer the questions of FILE and score the replies"),
    CLI_ROW_TEXT(0, "perplexity", "FILE", args.perplexity, "perplexity of the text in FILE"),
    CLI_ROW_TEXT(0, "kl-divergence", "ORIGINAL", args.original,
                 "how far MODEL is from ORIGINAL on --perplexity's text, or on the replies in --task's file"),
    CLI_ROW_TEXT(0, "tokens", "FILE", args.tokens,
                 "feed these tokens: decimal ids, white space between; needs --logits"),
    CLI_ROW_TEXT(0, "logits", "OUT.npy", args.logits,
                 "where --tokens puts its logits: float32 [tokens, vocabulary]"),
    CLI_ROW_INT(0, "limit", "N", args.limit, 1, 1e9, "only the first N questions, or windows of text"),
    CLI_ROW_INT(0, "few-shot", "N", args.n_examples, 1, 1e6, "put N answered questions before each"),
    CLI_ROW_TEXT(0, "examples", "FILE.jsonl", args.examples,
                 "whose first questions those are (default: the task's, which are then not asked)"),
    CLI_ROW_INT('c', "ctx-size", "N", args.n_ctx, 4, 1e9,
                "tokens in a window of text (default: 512, or the model's context)"),
    CLI_ROW_INT('n', "predict", "N", args.n_predict, 1, 1e6, "most tokens in a reply (default 256)"),
    CLI_ROW_INT(0, "parallel", "N", args.n_parallel, 1, 4096,
                "questions answered at once (default 16); replies do not depend on it"),
    CLI_ROW_TEXT(0, "cache-type", "TYPE", args.cache, "f16 (default) or f32: what the attention cache holds"),
    CLI_ROW_ACTIVATIONS(args.activations),
    CLI_ROW_THREADS(args.n_threads),
    CLI_ROW_MEMORY(args.memory),
    CLI_ROW_EXPERT_PROFILE(args.expert_profile),
    CLI_ROW_TIMELINE(args.timeline),
    CLI_ROW_TEXT(0, "replies", "FILE.jsonl", args.replies, "write every reply and its score, one a line"),
    CLI_ROW_TEXT(0, "against", "FILE.jsonl", args.against,
                 "compare with another run on these questions: what its --replies wrote"),
    CLI_ROW_FLAG(0, "strict", args.is_strict,
                 "stop at a malformed line of the task instead of leaving it out"),
    CLI_ROW_TEXTS(
        0, "perturb", "'SELECTION: ERROR'", args.perturb,
        "put an error into weights first, as in 'layer=4 experts=0: normal 80%'; may be given again"),
    CLI_ROW_UINT64(0, "seed", "N", args.seed, 0, 9007199254740992.0, "of random errors (default 0)"),
    CLI_ROW_TEXT(0, "profile", "FILE.json", args.profile,
                 "which experts are used how much, for selections like experts=top1"),
    CLI_ROW_TEXT(0, "profile-out", "FILE.json", args.profile_out,
                 "write which experts were used how much: a profile"),
    CLI_ROW_FORMAT("md|json", args.format, CLI_MD | CLI_JSON, "table (default) or JSON"),
};

static const struct cli_command command = {
    .name = "eval",
    .args = "MODEL [--kl-divergence ORIGINAL] --task FILE.jsonl | --perplexity FILE | --tokens FILE --logits "
            "OUT.npy",
    .summary =
        "Measure a model: right answers with 95 % intervals, perplexity, KL to another, or raw logits.",
    .details =
        "A task is JSON lines (or an array) in the form of GSM8K, MATH or SVAMP, or any 'question' with its\n"
        "'answer': replies are greedy, ICA counts right answers in the asked format, PIA right ones in any.\n"
        "Multiple choice (ARC, MMLU, Winogrande, AQuA) goes by log-likelihood, as in lm-evaluation-harness.\n"
        "docs/scoring.md has all forms and rules.\n\n"
        "--few-shot N puts N questions with their answers before each: turns of the chat, or, of multiple\n"
        "choice, text as in lm-evaluation-harness (--num_fewshot); of MMLU those of the same subject.\n\n"
        "  moebius eval models/reference --task models/reference/eval.jsonl --limit 200\n"
        "  moebius eval models/reference --task test.jsonl --against replies.jsonl\n"
        "  moebius eval models/reference --perplexity book.txt -c 256\n"
        "  moebius eval CODED --kl-divergence ORIGINAL --perplexity book.txt\n\n"
        "With --kl-divergence both models read the same tokens, and no file of logits is written. A file of\n"
        "replies is what --replies writes; questions with an 'answer' will do. ORIGINAL may be MODEL "
        "itself:\n"
        "that is the floor, its cache in f16 against f32 (docs/lab.md).\n\n"
        "--perturb puts errors into chosen weights, in memory alone: normal, uniform, codec, codec:NAME and\n"
        "gauss-iso with a bound, random, zero and drop. With --kl-divergence MODEL the model is compared "
        "with\n"
        "itself before the error. Words for selections and errors: docs/lab.md.\n\n"
        "  moebius eval models/reference --task models/reference/eval.jsonl --limit 50 --profile-out p.json\n"
        "  moebius eval models/reference --task models/reference/eval.jsonl --profile p.json \\\n"
        "      --perturb 'layers=1-4 experts=top1: normal 80%' --seed 1\n"
        "  moebius eval models/reference --perplexity book.txt --kl-divergence models/reference \\\n"
        "      --perturb 'layer=last experts=all: codec 200%'",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

/* Compared with itself, the model is measured before the error goes in. */
static enum mb_status measure_open(const struct eval *eval, struct mb_error *err)
{
    if (args.original == NULL || strcmp(args.original, eval->model_path) != 0)
        MB_TRY(eval_perturb_apply(eval, err));
    MB_TRY(args.original != NULL     ? eval_kl(eval, err)
           : args.task != NULL       ? eval_task(eval, err)
           : args.perplexity != NULL ? eval_perplexity(eval, err)
                                     : eval_logits(eval, err));
    return eval_perturb_finish(eval, err);
}

static enum mb_status measure(struct eval *eval, struct mb_error *err)
{
    struct mb_model_options model_options = {.size = sizeof model_options,
                                             .n_threads = args.n_threads,
                                             .activations = eval->activations,
                                             .cache_type = eval->cache_type,
                                             .timeline = cli_timeline_hook()};
    cli_memory(args.memory, &model_options.memory_nbytes);
    eval_expect_sessions(&args, &model_options);
    MB_TRY(cli_open_model(eval->model_path, args.expert_profile, &model_options, &eval->model, err));
    cli_print_notes(mb_model_info(eval->model)->notes);
    cli_print_mode(mb_model_info(eval->model), args.memory != NULL);
    cli_catch_interrupts(); /* only now: while the model loads nothing looks at the flag */
    cli_stop_at_interrupts(eval->model);
    enum mb_status status = eval_perturb_open(eval, err);
    if (status == MB_OK)
        status = measure_open(eval, err);
    eval_perturb_close(eval);
    cli_print_reads(eval->model);
    mb_model_close(eval->model);
    return status;
}

/* --tokens needs no tokenizer: folders without one can be measured too. */
static enum mb_status run(struct eval *eval, struct mb_error *err)
{
    struct mb_tokenizer *tokenizer = NULL;
    MB_TRY(mb_checkpoint_look(eval->model_path, err)); /* first: it says more about what is no model */
    if (args.tokens == NULL)
        MB_TRY(mb_tokenizer_open(eval->model_path, &tokenizer, err));
    eval->tokenizer = tokenizer;
    enum mb_status status = measure(eval, err);
    mb_tokenizer_close(tokenizer);
    return status;
}

/* What a table of options cannot say: which go together. NULL when all is well. */
static const char *find_contradiction(void)
{
    uint64_t memory_nbytes;
    if (!cli_memory(args.memory, &memory_nbytes))
        return CLI_MEMORY_WORDS;
    if ((args.task != NULL) + (args.perplexity != NULL) + (args.tokens != NULL) != 1)
        return "give one of --task, --perplexity and --tokens";
    if (args.original != NULL && args.tokens != NULL)
        return "--kl-divergence goes with --perplexity or --task";
    if (args.original != NULL && (args.replies != NULL || args.against != NULL || args.n_predict != 0 ||
                                  args.n_parallel != 0 || args.is_strict))
        return "--replies, --against, --predict, --parallel and --strict do not go with --kl-divergence: "
               "nothing is "
               "generated";
    if ((args.tokens != NULL) != (args.logits != NULL))
        return "--tokens and --logits need each other";
    if (args.task == NULL && (args.replies != NULL || args.against != NULL || args.n_predict != 0 ||
                              args.n_parallel != 0 || args.is_strict))
        return "--replies, --against, --predict, --parallel and --strict go with --task";
    if ((args.task == NULL || args.original != NULL) && args.n_examples != 0)
        return "--few-shot goes with --task, and not with --kl-divergence";
    if (args.examples != NULL && args.n_examples == 0)
        return "--examples needs --few-shot: how many of them";
    if (args.perplexity == NULL && args.n_ctx != 0)
        return "-c goes with --perplexity";
    if (args.tokens != NULL && args.limit != 0)
        return "--limit goes with --task or --perplexity";
    if (args.perturb.n == 0 && (args.profile != NULL || args.seed != 0))
        return "--profile and --seed go with --perturb";
    if (args.original != NULL && args.profile_out != NULL)
        return "--profile-out does not go with --kl-divergence";
    if (args.cache != NULL && strcmp(args.cache, "f16") != 0 && strcmp(args.cache, "f32") != 0)
        return "--cache-type is f16 or f32";
    return NULL;
}

int cli_eval(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args;
    int exit_status;
    struct mb_error err;
    args.format = CLI_MD;
    if (!cli_parse(&command, argc, argv, positional, &n_args, &exit_status))
        return exit_status;
    const char *contradiction = find_contradiction();
    if (contradiction != NULL)
        return cli_usage_error(&command, "%s", contradiction);
    enum mb_cache_type cache_type =
        args.cache != NULL && strcmp(args.cache, "f32") == 0 ? MB_CACHE_F32 : MB_CACHE_F16;
    struct eval eval = {.args = &args, .model_path = positional[0], .cache_type = cache_type};
    if (!cli_activations(args.activations, &eval.activations))
        return cli_usage_error(&command, CLI_ACTIVATIONS_WORDS);
    enum mb_status status = cli_timeline_begin(args.timeline, eval.model_path, &err);
    if (status == MB_OK)
        status = run(&eval, &err);
    return cli_timeline_end(status == MB_OK ? 0 : cli_fail(&err));
}
