/*
 * progress.c - the progress line, and interrupts that stop long work between two steps.
 */
#include "base/clock.h"
#include "cli.h"
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR_WIDTH = 24 };

static volatile sig_atomic_t interrupted; /* the signal's number; 0: none */

static void on_interrupt(int number)
{
    interrupted = number;
    signal(number, SIG_DFL);
}

void cli_catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static void on_kept_interrupt(int number)
{
    if (interrupted != SIGTERM)
        interrupted = number;
}

void cli_keep_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_kept_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Signals are let in by ppoll alone: none is lost between the look at the flag and the wait. */
bool cli_wait_for_input(int file)
{
    struct pollfd ready = {.fd = file, .events = POLLIN};
    sigset_t ours, before;
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ours, &before);
    bool is_ready = interrupted == 0 && ppoll(&ready, 1, NULL, &before) > 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return is_ready;
}

bool cli_forget_interrupt(void)
{
    bool is_sigint = interrupted == SIGINT;
    if (is_sigint)
        interrupted = 0;
    return is_sigint;
}

bool cli_interrupted(void)
{
    return interrupted != 0;
}

double cli_seconds_since(uint64_t begun_ns)
{
    return (double)(mb_now_ns() - begun_ns) * 1e-9;
}

void cli_progress_begin(struct cli_progress *progress, const char *unit)
{
    *progress = (struct cli_progress){
        .unit = unit, .is_terminal = isatty(STDERR_FILENO) == 1, .begun_ns = mb_now_ns()};
    progress->shown_ns = progress->begun_ns;
}

static void print_rate(const struct cli_progress *progress, double rate)
{
    char text[32];
    if (strcmp(progress->unit, "B") == 0)
        fprintf(stderr, "%s/s", cli_bytes(text, (uint64_t)rate));
    else
        fprintf(stderr, "%.1f %s/s", rate, progress->unit);
}

bool cli_progress_show(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct cli_progress *progress = ctx;
    if (!progress->is_terminal || (progress->is_shown && cli_seconds_since(progress->shown_ns) < 0.1))
        return interrupted != 0;
    double seconds = cli_seconds_since(progress->begun_ns);
    double share = total == 0 ? 1.0 : (double)done / (double)total;
    int filled = (int)(share * BAR_WIDTH + 0.5);
    char name[33];
    snprintf(name, sizeof name, "%s", what);
    mb_make_printable(name); /* it may quote a file */
    fprintf(stderr, "\r\033[K%-32s ", name);
    for (int i = 0; i < BAR_WIDTH; i++)
        fputs(i < filled ? "█" : "░", stderr);
    fprintf(stderr, " %3d%% ", (int)(share * 100));
    if (seconds > 0.2 && done > 0) {
        char left[32];
        double rate = (double)done / seconds;
        print_rate(progress, rate);
        fprintf(stderr, ", %s left", cli_seconds(left, (double)(total - done) / rate));
    }
    fflush(stderr);
    progress->is_shown = true;
    progress->shown_ns = mb_now_ns();
    return interrupted != 0;
}

void cli_progress_end(struct cli_progress *progress)
{
    if (progress->is_shown)
        fputs("\r\033[K", stderr);
    progress->is_shown = false;
}
