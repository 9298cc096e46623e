/*
 * manual.c - the verb "manual", which the build calls: man pages and bash completion, made from the tables
 * that the parser uses.
 */
#include "cli.h"
#include <errno.h>
#include <moebius/version.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What cli_manual was called with. */
static const struct cli_verb *verbs;
static const char *notes;

/* Every command that has a help page: the verbs, and "bench kernels" and "bench codecs", further pages of
 * one. */
static void each_command(cli_describe_fn fn, void *ctx)
{
    for (const struct cli_verb *verb = verbs; verb->name != NULL; verb++)
        cli_describe(verb->run, 1, (char *[]){(char *)verb->name, NULL}, fn, ctx);
    cli_describe(cli_bench, 2, (char *[]){"bench", "kernels", NULL}, fn, ctx);
    cli_describe(cli_bench, 2, (char *[]){"bench", "codecs", NULL}, fn, ctx);
}

/* ---------------------------------------------------------------- man pages */

/* Text in which roff sees no command: backslashes, hyphens, and a line that begins with a dot or a quote. */
static void put_text(FILE *out, const char *text, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i++) {
        if ((text[i] == '.' || text[i] == '\'') && (i == 0 || text[i - 1] == '\n'))
            fputs("\\&", out);
        if (text[i] == '\\')
            fputs("\\e", out);
        else if (text[i] == '-')
            fputs("\\-", out);
        else
            putc(text[i], out);
    }
}

static void put_string(FILE *out, const char *text)
{
    put_text(out, text, strlen(text));
}

enum { PAGE_NAME_MAX = 64 };

/* The page of "bench kernels" is moebius-bench-kernels. */
static const char *page_name(char name[PAGE_NAME_MAX], const struct cli_command *command)
{
    snprintf(name, PAGE_NAME_MAX, "moebius-%s", command->name);
    for (char *p = name; *p != '\0'; p++)
        if (*p == ' ')
            *p = '-';
    return name;
}

static void put_head(FILE *out, const char *page, const char *summary)
{
    fputs(".TH \"", out);
    put_string(out, page);
    fputs("\" 1 \"\" \"Moebius " MB_VERSION "\" \"User Commands\"\n.SH NAME\n", out);
    put_string(out, page);
    fputs(" \\- ", out);
    put_string(out, summary);
    fputs("\n.SH SYNOPSIS\n", out);
}

/* Paragraphs as --help prints them: lines that begin with two spaces are examples and keep their form. */
static void put_paragraphs(FILE *out, const char *text)
{
    bool is_example = false;
    while (*text != '\0') {
        size_t nbytes = strcspn(text, "\n");
        bool was_example = is_example;
        is_example = strncmp(text, "  ", 2) == 0;
        if (is_example && !was_example)
            fputs(".nf\n", out);
        if (!is_example && was_example)
            fputs(".fi\n", out);
        if (nbytes == 0)
            fputs(".PP", out);
        else
            put_text(out, text, nbytes);
        putc('\n', out);
        text += nbytes;
        text += *text == '\n';
    }
    if (is_example)
        fputs(".fi\n", out);
}

static void put_option(FILE *out, const struct cli_option *option)
{
    fputs(".TP\n", out);
    if (option->letter != 0)
        fprintf(out, "\\fB\\-%c\\fR, ", option->letter);
    fputs("\\fB\\-\\-", out);
    put_string(out, option->name);
    fputs("\\fR", out);
    if (option->arg != NULL) {
        fputs(" \\fI", out);
        put_string(out, option->arg);
        fputs("\\fR", out);
    }
    putc('\n', out);
    put_string(out, option->help);
    putc('\n', out);
}

static void put_command_page(FILE *out, const char *page, const struct cli_command *command)
{
    put_head(out, page, command->summary);
    fprintf(out, ".B moebius %s\n", command->name);
    put_string(out, command->args);
    putc('\n', out);
    if (command->details != NULL) {
        fputs(".SH DESCRIPTION\n", out);
        put_paragraphs(out, command->details);
    }
    fputs(".SH OPTIONS\n", out);
    for (size_t i = 0; i < command->n_options; i++)
        put_option(out, &command->options[i]);
    for (size_t i = 0; i < CLI_N_COMMON; i++)
        put_option(out, &cli_common_options[i]);
    fputs(".SH SEE ALSO\n.BR moebius (1)\n", out);
}

static void put_main_page(FILE *out)
{
    put_head(out, "moebius", "error-bounded compressed Mixture-of-Experts models");
    fputs(".B moebius\nVERB ...\n.SH VERBS\nEach has a page of its own, moebius\\-VERB(1).\n", out);
    for (const struct cli_verb *verb = verbs; verb->name != NULL; verb++) {
        fprintf(out, ".TP\n\\fB%s\\fR ", verb->name);
        put_string(out, verb->args);
        putc('\n', out);
        put_string(out, verb->help);
        putc('\n', out);
    }
    fputs(".PP\n", out);
    put_paragraphs(out, notes);
}

/* ---------------------------------------------------------------- bash completion */

/* "md|json" as words; nothing when the value's name in the help is no list. */
static void put_choices(FILE *out, const struct cli_option *option)
{
    if (strchr(option->arg, '|') == NULL)
        return;
    for (const char *p = option->arg; *p != '\0'; p++)
        putc(*p == '|' ? ' ' : *p, out);
}

static bool is_file(const struct cli_option *option)
{
    static const char *const names[] = {"FILE", "MODEL", "FOLDER", "OUT"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(option->arg, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* What may follow an option: one of its choices, or nothing that could be known. Bash completes files by
 * itself. */
static void put_values(void *ctx, const struct cli_command *command)
{
    FILE *out = ctx;
    for (size_t i = 0; i < command->n_options; i++) {
        const struct cli_option *option = &command->options[i];
        if (option->arg == NULL || is_file(option))
            continue;
        fprintf(out, "    '%s --%s'", command->name, option->name);
        if (option->letter != 0)
            fprintf(out, " | '%s -%c'", command->name, option->letter);
        fputs(") echo '", out);
        put_choices(out, option);
        fputs("' ;;\n", out);
    }
}

static void put_options(void *ctx, const struct cli_command *command)
{
    FILE *out = ctx;
    fprintf(out, "    '%s') echo '", command->name);
    for (size_t i = 0; i < command->n_options; i++)
        fprintf(out, "--%s ", command->options[i].name);
    for (size_t i = 0; i < CLI_N_COMMON; i++)
        fprintf(out, "--%s%s", cli_common_options[i].name, i + 1 < CLI_N_COMMON ? " " : "' ;;\n");
}

/* An empty COMPREPLY means file names (complete -o default), unless compopt says otherwise. */
static void put_completion(FILE *out)
{
    fputs("# bash completion of moebius " MB_VERSION "\n\n"
          "_moebius_values() {\n    case \"$1 $2\" in\n",
          out);
    each_command(put_values, out);
    fputs("    *) return 1 ;;\n    esac\n}\n\n_moebius_options() {\n    case $1 in\n", out);
    each_command(put_options, out);
    fputs("    esac\n}\n\n"
          "_moebius() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} "
          "words\n"
          "    COMPREPLY=()\n"
          "    case \"$verb ${COMP_WORDS[2]}\" in\n"
          "    'bench kernels' | 'bench codecs') verb=\"$verb ${COMP_WORDS[2]}\" ;;\n"
          "    esac\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        words='",
          out);
    for (const struct cli_verb *verb = verbs; verb->name != NULL; verb++)
        fprintf(out, "%s ", verb->name);
    fputs("--help --version'\n"
          "    elif words=$(_moebius_values \"$verb\" \"$prev\"); then\n"
          "        compopt +o default 2>/dev/null # no file\n"
          "    elif [ \"${cur#-}\" != \"$cur\" ]; then\n"
          "        words=$(_moebius_options \"$verb\")\n"
          "    elif [ \"$prev\" = bench ] && [ -n \"$cur\" ]; then\n"
          "        words='kernels codecs'\n"
          "    fi\n"
          "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
          "}\n"
          "complete -o default -F _moebius moebius\n",
          out);
}

/* ---------------------------------------------------------------- the verb */

/* A file in the working folder; NULL when it cannot be made, which is then reported. */
static FILE *open_page(const char *file_name, int *exit_status)
{
    FILE *file = fopen(file_name, "w");
    if (file == NULL) {
        fprintf(stderr, "moebius: %s: %s\n", file_name, strerror(errno));
        *exit_status = 4;
    }
    return file;
}

static void close_page(FILE *file, const char *file_name, int *exit_status)
{
    bool failed = ferror(file) != 0;
    if (fclose(file) == 0 && !failed)
        return;
    fprintf(stderr, "moebius: %s: the file cannot be written: %s\n", file_name, strerror(errno));
    *exit_status = 4;
}

static void write_command_page(void *ctx, const struct cli_command *command)
{
    char page[PAGE_NAME_MAX], file_name[PAGE_NAME_MAX + 2];
    snprintf(file_name, sizeof file_name, "%s.1", page_name(page, command));
    FILE *file = open_page(file_name, ctx);
    if (file == NULL)
        return;
    put_command_page(file, page, command);
    close_page(file, file_name, ctx);
}

static void write_page(const char *file_name, void (*put)(FILE *out), int *exit_status)
{
    FILE *file = open_page(file_name, exit_status);
    if (file == NULL)
        return;
    put(file);
    close_page(file, file_name, exit_status);
}

int cli_manual(const struct cli_verb *all_verbs, const char *usage_notes, int argc, char **argv)
{
    verbs = all_verbs;
    notes = usage_notes;
    if (argc != 2) {
        fputs("moebius manual: usage: moebius manual FOLDER (which must exist)\n", stderr);
        return 2;
    }
    if (chdir(argv[1]) != 0) {
        fprintf(stderr, "moebius: %s: %s\n", argv[1], strerror(errno));
        return 3;
    }
    int exit_status = 0;
    each_command(write_command_page, &exit_status);
    write_page("moebius.1", put_main_page, &exit_status);
    write_page("moebius.bash", put_completion, &exit_status);
    return exit_status;
}
