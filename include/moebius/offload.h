/*
 * offload.h - which experts stay in memory when not all of them fit: policies, and what is needed to study
 * them without a disk.
 *
 * A *policy* is the memory of who uses experts, and says which one leaves when room is needed.  It knows no
 * bytes in memory and reads no file: the caller (a store, or a simulator) tells it what happens and asks.
 */
#ifndef MOEBIUS_OFFLOAD_H
#define MOEBIUS_OFFLOAD_H

#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- links */

/*
 * A slow tier as a clock sees it: an SSD, or a bus to a device.  Each read waits for one of 'depth' places,
 * then for the latency, then for its turn on the wire, where reads follow one another.  So latencies of
 * reads in flight overlap, their bytes do not.  Nothing waits in truth: times are given and returned.
 */
enum { MB_LINK_DEPTH_MAX = 256 };

struct mb_link_options {
    size_t size; /* sizeof(struct mb_link_options) */
    uint64_t bytes_per_s;
    uint64_t latency_ns; /* of a read, whatever its size */
    unsigned depth;      /* reads in flight, 1 to MB_LINK_DEPTH_MAX; 0: 8 */
};

/* Belongs to the caller; nothing to close. */
struct mb_link {
    struct mb_link_options options;
    uint64_t place_free_ns[MB_LINK_DEPTH_MAX]; /* when the read in each place is done */
    uint64_t wire_free_ns;
    uint64_t n_reads, nbytes;
    uint64_t busy_ns; /* in which bytes went over the wire */
};

/* MB_USAGE: no bandwidth, or a depth out of range. */
MB_API enum mb_status mb_link_init(struct mb_link *link, const struct mb_link_options *options,
                                   struct mb_error *err);

/*
 * A read of nbytes that is asked for at 'now_ns', which is not before that of an earlier call; returns when
 * it is done.  Nanoseconds from any beginning below 2^62. Never fails and allocates nothing.
 */
MB_API uint64_t mb_link_read(struct mb_link *link, uint64_t now_ns, uint64_t nbytes);

/* ---------------------------------------------------------------- policies */

/*
 * Experts are numbers: layer * n_experts + expert.  Layers are those with routed experts, counted from 0 in
 * the order in which a token passes them, whatever their numbers in tensor names are.
 */
struct mb_policy;

/* Most experts of all layers together, and "no expert". */
enum { MB_POLICY_EXPERTS_MAX = 1 << 20 };
#define MB_NO_EXPERT SIZE_MAX

/* Zeroed means defaults, but for n_layers and n_experts. Arrays are copied. */
struct mb_policy_options {
    size_t size; /* sizeof(struct mb_policy_options) */
    size_t n_layers, n_experts;
    const uint64_t *nbytes; /* [n_layers * n_experts] size of each; NULL: all alike */
    /*
     * What one read costs beside its bytes, in bytes: latency times bandwidth.  A byte of memory saves the
     * same reads in small experts as in large ones, but small ones save more requests, and are kept longer
     * where this is not 0.  Needs nbytes.  Of blend, profile, lfru and lfu; the scores of the others are
     * published without it.
     */
    uint64_t request_nbytes;
    unsigned half_life;  /* of uses, in tokens, rounded up to a power of two: blend, profile, lfru; 0: 256 */
    const double *usage; /* profile: [n_layers * n_experts] uses of each expert per token, 0 to 1 */
};

struct mb_policy_info {
    const char *name;  /* "blend" */
    const char *about; /* one line: what it evicts */
};

/* The i-th policy, the default one first; NULL: there are no more. */
MB_API const struct mb_policy_info *mb_policy_info(size_t i);

/*
 * name NULL: the default.  MB_USAGE: no such policy (the message lists all), no experts, or "profile" without
 * usage.  All memory is taken here.
 */
MB_API enum mb_status mb_policy_open(const char *name, const struct mb_policy_options *options,
                                     struct mb_policy **policy, struct mb_error *err);
MB_API void mb_policy_close(struct mb_policy *policy); /* NULL: nothing to do */

/*
 * What follows never fails and never allocates, and depends on nothing but the calls before it: the same
 * calls give the same answers on every machine.  Threads: one at a time.
 */

/*
 * A token is sent to this expert, in memory or not.  Called in the order of layers; 'gate' is the router's
 * weight, 'token' counts the tokens that were computed since the policy was opened (one that is less than
 * that of an earlier call counts as the same).
 */
MB_API void mb_policy_touch(struct mb_policy *policy, size_t expert, float gate, uint64_t token);

/* The expert is in memory from now on, or no longer. */
MB_API void mb_policy_loaded(struct mb_policy *policy, size_t expert);
MB_API void mb_policy_evicted(struct mb_policy *policy, size_t expert);

/* Another conversation begins: policies whose score is about one sequence forget their counts. */
MB_API void mb_policy_begin_sequence(struct mb_policy *policy);

/*
 * Whether an expert may leave: not while it is pinned. Called only for experts that are in memory, for
 * few of them, and for the same one maybe twice.
 */
typedef bool (*mb_policy_may_evict_fn)(void *ctx, size_t expert);

/*
 * The expert in memory that may leave and is worth the least, or MB_NO_EXPERT.  may_evict NULL: all may.
 * Changes nothing: who evicts it calls mb_policy_evicted.  Takes about as many steps as there are layers,
 * and as a layer has experts.
 */
MB_API size_t mb_policy_victim(struct mb_policy *policy, mb_policy_may_evict_fn may_evict, void *ctx);

/*
 * Whether the policy would keep 'expert' rather than 'other', in memory or not: for who asks whether a
 * speculative read is worth what it throws out.
 */
MB_API bool mb_policy_prefers(const struct mb_policy *policy, size_t expert, size_t other);

/* ---------------------------------------------------------------- traces */

/* What a token's way through the experts was, token by token: from a model, a file, or by chance. */
struct mb_trace;

enum { MB_TRACE_USED_MAX = 64, MB_TRACE_TOKENS_MAX = 1 << 26 };
#define MB_TRACE_NONE UINT16_MAX /* in place of an expert: the token did not pass the layer */

struct mb_trace_shape {
    size_t n_layers;  /* with routed experts */
    size_t n_experts; /* of a layer, less than MB_TRACE_NONE */
    size_t n_used;    /* by a token in a layer, at most MB_TRACE_USED_MAX */
};

struct mb_trace_token {
    uint32_t sequence;       /* conversation, from 0 */
    bool is_generated;       /* else of a prompt */
    const uint16_t *experts; /* [n_layers][n_used] in the order of the router's choice */
    const float *gates;      /* [n_layers][n_used] */
};

/*
 * Empty.  'layers': [n_layers] their numbers in tensor names, increasing; NULL: 0, 1, ...  MB_USAGE: a shape
 * without experts or beyond what is said above.
 */
MB_API enum mb_status mb_trace_open(const struct mb_trace_shape *shape, const uint32_t *layers,
                                    struct mb_trace **trace, struct mb_error *err);
MB_API void mb_trace_close(struct mb_trace *trace); /* NULL: nothing to do */

MB_API const struct mb_trace_shape *mb_trace_shape(const struct mb_trace *trace);
MB_API const uint32_t *mb_trace_layers(const struct mb_trace *trace); /* [n_layers] */
MB_API size_t mb_trace_n_tokens(const struct mb_trace *trace);
MB_API struct mb_trace_token mb_trace_token(const struct mb_trace *trace, size_t i);

/* Adds a token that has passed no layer yet. 'sequence' is the last token's, or one more. */
MB_API enum mb_status mb_trace_add(struct mb_trace *trace, uint32_t sequence, bool is_generated,
                                   struct mb_error *err);

/*
 * Token i was sent to experts[0 .. n_used) of the layer that tensor names call 'layer', with 'gates'.
 * MB_USAGE: no such token, layer or expert, another n_used, or the same expert twice.
 */
MB_API enum mb_status mb_trace_route(struct mb_trace *trace, size_t i, size_t layer, const int32_t *experts,
                                     const float *gates, size_t n_used, struct mb_error *err);

enum mb_trace_format { MB_TRACE_JSONL = 0, MB_TRACE_CSV = 1 };

/* A file (docs/offload.md), whole or not at all. */
MB_API enum mb_status mb_trace_save(const struct mb_trace *trace, const char *path,
                                    enum mb_trace_format format, struct mb_error *err);

/* Either format.  MB_BAD_DATA names file and line. */
MB_API enum mb_status mb_trace_load(const char *path, struct mb_trace **trace, struct mb_error *err);

/* The same of a text, which messages call 'path'. */
MB_API enum mb_status mb_trace_parse(const char *path, const char *text, size_t nbytes,
                                     struct mb_trace **trace, struct mb_error *err);

/* Of all layers together. */
struct mb_trace_statistics {
    double top_share; /* of all uses, that the 8 most used experts of each layer have */
    double overlap;   /* of a token's experts, that the token before in its sequence used, too */
    double overlap_8; /* the same of the 8th token before; NAN: no sequence is that long, as of overlap */
    double in_128;    /* experts of a layer that the first 128 tokens use; NAN: the trace is shorter */
};

MB_API enum mb_status mb_trace_statistics(const struct mb_trace *trace, struct mb_trace_statistics *s,
                                          struct mb_error *err);

/*
 * Routing by chance that has two statistics of a real model.  Zeroed means defaults, but for the shape: 1000
 * generated tokens in one sequence, each expert as likely as any other and independent of the token before.
 */
struct mb_trace_random {
    size_t size; /* sizeof(struct mb_trace_random) */
    struct mb_trace_shape shape;
    size_t n_tokens;
    double top_share; /* 0: as even routing has it */
    double overlap;   /* 0: as popularity alone makes it */
    uint64_t seed;
};

/* MB_USAGE: a shape or a statistic that cannot be. */
MB_API enum mb_status mb_trace_make(const struct mb_trace_random *random, struct mb_trace **trace,
                                    struct mb_error *err);

/*
 * "experts=128 used=8 layers=48 tokens=1000 top8=44.5% overlap=38% seed=1": in any order; layers, experts and
 * used have to be there.  MB_USAGE names the word.
 */
MB_API enum mb_status mb_trace_random_parse(const char *text, struct mb_trace_random *random,
                                            struct mb_error *err);

/* ---------------------------------------------------------------- reads */

/*
 * How the store reads experts, and a simulation as it does: in ranges, so many bytes of them under way at
 * most, fewer while only guesses are read.  Guesses of a layer are judged when MB_GUESS_WINDOW of them have
 * been read: where fewer than that share was used, none is read for so many tokens.
 */
enum {
    MB_READ_RANGE_NBYTES = 1 << 20,
    MB_READ_DEMAND_NBYTES = 4 << 20,
    MB_READ_HINT_NBYTES = 2 << 20,
    MB_READ_FLIGHTS_MAX = 32,
    MB_GUESS_WINDOW = 48,
    MB_GUESS_USED_PERCENT = 40,
    MB_GUESS_PAUSE_TOKENS = 2048,
};

/* ---------------------------------------------------------------- simulation */

/* Zeroed means defaults, but for memory_nbytes and nbytes. */
struct mb_simulation_options {
    size_t size;                  /* sizeof(struct mb_simulation_options) */
    const char *policy;           /* NULL: the default; "belady": the optimum, which knows the trace */
    uint64_t memory_nbytes;       /* for routed experts */
    const uint64_t *nbytes;       /* [n_layers * n_experts] size of each expert of the trace's shape */
    struct mb_link_options link;  /* bytes_per_s 0: reads take no time */
    uint64_t dense_nbytes;        /* weights that a token is multiplied with beside those of routed experts */
    uint64_t compute_bytes_per_s; /* weights multiplied per second; 0: products take no time */
    unsigned half_life;           /* as in mb_policy_options, as 'usage' */
    const double *usage;
    bool are_all_generated; /* tokens of prompts are fed one by one, too, and counted */
    size_t n_warm;          /* of the generated tokens so many come before those that are counted */
    /* What a token takes whatever experts it uses, beside dense_nbytes, and what each product of a layer's
     * experts takes beside its bytes: several that are there are multiplied together. */
    uint64_t token_ns, wave_ns;
    uint64_t check_bytes_per_s; /* of an expert that was read, before it is used; 0: takes no time */
    /* Looking ahead: while a layer's experts are multiplied, those of the next are guessed, and this share
     * of the guesses is right, 0 to 1.  Guesses are read at most two at a time.  0: nothing is guessed. */
    double lookahead;
    /* Of dense_nbytes: what is multiplied while a layer's experts are read (shared experts), and after the
     * last layer (the head), while nothing is.  The rest comes before the layers' experts, an equal part
     * each. */
    uint64_t shared_nbytes, head_nbytes;
    size_t n_threads; /* that multiply and check: checks take time from products; 0: they do not */
    /* What it takes to ask the system for a range of at most 1 MiB; from the end of the last read of an
     * expert until its check begins; and from the end of the check until who waits for the expert goes on. */
    uint64_t request_ns, arrive_ns, wake_ns;
    uint64_t ask_ns; /* to ask for a layer's missing experts, beside request_ns for each range */
    /* Of a thread, for each range that has been read.  Threads that ask for ranges meanwhile take ask_ns and
     * request_ns, too.  Both take time from products, as checks do. */
    uint64_t reap_ns;
    uint64_t call_ns;     /* to look for experts that are there while others are read: it wakes threads */
    size_t n_pass_tokens; /* of a prompt, that go through the layers together at most; 0: 512 */
};

struct mb_simulation {
    uint64_t n_tokens;       /* generated ones that are counted, as all that follows */
    uint64_t n_uses, n_hits; /* of experts; those found in memory that were not read for a guess just then */
    uint64_t read_nbytes;    /* for generated tokens and guesses */
    uint64_t prompt_nbytes;  /* read for prompts, those before counted tokens included */
    uint64_t total_ns;
    uint64_t waited_ns; /* nothing was left to multiply */
    uint64_t busy_ns;   /* bytes went over the link */
};

/*
 * Replays a trace.  The same trace and options give the same result on every machine.  MB_USAGE: less memory
 * than a token's experts of one layer need (the message says how much), a policy or a link that cannot be.
 */
MB_API enum mb_status mb_simulate(const struct mb_trace *trace, const struct mb_simulation_options *options,
                                  struct mb_simulation *result, struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
