/*
 * main.c - the table of verbs.
 */
#include "cli.h"
#include <jansson.h>
#include <moebius/codec.h>
#include <moebius/version.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const struct cli_verb verbs[] = {
    {"inspect", "MODEL [--experts]", "what a model folder holds, part by part", cli_inspect},
    {"compress", "MODEL OUT", "write a coded folder in which every weight keeps to an error bound",
     cli_compress},
    {"plan", "MODEL -o FILE.json", "a bound for each matrix, for a size or a loss that is wanted", cli_plan},
    {"verify", "CODED [ORIGINAL]", "is a coded folder sound, and does every weight keep to its bound?",
     cli_verify},
    {"decompress", "CODED OUT", "write an ordinary checkpoint that any program reads", cli_decompress},
    {"run", "MODEL -p PROMPT", "continue a text, or answer a message (--chat)", cli_run},
    {"chat", "MODEL", "talk with a model in the terminal", cli_chat},
    {"eval", "MODEL --task FILE", "score a model's answers, or its perplexity", cli_eval},
    {"sweep", "MODEL -o FILE.db", "measure a model with errors in chosen weights, run after run", cli_sweep},
    {"report", "RESULTS.db", "show what a sweep measured: a page, JSON or CSV", cli_report},
    {"doctor", "MODEL [--memory SIZE]",
     "what fits into memory, and how fast it would be, before it is loaded", cli_doctor},
    {"trace", "MODEL -o FILE", "record which experts each token uses", cli_trace},
    {"simulate", "TRACE | --random SPEC",
     "what cache policies find in memory, and how fast tokens would come", cli_simulate},
    {"tokenize", "MODEL [--decode] < TEXT", "token ids of a text, and back", cli_tokenize},
    {"bench", "MODEL | kernels",
     "tokens per second of a model; or how fast this machine multiplies and encodes", cli_bench},
    {0}, /* the end */
};

static const char usage_notes[] =
    "MODEL is a Hugging Face folder, plain or coded.\n"
    "Exit status: 0 done, 1 the answer is no, 2 wrong usage, 3 bad input, 4 "
    "the machine failed (memory, disk).\n"
    "MOEBIUS_CPU=-amx,-zen4,-avx512,-avxvnni,-avx2 (ARM: -i8mm,-dotprod,-neon) disables instruction sets.";

static void print_usage(FILE *out)
{
    fputs("Moebius " MB_VERSION
          ": error-bounded compressed Mixture-of-Experts models\n\nusage: moebius VERB ...\n\n",
          out);
    for (const struct cli_verb *verb = verbs; verb->name != NULL; verb++)
        fprintf(out, "  %-10s %-24s %s\n", verb->name, verb->args, verb->help);
    fprintf(out, "\nmoebius VERB --help describes the options.\n%s\n", usage_notes);
}

/* Buffered output may still fail to be written: a full disk must not look like success. */
static int flush_output(int exit_status)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("moebius: standard output");
        return exit_status == 0 ? 4 : exit_status;
    }
    return exit_status;
}

static int run_verb(int argc, char **argv)
{
    struct mb_error err;
    if (mb_cpu_check(&err) != MB_OK)
        return cli_fail(&err);
    if (strcmp(argv[0], "manual") == 0) /* not listed: the build calls it */
        return cli_manual(verbs, usage_notes, argc, argv);
    for (const struct cli_verb *verb = verbs; verb->name != NULL; verb++)
        if (strcmp(argv[0], verb->name) == 0)
            return verb->run(argc, argv);
    fprintf(stderr, "moebius: unknown verb '%s' (see moebius --help)\n", argv[0]);
    return 2;
}

/* jansson can lose a character where memory is out (base/json.h): it gets its memory, or the program ends. */
static void *json_malloc(size_t nbytes)
{
    return cli_check_memory(malloc(nbytes));
}

/*
 * All files of a model are open at the same time, and a shell's usual limit is 1,024.  Where the limit cannot
 * be raised, opening a file fails later with a message.
 */
static void allow_many_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    allow_many_files();
    signal(SIGXFSZ,
           SIG_IGN); /* a file that may not grow is an error of a write, not the end of the program */
    json_set_alloc_funcs(json_malloc, free);
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return flush_output(0);
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("moebius " MB_VERSION);
        return flush_output(0);
    }
    return flush_output(run_verb(argc - 1, argv + 1));
}
