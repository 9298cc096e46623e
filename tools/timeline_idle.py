#!/usr/bin/env python3
"""What a model was doing while the disk was idle: sums over a timeline of 'bench', 'run', 'chat' or 'eval'.

    moebius bench CODED -p 0 -n 64 -r 1 --memory 1200MiB --timeline time.json
    python3 tools/timeline_idle.py time.json [--skip PASSES] [--layers]

The time of all passes but the first few is cut at every event.  Each piece in which no read is under way belongs to what thread
0 does then: a phase, in the phase of experts a product or a wait, and of a wait whether a check is under way.
"""

import argparse
import json
import sys
from collections import defaultdict

PHASES = ("embedding", "attention", "router", "experts", "dense", "norm", "logits")
INSIDE = ("wait", "product")


def load(path):
    with open(path, encoding="utf-8") as f:
        events = [e for e in json.load(f)["traceEvents"] if e["ph"] == "X"]
    by_category = defaultdict(list)
    for e in events:
        by_category[e["cat"]].append((e["ts"], e["ts"] + e["dur"], e["tid"], e["args"].get("layer")))
    return by_category


def steps(intervals, which):
    return [(t, which, d, layer) for begin, end, layer in intervals for t, d in ((begin, 1), (end, -1))]


def causes(events, begin):
    """Seconds by (is a read under way, what thread 0 does), and by layer."""
    changes = []
    for category in PHASES + INSIDE + ("read", "check"):
        own = [(b, e, layer) for b, e, tid, layer in events[category] if category in ("read", "check") or tid == 0]
        changes += steps(own, category)
    changes.sort(key=lambda change: (change[0], change[2]))
    under_way, layers = defaultdict(int), {}
    sums, by_layer, last = defaultdict(float), defaultdict(float), None
    for t, category, d, layer in changes:
        if last is not None and last >= begin and t > last:
            what = describe(under_way)
            is_idle = under_way["read"] == 0
            sums[is_idle, what] += (t - last) / 1e6
            by_layer[is_idle, what, next((layers[p] for p in PHASES if under_way[p]), None)] += (t - last) / 1e6
        under_way[category] += d
        if d > 0:
            layers[category] = layer
        last = t
    return sums, by_layer


def describe(under_way):
    phase = next((p for p in PHASES if under_way[p]), "between passes")
    if phase == "experts" and under_way["wait"]:
        return "experts: wait for a check" if under_way["check"] else "experts: wait for another reason"
    if phase == "experts":
        return "experts: product" if under_way["product"] else "experts: between products"
    return phase


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("timeline")
    parser.add_argument("--skip", type=int, default=16, metavar="PASSES", help="that do not count (default 16)")
    parser.add_argument("--layers", action="store_true", help="each layer by itself")
    args = parser.parse_args()
    events = load(args.timeline)
    passes = sorted(events["pass"])
    if len(passes) <= args.skip:
        sys.exit(f"timeline_idle: {args.timeline}: {len(passes)} passes, {args.skip} of which do not count")
    sums, by_layer = causes(events, passes[args.skip][0])
    total, n = sum(sums.values()), len(passes) - args.skip
    idle = {what: seconds for (is_idle, what), seconds in sums.items() if is_idle}
    print(f"{n} passes of {1000 * total / n:.2f} ms; disk busy {100 * (1 - sum(idle.values()) / total):.1f} %")
    print(f"{'thread 0 does':36} {'ms a pass':>10} {'disk idle':>10} {'of all idle':>12}")
    for what in sorted({what for _, what in sums}, key=lambda what: -idle.get(what, 0)):
        own = idle.get(what, 0)
        print(f"{what:36} {1000 * (own + sums.get((False, what), 0)) / n:10.2f} {1000 * own / n:10.2f} "
              f"{100 * own / max(sum(idle.values()), 1e-12):10.1f} %")
    for (is_idle, what, layer), seconds in sorted(by_layer.items(), key=lambda item: -item[1]) if args.layers else ():
        if is_idle and seconds / total > 0.002:
            print(f"  {what} in layer {layer}: {1000 * seconds / n:.2f} ms a pass")


if __name__ == "__main__":
    main()
