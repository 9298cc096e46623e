/*
 * options.c - one way to parse options and to print help, from the verbs' tables.
 */
#include "base/number.h"
#include "cli.h"
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_OPTIONS_MAX = 40, FIRST_LONG = 1000, OPTION_WIDTH = 26 };

static const struct {
    enum cli_format format;
    const char *name;
} formats[] = {{CLI_MD, "md"}, {CLI_JSON, "json"}, {CLI_CSV, "csv"}, {CLI_JSONL, "jsonl"}};

const struct cli_option cli_common_options[CLI_N_COMMON] = {
    {.letter = 'm',
     .name = "model",
     .arg = "MODEL",
     .help = "the first argument, as an option (as in llama.cpp)",
     .type = CLI_STRING},
    {.letter = 'h', .name = "help", .help = "print this and exit", .type = CLI_FLAG},
};

static void print_option(const struct cli_option *option)
{
    char left[80];
    char short_form[8] = "    ";
    if (option->letter != 0)
        snprintf(short_form, sizeof short_form, "-%c, ", option->letter);
    snprintf(left, sizeof left, "  %s--%s%s%s", short_form, option->name, option->arg == NULL ? "" : " ",
             option->arg == NULL ? "" : option->arg);
    if (strlen(left) > OPTION_WIDTH)
        printf("%s\n%*s", left, OPTION_WIDTH + 2, "");
    else
        printf("%-*s", OPTION_WIDTH + 2, left);
    for (const char *line = option->help; line != NULL;) {
        const char *end = strchr(line, '\n');
        printf("%.*s\n", end == NULL ? (int)strlen(line) : (int)(end - line), line);
        if (end != NULL)
            printf("%*s", OPTION_WIDTH + 2, "");
        line = end == NULL ? NULL : end + 1;
    }
}

static void print_help(const struct cli_command *command)
{
    printf("usage: moebius %s %s\n\n%s\n", command->name, command->args, command->summary);
    if (command->details != NULL)
        printf("\n%s\n", command->details);
    printf("\noptions:\n");
    for (size_t i = 0; i < command->n_options; i++)
        print_option(&command->options[i]);
    for (size_t i = 0; i < CLI_N_COMMON; i++)
        print_option(&cli_common_options[i]);
}

int cli_usage_error(const struct cli_command *command, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "moebius %s: ", command->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " (see moebius %s --help)\n", command->name);
    return 2;
}

static bool bad_value(const struct cli_command *command, const struct cli_option *option, const char *text)
{
    if (option->type == CLI_INT || option->type == CLI_UINT64 || option->type == CLI_DOUBLE)
        cli_usage_error(command, "--%s '%s': not a number from %.10g to %.10g", option->name, text,
                        option->min, option->max);
    else if (option->type == CLI_FORMAT)
        cli_usage_error(command, "--%s '%s': not one of %s", option->name, text, option->arg);
    else
        cli_usage_error(command, "--%s '%s': given more than %d times", option->name, text, CLI_STRINGS_MAX);
    return false;
}

static bool set_number(const struct cli_command *command, const struct cli_option *option, const char *text)
{
    char *end;
    errno = 0;
    if (option->type == CLI_DOUBLE) {
        double value;
        if (!mb_number_parse(text, strlen(text), &value) || !(value >= option->min && value <= option->max))
            return bad_value(command, option, text);
        *(double *)option->value = value;
        return true;
    }
    if (option->type == CLI_INT) {
        long value = strtol(text, &end, 10);
        if (errno != 0 || end == text || *end != '\0' || (double)value < option->min ||
            (double)value > option->max)
            return bad_value(command, option, text);
        *(int *)option->value = (int)value;
        return true;
    }
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || strchr(text, '-') != NULL ||
        (double)value < option->min || (double)value > option->max)
        return bad_value(command, option, text);
    *(uint64_t *)option->value = value;
    return true;
}

static bool set_format(const struct cli_command *command, const struct cli_option *option, const char *text)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(text, formats[i].name) == 0 && (option->formats & formats[i].format) != 0) {
            *(enum cli_format *)option->value = formats[i].format;
            return true;
        }
    return bad_value(command, option, text);
}

static bool set_value(const struct cli_command *command, const struct cli_option *option, const char *text)
{
    switch (option->type) {
    case CLI_FLAG:
        *(bool *)option->value = true;
        return true;
    case CLI_STRING:
        *(const char **)option->value = text;
        return true;
    case CLI_STRINGS: {
        struct cli_strings *strings = option->value;
        if (strings->n == CLI_STRINGS_MAX)
            return bad_value(command, option, text);
        strings->items[strings->n++] = text;
        return true;
    }
    case CLI_FORMAT:
        return set_format(command, option, text);
    default:
        return set_number(command, option, text);
    }
}

/* getopt_long's tables: a leading '+' is absent, so options and arguments may be mixed. */
static void make_tables(const struct cli_command *command, struct option longs[N_OPTIONS_MAX + 3],
                        char letters[2 * N_OPTIONS_MAX + 8])
{
    size_t n = 0;
    char *letter = letters;
    *letter++ = ':';
    for (; n < command->n_options && n < N_OPTIONS_MAX; n++) {
        const struct cli_option *option = &command->options[n];
        bool has_arg = option->type != CLI_FLAG;
        longs[n] = (struct option){option->name, has_arg ? required_argument : no_argument, NULL,
                                   FIRST_LONG + (int)n};
        if (option->letter != 0) {
            *letter++ = option->letter;
            if (has_arg)
                *letter++ = ':';
        }
    }
    longs[n++] = (struct option){"model", required_argument, NULL, 'm'};
    longs[n++] = (struct option){"help", no_argument, NULL, 'h'};
    longs[n] = (struct option){0};
    memcpy(letter, "m:h", 4);
}

static const struct cli_option *find_option(const struct cli_command *command, int code)
{
    if (code >= FIRST_LONG)
        return &command->options[code - FIRST_LONG];
    for (size_t i = 0; i < command->n_options; i++)
        if (command->options[i].letter == code)
            return &command->options[i];
    return NULL;
}

static bool parse_options(const struct cli_command *command, int argc, char **argv, const char **model,
                          int *exit_status)
{
    struct option longs[N_OPTIONS_MAX + 3];
    char letters[2 * N_OPTIONS_MAX + 8];
    make_tables(command, longs, letters);
    optind = 0;
    *exit_status = 2;
    for (int code; (code = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        if (code == 'h') {
            print_help(command);
            *exit_status = 0;
            return false;
        }
        if (code == '?' || code == ':') {
            cli_usage_error(command, code == '?' ? "unknown option '%s'" : "'%s' needs a value",
                            argv[optind - 1]);
            return false;
        }
        if (code == 'm')
            *model = optarg;
        else if (!set_value(command, find_option(command, code), optarg))
            return false;
    }
    return true;
}

static cli_describe_fn describe; /* NULL: commands are parsed */
static void *describe_ctx;

void cli_describe(int (*verb)(int argc, char **argv), int argc, char **argv, cli_describe_fn fn, void *ctx)
{
    describe = fn;
    describe_ctx = ctx;
    verb(argc, argv);
    describe = NULL;
}

bool cli_parse(const struct cli_command *command, int argc, char **argv, const char *args[CLI_ARGS_MAX],
               size_t *n_args, int *exit_status)
{
    const char *model = NULL;
    if (describe != NULL) {
        describe(describe_ctx, command);
        *exit_status = 0;
        return false;
    }
    if (!parse_options(command, argc, argv, &model, exit_status))
        return false;
    *n_args = 0;
    if (model != NULL)
        args[(*n_args)++] = model;
    for (int i = optind; i < argc; i++) {
        if (*n_args >= command->n_args_max || *n_args >= CLI_ARGS_MAX) {
            *exit_status = cli_usage_error(command, "argument '%s' is one too many", argv[i]);
            return false;
        }
        args[(*n_args)++] = argv[i];
    }
    if (*n_args < command->n_args_min) {
        *exit_status = cli_usage_error(command, "usage: moebius %s %s", command->name, command->args);
        return false;
    }
    return true;
}
