/*
 * timeline.h - a hook that sees what a model spends its time on while it runs: phases of a pass, products,
 * reads of experts, their checks, and waits for them.
 *
 * Give it in the options of a model or a store (engine.h, weights.h).  Without one nothing is measured for
 * it; with one, results stay the same, bit for bit.  'moebius run --timeline FILE' writes what it sees as a
 * Chrome trace (docs/streaming.md).
 */
#ifndef MOEBIUS_TIMELINE_H
#define MOEBIUS_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Values never change.  Phases follow one another inside a pass, WAIT and the products of track 0 lie inside
 * phases: so on the calling thread events nest.  Those of the same kind and track never overlap.
 */
enum mb_timeline_kind {
    /* Of the thread that called mb_decode. */
    MB_TIMELINE_PASS = 0, /* 'n' tokens through the layers */
    MB_TIMELINE_EMBEDDING = 1,
    MB_TIMELINE_ATTENTION = 2,
    MB_TIMELINE_ROUTER = 3, /* with what of the shared expert runs beside it */
    MB_TIMELINE_EXPERTS = 4,
    MB_TIMELINE_DENSE = 5, /* the MLP of a layer without experts */
    MB_TIMELINE_NORM = 6,  /* the sum of the MLP and the residual stream, and the next layer's norm */
    MB_TIMELINE_LOGITS = 7,
    MB_TIMELINE_WAIT = 8, /* nothing to multiply until an expert is there */
    /* Of any thread. */
    MB_TIMELINE_PRODUCT = 9,      /* rows of a matrix with 'n' vectors; track: the thread, 0 is the caller */
    MB_TIMELINE_READ = 10,        /* 'n' bytes from disk; track: a place among those under way together */
    MB_TIMELINE_CHECK = 11,       /* of 'n' bytes of an expert; track: the thread that reads and checks */
    MB_TIMELINE_HINT_USED = 12,   /* an expert of 'n' bytes that was read for a guess: a moment */
    MB_TIMELINE_HINT_WASTED = 13, /* the same, and it leaves memory without having been used */
};
enum { MB_N_TIMELINE_KINDS = 14 };

#define MB_TIMELINE_NONE UINT32_MAX

struct mb_timeline_event {
    enum mb_timeline_kind kind;
    uint32_t track;              /* 0 where the kind says nothing of it */
    uint32_t layer, expert;      /* from 0, as in tensor names; MB_TIMELINE_NONE: of none, or of several */
    uint64_t begun_ns, ended_ns; /* of CLOCK_MONOTONIC */
    uint64_t n;                  /* see the kind; else 0 */
    const char *what;            /* PRODUCT: which, such as "gate+up": stays for good; else NULL */
    bool is_hint;                /* READ: for a guess, nobody waited for it when it began */
};

/* Called when an event has ended, by any thread of the model, by several at once, some of which hold a lock:
 * takes little time and calls nothing of the model. 'event' is valid during the call alone. */
typedef void (*mb_timeline_fn)(void *ctx, const struct mb_timeline_event *event);

/* Zeroed: nobody looks. */
struct mb_timeline {
    mb_timeline_fn fn;
    void *ctx;
};

#ifdef __cplusplus
}
#endif

#endif
