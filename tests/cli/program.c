/*
 * program.c - the real program run as a user runs it.
 */
#include "program.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ran last;

static void read_output(const char *name, char *to, size_t cap)
{
    size_t nbytes;
    uint8_t *bytes = test_read(test_path(name), &nbytes);
    if (nbytes >= cap)
        fail_msg("%s has %zu bytes", name, nbytes);
    memcpy(to, bytes, nbytes + 1);
    free(bytes);
}

static const struct ran *run_shell(const char *before, const char *arguments)
{
    char *line = NULL;
    assert_true(asprintf(&line, "cd '%s' && { %s '%s' %s; } >stdout.txt 2>stderr.txt", test_path("."), before,
                         MB_PROGRAM, arguments) > 0);
    int status = system(line); /* NOLINT(cert-env33-c): our own words */
    free(line);
    last.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    read_output("stdout.txt", last.out, sizeof last.out);
    read_output("stderr.txt", last.err, sizeof last.err);
    return &last;
}

static char *format_arguments(const char *format, va_list args)
{
    char *text = NULL;
    assert_true(vasprintf(&text, format, args) >= 0);
    return text;
}

const struct ran *run_after(const char *before, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *arguments = format_arguments(format, args);
    va_end(args);
    run_shell(before, arguments);
    free(arguments);
    return &last;
}

const struct ran *run(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *arguments = format_arguments(format, args);
    va_end(args);
    run_shell("", arguments);
    free(arguments);
    return &last;
}

static const char *check_well(const char *arguments)
{
    run_shell("", arguments);
    if (last.exit_status != 0)
        fail_msg("moebius %s: exit status %d: %s", arguments, last.exit_status, last.err);
    return last.out;
}

const char *run_well(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *arguments = format_arguments(format, args);
    va_end(args);
    check_well(arguments);
    free(arguments);
    return last.out;
}

json_t *run_json(const char *format, ...)
{
    va_list args;
    json_error_t where;
    va_start(args, format);
    char *arguments = format_arguments(format, args);
    va_end(args);
    json_t *json = json_loads(check_well(arguments), JSON_REJECT_DUPLICATES, &where);
    if (json == NULL)
        fail_msg("moebius %s: line %d: %s", arguments, where.line, where.text);
    free(arguments);
    return json;
}

void assert_fails(const struct ran *ran, int exit_status, const char *words)
{
    const char *line_end = strchr(ran->err, '\n');
    bool is_one_line = line_end != NULL && line_end[1] == '\0' && strncmp(ran->err, "moebius", 7) == 0;
    if (ran->exit_status != exit_status || !is_one_line || strstr(ran->err, words) == NULL ||
        ran->out[0] != '\0')
        fail_msg("exit status %d, expected %d and one line with '%s'\nstderr: %s\nstdout: %.200s",
                 ran->exit_status, exit_status, words, ran->err, ran->out);
}

pid_t start(const char *const *argv)
{
    const char *folder = test_path(".");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0)
        return child;
    int null = open("/dev/null", O_WRONLY), errors;
    if (chdir(folder) != 0 || (errors = open("stderr.txt", O_WRONLY | O_CREAT | O_TRUNC, 0666)) < 0)
        _exit(99);
    dup2(null, STDOUT_FILENO);
    dup2(errors, STDERR_FILENO);
    execv(MB_PROGRAM, (char *const *)argv);
    _exit(99);
}
