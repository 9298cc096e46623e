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
     * where this is not 0.  Needs nbytes.  Of lfu, lfru and profile; the scores of the others are published
     * without it.
     */
    uint64_t request_nbytes;
    unsigned half_life;  /* of uses, in tokens, rounded up to a power of two: lfru, profile; 0: 256 */
    const double *usage; /* profile: [n_layers * n_experts] uses of each expert per token, 0 to 1 */
};

struct mb_policy_info {
    const char *name;  /* "lfru" */
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

#ifdef __cplusplus
}
#endif

#endif
