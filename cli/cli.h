/*
 * cli.h - what the verbs share: options, errors, tables, progress.
 *
 * A verb is one function in a file of its own.  Data goes to stdout, words to stderr.  Exit status: 0 done, 1
 * the answer is no, 2 wrong usage, 3 bad input, 4 the machine (no memory, disk, permission, interrupted).
 */
#ifndef MOEBIUS_CLI_H
#define MOEBIUS_CLI_H

#include <moebius/engine.h>
#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A line of "moebius --help". */
struct cli_verb {
    const char *name, *args, *help;
    int (*run)(int argc, char **argv);
};

/* The verbs, each called with argv[0] = its own name. Returns the exit status. */
int cli_inspect(int argc, char **argv);
int cli_compress(int argc, char **argv);
int cli_plan(int argc, char **argv);
int cli_verify(int argc, char **argv);
int cli_decompress(int argc, char **argv);
int cli_run(int argc, char **argv);
int cli_chat(int argc, char **argv);
int cli_eval(int argc, char **argv);
int cli_sweep(int argc, char **argv);
int cli_report(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_trace(int argc, char **argv);
int cli_simulate(int argc, char **argv);
int cli_tokenize(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_bench_kernels(int argc, char **argv); /* "bench kernels"; argv[0] = "kernels" */
int cli_bench_codecs(int argc, char **argv);  /* "bench codecs"; argv[0] = "codecs" */
int cli_bench_model(int argc, char **argv);   /* "bench MODEL"; argv[0] = "bench" */

/* Writes man pages and bash completion. 'all_verbs' ends with a name NULL; 'usage_notes' are the help's last
 * lines. */
int cli_manual(const struct cli_verb *all_verbs, const char *usage_notes, int argc, char **argv);

/* ---------------------------------------------------------------- options (options.c) */

enum cli_type {
    CLI_FLAG,    /* bool */
    CLI_INT,     /* int, within [min, max] */
    CLI_UINT64,  /* uint64_t, within [min, max] */
    CLI_DOUBLE,  /* double, within [min, max] */
    CLI_STRING,  /* const char * */
    CLI_STRINGS, /* struct cli_strings: may be given several times */
    CLI_FORMAT,  /* enum cli_format, one of 'formats' */
};

enum cli_format { CLI_MD = 1, CLI_JSON = 2, CLI_CSV = 4, CLI_JSONL = 8 };

enum { CLI_STRINGS_MAX = 256, CLI_ARGS_MAX = 4 };

struct cli_strings {
    const char *items[CLI_STRINGS_MAX];
    size_t n;
};

struct cli_option {
    char letter;      /* 0: none */
    const char *name; /* without "--" */
    const char *arg;  /* what the help calls its value; NULL for flags */
    const char *help; /* one line; "\n" begins the next one */
    enum cli_type type;
    void *value;
    double min, max;  /* of numbers */
    unsigned formats; /* of CLI_FORMAT: enum cli_format, added up */
};

/*
 * Rows of a command's table. 'value' is the variable that gets the value: the compiler warns where its type
 * is not the row's.  'letter' 0: the option has none.
 */
#define CLI_VALUE(type_, value_) .value = (1 ? &(value_) : (type_ *)0)
#define CLI_RANGE(min_, max_) .min = (min_), .max = (max_)
#define CLI_ROW(letter_, name_, arg_, help_, ...)                                         \
    {                                                                                     \
        .letter = (letter_), .name = (name_), .arg = (arg_), .help = (help_), __VA_ARGS__ \
    }

#define CLI_ROW_FLAG(letter, name, value, help) \
    CLI_ROW(letter, name, NULL, help, .type = CLI_FLAG, CLI_VALUE(bool, value))
#define CLI_ROW_TEXT(letter, name, arg, value, help) \
    CLI_ROW(letter, name, arg, help, .type = CLI_STRING, CLI_VALUE(const char *, value))
#define CLI_ROW_TEXTS(letter, name, arg, value, help) \
    CLI_ROW(letter, name, arg, help, .type = CLI_STRINGS, CLI_VALUE(struct cli_strings, value))
#define CLI_ROW_INT(letter, name, arg, value, min, max, help) \
    CLI_ROW(letter, name, arg, help, .type = CLI_INT, CLI_VALUE(int, value), CLI_RANGE(min, max))
#define CLI_ROW_UINT64(letter, name, arg, value, min, max, help) \
    CLI_ROW(letter, name, arg, help, .type = CLI_UINT64, CLI_VALUE(uint64_t, value), CLI_RANGE(min, max))
#define CLI_ROW_DOUBLE(letter, name, arg, value, min, max, help) \
    CLI_ROW(letter, name, arg, help, .type = CLI_DOUBLE, CLI_VALUE(double, value), CLI_RANGE(min, max))

/* Rows that several commands have. */
#define CLI_ROW_THREADS(value) \
    CLI_ROW_INT('t', "threads", "N", value, 1, 256, "threads (default: as CPUs and cgroup quotas allow)")
#define CLI_ROW_ACTIVATIONS(value)                                                                 \
    CLI_ROW_TEXT(0, "activations", "FORM", value,                                                  \
                 "vectors that meet coded weights: exact (16 bits), fast (8), or auto (default:\n" \
                 "fast where weights have 5 bits or fewer)")
#define CLI_ROW_FORMAT(arg, value, formats_, help)                                           \
    CLI_ROW('o', "output", arg, help, .type = CLI_FORMAT, CLI_VALUE(enum cli_format, value), \
            .formats = (formats_))

/* The value of --activations, NULL: not given. false: it is none of the words. */
bool cli_activations(const char *text, enum mb_activation_form *form);
#define CLI_ACTIVATIONS_WORDS "--activations is auto, exact or fast"

/* What every command has: -m MODEL and -h. */
enum { CLI_N_COMMON = 2 };
extern const struct cli_option cli_common_options[CLI_N_COMMON];

/* Values keep what they hold when their option is not given. */
struct cli_command {
    const char *name;    /* "compress" */
    const char *args;    /* "MODEL OUT [options]" */
    const char *summary; /* one sentence for the list of verbs */
    const char *details; /* paragraphs under the usage line, examples among them; may be NULL */
    const struct cli_option *options;
    size_t n_options;
    size_t n_args_min, n_args_max; /* positional arguments; "-m MODEL" gives the first one too */
};

/*
 * Parses argv with getopt_long. true: go on with args[0 .. *n_args). false: the verb returns *exit_status
 * (0 after --help, 2 after a usage error, which was printed).
 */
bool cli_parse(const struct cli_command *command, int argc, char **argv, const char *args[CLI_ARGS_MAX],
               size_t *n_args, int *exit_status);

/*
 * Calls 'fn' with the command that cli_parse gets when a verb is called with these words; nothing is parsed
 * and the verb returns at once.  So that help pages are made from the same tables as the parser's.
 */
typedef void (*cli_describe_fn)(void *ctx, const struct cli_command *command);
void cli_describe(int (*verb)(int argc, char **argv), int argc, char **argv, cli_describe_fn fn, void *ctx);

/* Prints "moebius NAME: what is wrong" and where help is; returns 2. */
int cli_usage_error(const struct cli_command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---------------------------------------------------------------- output (output.c) */

/* Prints "moebius: MESSAGE" to stderr; returns the exit status. */
int cli_fail(const struct mb_error *err);

/* Returns p. Where p is NULL, memory is out: prints so and ends the program with exit status 4. */
void *cli_check_memory(void *p);

/* A table as aligned markdown. Cells are added row by row; align has 'l' or 'r' for each column. */
struct cli_table;
struct cli_table *cli_table_new(const char *align, const char *const *heads);
void cli_table_cell(struct cli_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cli_table_print(struct cli_table *table); /* to stdout; frees it */

/* "34.1 MB" (powers of 1000), and "1.2 s", "3 min 20 s". */
const char *cli_bytes(char text[32], uint64_t nbytes);
const char *cli_seconds(char text[32], double seconds);

/* ---------------------------------------------------------------- files (file.c) */

/* A whole file, or stdin when path is "-". *text is malloc'ed and terminated; NULL after an error. */
enum mb_status cli_read_text(const char *path, char **text, size_t *nbytes, struct mb_error *err);

/* ---------------------------------------------------------------- progress and interrupts (progress.c) */

/* One line on stderr while it is a terminal: what, bar, share, rate, time left. */
struct cli_progress {
    const char *unit; /* "B" for bytes, else a plural: "questions" */
    uint64_t begun_ns, shown_ns;
    bool is_terminal, is_shown;
};

void cli_progress_begin(struct cli_progress *progress, const char *unit);

/* An mb_progress_fn; ctx is a struct cli_progress. true when Ctrl-C was pressed. */
bool cli_progress_show(void *ctx, const char *what, uint64_t done, uint64_t total);
void cli_progress_end(struct cli_progress *progress);

/* From now on SIGINT and SIGTERM only set a flag; a second one ends the program at once. */
void cli_catch_interrupts(void);
bool cli_interrupted(void);

/* The same for a program that goes on after a SIGINT: none ends it, and it forgets each that it has seen. */
void cli_keep_interrupts(void);
bool cli_wait_for_input(int file); /* false: a signal came, seen by cli_interrupted if it is one of these */
bool cli_forget_interrupt(void);   /* false: there was none, or it is a SIGTERM, which stays */

double cli_seconds_since(uint64_t begun_ns); /* of mb_now_ns() */

#endif
