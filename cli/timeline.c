/*
 * timeline.c - keeps the last events of a run in a ring, and writes them as a Chrome trace: JSON with one
 * object for each event, and a name for each track.
 */
#include "timeline.h"
#include "base/error.h"
#include "output_file.h"
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { N_EVENTS_MAX = 1 << 18 };

static struct {
    struct cli_output_file output;
    struct mb_timeline_event *events; /* [N_EVENTS_MAX] NULL: nobody wants a timeline */
    uint64_t n;                       /* that have happened: the last N_EVENTS_MAX are there */
    pthread_mutex_t lock;
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---------------------------------------------------------------- while it runs */

/* An mb_timeline_fn. */
static void keep(void *ctx, const struct mb_timeline_event *event)
{
    (void)ctx;
    pthread_mutex_lock(&ring.lock);
    ring.events[ring.n++ % N_EVENTS_MAX] = *event;
    pthread_mutex_unlock(&ring.lock);
}

enum mb_status cli_timeline_begin(const char *path, const char *model_path, struct mb_error *err)
{
    if (path == NULL)
        return MB_OK;
    MB_TRY(cli_output_open(&ring.output, path, model_path, err));
    ring.events = malloc(N_EVENTS_MAX * sizeof *ring.events);
    if (ring.events == NULL)
        return cli_output_close(&ring.output, mb_fail_memory(err, "the timeline"), err);
    memset(ring.events, 0, N_EVENTS_MAX * sizeof *ring.events); /* in memory from now on: it is counted */
    return MB_OK;
}

struct mb_timeline cli_timeline_hook(void)
{
    return (struct mb_timeline){.fn = ring.events != NULL ? keep : NULL};
}

/* ---------------------------------------------------------------- tracks */

/* Groups of tracks, in the order in which they are shown; a track's number is the group's first and its own.
 */
enum group { THREADS, READS, CHECKS, HINTS, N_GROUPS };
enum { GROUP_TRACKS = 1000 };

static const struct {
    const char *name;
    enum group group;
} kinds[MB_N_TIMELINE_KINDS] = {
    [MB_TIMELINE_PASS] = {"pass", THREADS},
    [MB_TIMELINE_EMBEDDING] = {"embedding", THREADS},
    [MB_TIMELINE_ATTENTION] = {"attention", THREADS},
    [MB_TIMELINE_ROUTER] = {"router", THREADS},
    [MB_TIMELINE_EXPERTS] = {"experts", THREADS},
    [MB_TIMELINE_DENSE] = {"dense", THREADS},
    [MB_TIMELINE_NORM] = {"norm", THREADS},
    [MB_TIMELINE_LOGITS] = {"logits", THREADS},
    [MB_TIMELINE_WAIT] = {"wait", THREADS},
    [MB_TIMELINE_PRODUCT] = {"product", THREADS},
    [MB_TIMELINE_READ] = {"read", READS},
    [MB_TIMELINE_CHECK] = {"check", CHECKS},
    [MB_TIMELINE_HINT_USED] = {"guess used", HINTS},
    [MB_TIMELINE_HINT_WASTED] = {"guess wasted", HINTS},
};

static unsigned track_of(const struct mb_timeline_event *event)
{
    return GROUP_TRACKS * kinds[event->kind].group + event->track;
}

static void name_track(const struct mb_timeline_event *event, char name[64])
{
    static const char *const names[] = {
        [THREADS] = "thread", [READS] = "read", [CHECKS] = "check", [HINTS] = "guesses"};
    enum group group = kinds[event->kind].group;
    if (group == HINTS)
        snprintf(name, 64, "%s", names[group]);
    else
        snprintf(name, 64, "%s %u%s", names[group], event->track,
                 group == THREADS && event->track == 0 ? " (phases)" : "");
}

/* Names all tracks that have events. */
static void write_tracks(FILE *file, size_t n)
{
    static bool is_named[N_GROUPS * GROUP_TRACKS];
    for (size_t i = 0; i < n; i++) {
        unsigned track = track_of(&ring.events[i]);
        char name[64];
        if (track >= N_GROUPS * GROUP_TRACKS || is_named[track])
            continue;
        is_named[track] = true;
        name_track(&ring.events[i], name);
        fprintf(file,
                ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%u,\"name\":\"thread_name\",\"args\":{\"name\":\"%s\"}}"
                ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%u,\"name\":\"thread_sort_index\","
                "\"args\":{\"sort_index\":%u}}",
                track, name, track, track);
    }
}

/* ---------------------------------------------------------------- events */

/* By when they began; of two that began together the longer one contains the other. */
static int compare(const void *a, const void *b)
{
    const struct mb_timeline_event *x = a, *y = b;
    if (x->begun_ns != y->begun_ns)
        return x->begun_ns < y->begun_ns ? -1 : 1;
    return (x->ended_ns < y->ended_ns) - (x->ended_ns > y->ended_ns);
}

static void write_name(FILE *file, const struct mb_timeline_event *event)
{
    fprintf(file, "\"name\":\"%s", event->what != NULL ? event->what : kinds[event->kind].name);
    if (event->layer != MB_TIMELINE_NONE)
        fprintf(file, " L%" PRIu32, event->layer);
    if (event->expert != MB_TIMELINE_NONE)
        fprintf(file, " E%" PRIu32, event->expert);
    fputc('"', file);
}

static void write_args(FILE *file, const struct mb_timeline_event *event)
{
    const char *unit =
        event->kind == MB_TIMELINE_PASS || event->kind == MB_TIMELINE_PRODUCT ? "vectors" : "nbytes";
    const char *comma = "";
    fputs(",\"args\":{", file);
    if (event->layer != MB_TIMELINE_NONE) {
        fprintf(file, "\"layer\":%" PRIu32, event->layer);
        comma = ",";
    }
    if (event->expert != MB_TIMELINE_NONE)
        fprintf(file, "%s\"expert\":%" PRIu32, comma, event->expert);
    comma = event->expert != MB_TIMELINE_NONE ? "," : comma;
    if (event->n > 0)
        fprintf(file, "%s\"%s\":%" PRIu64, comma, unit, event->n);
    if (event->kind == MB_TIMELINE_READ)
        fprintf(file, ",\"for\":\"%s\"", event->is_hint ? "guess" : "demand");
    fputs("}}", file);
}

/* Times are microseconds since the first event. */
static void write_event(FILE *file, const struct mb_timeline_event *event, uint64_t zero_ns)
{
    bool is_moment = kinds[event->kind].group == HINTS;
    uint64_t at_ns = event->begun_ns - zero_ns, lasted_ns = event->ended_ns - event->begun_ns;
    fprintf(file, ",\n{\"ph\":\"%s\",\"pid\":1,\"tid\":%u,\"cat\":\"%s\",\"ts\":%" PRIu64 ".%03u,",
            is_moment ? "i" : "X", track_of(event), kinds[event->kind].name, at_ns / 1000,
            (unsigned)(at_ns % 1000));
    if (is_moment)
        fputs("\"s\":\"t\",", file);
    else
        fprintf(file, "\"dur\":%" PRIu64 ".%03u,", lasted_ns / 1000, (unsigned)(lasted_ns % 1000));
    write_name(file, event);
    write_args(file, event);
}

static void write_all(FILE *file, size_t n)
{
    qsort(ring.events, n, sizeof *ring.events, compare);
    fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n"
          "{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":\"moebius\"}}",
          file);
    write_tracks(file, n);
    for (size_t i = 0; i < n; i++)
        write_event(file, &ring.events[i], ring.events[0].begun_ns);
    fputs("\n]}\n", file);
}

int cli_timeline_end(int exit_status)
{
    struct mb_error err;
    if (ring.events == NULL)
        return exit_status;
    size_t n = ring.n < N_EVENTS_MAX ? (size_t)ring.n : N_EVENTS_MAX;
    if (n > 0)
        write_all(ring.output.file, n);
    enum mb_status status = cli_output_close(&ring.output, n > 0 ? MB_OK : MB_CANCELLED, &err);
    if (n > 0 && status != MB_OK)
        exit_status = cli_fail(&err);
    else if (ring.n > n)
        fprintf(stderr, "moebius: the timeline has the last %zu of %" PRIu64 " events\n", n, ring.n);
    free(ring.events);
    ring.events = NULL;
    return exit_status;
}
