/*
 * link.c - a slow tier with a virtual clock.
 */
#include "base/error.h"
#include "base/max.h"
#include "base/options.h"
#include <moebius/offload.h>

enum { DEPTH = 8 };

enum mb_status mb_link_init(struct mb_link *link, const struct mb_link_options *options, struct mb_error *err)
{
    *link = (struct mb_link){0};
    MB_TRY(MB_OPTIONS_TAKE(link->options, options, err));
    if (link->options.depth == 0)
        link->options.depth = DEPTH;
    if (link->options.depth > MB_LINK_DEPTH_MAX)
        return mb_fail(err, MB_USAGE, "a link with %u reads in flight: at most %d", link->options.depth,
                       MB_LINK_DEPTH_MAX);
    if (link->options.bytes_per_s == 0)
        return mb_fail(err, MB_USAGE, "a link needs bytes per second");
    return MB_OK;
}

/* Rounded up. Exact below 2^53 ns: 104 days. */
static uint64_t wire_ns(const struct mb_link *link, uint64_t nbytes)
{
    double ns = (double)nbytes * 1e9 / (double)link->options.bytes_per_s;
    uint64_t whole = ns < 0x1p62 ? (uint64_t)ns : UINT64_C(1) << 62;
    return whole + ((double)whole < ns ? 1 : 0);
}

uint64_t mb_link_read(struct mb_link *link, uint64_t now_ns, uint64_t nbytes)
{
    uint64_t *place = link->place_free_ns;
    for (unsigned i = 1; i < link->options.depth; i++)
        if (link->place_free_ns[i] < *place)
            place = &link->place_free_ns[i];
    uint64_t ready = mb_max_u64(now_ns, *place) + link->options.latency_ns, ns = wire_ns(link, nbytes);
    *place = link->wire_free_ns = mb_max_u64(ready, link->wire_free_ns) + ns;
    link->busy_ns += ns;
    link->nbytes += nbytes;
    link->n_reads++;
    return *place;
}
