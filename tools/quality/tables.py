#!/usr/bin/env python3
"""Measures what codings of experts lose at a size, and prints the tables of docs/quality.md.

    tables.py measure MOEBIUS MODEL TASK TEXT RESULTS.json   [N: problems, 480]
    tables.py print RESULTS.json ...

TEXT is the calibration text (JSON lines); it shares no problem with TASK. All else than routed and shared experts is
exact. 'measure' goes on where it was stopped. Bits are those of files: blobs with headers, checksums and directories;
of other methods codes, scales and zero points.
"""
import json
import math
import os
import random
import subprocess
import sys
import tempfile

TARGETS = [2.0, 2.5, 3.0, 3.5, 4.0, 4.5]
ANSWERED = [2.0, 3.0]  # questions are answered too
CODECS = ["rtn2-g32", "rtn3-g32", "rtn4-g32", "rtn2-g128", "rtn3-g128", "rtn4-g128", "nf4", "q4_0"]
OTHERS = ["gptq2-g32", "gptq3-g32", "gptq4-g32", "gptq2-g128", "gptq3-g128", "gptq4-g128", "q4_k"]
GPTQ = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gptq.py")


class Measuring:
    def __init__(self, moebius, model, task, text, results, n):
        self.moebius, self.model, self.task, self.text, self.path, self.n = moebius, model, task, text, results, n
        self.work = tempfile.mkdtemp(prefix="quality-")
        self.done = json.load(open(results)) if os.path.exists(results) else {}
        self.moments = results + ".moments"

    def run(self, *args):
        done = subprocess.run([self.moebius, *args], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(args)}: {done.stderr}")
        return done.stdout

    def keep(self, name, result):
        self.done[name] = result
        with open(self.path + ".new", "w") as file:
            json.dump(self.done, file)
        os.replace(self.path + ".new", self.path)
        kl = result.get("kl", [])
        print(name, f"{result.get('bits', 0):.3f}", f"{1e6 * sum(kl) / max(1, sum(result.get('n', [1]))):.2f}", flush=True)

    def kl(self, model, *perturb):
        report = json.loads(self.run("eval", model, "--kl-divergence", self.model, "--task", self.task, "--limit",
                                     str(self.n), "-t", "1", "-o", "json", *perturb))
        windows = report["windows"]
        return {"n": [w["n_scored"] for w in windows], "kl": [w["kl"] for w in windows],
                "same": [w["same_top"] for w in windows], "report": report.get("perturbed")}

    def answers(self, model):
        replies = os.path.join(self.work, "replies.jsonl")
        if os.path.exists(replies):
            os.remove(replies)
        self.run("eval", model, "--task", self.task, "--limit", str(self.n), "--replies", replies, "-t", "1", "-o", "json")
        lines = [json.loads(line) for line in open(replies)]
        return {"ica": [bool(line["ica"]) for line in lines], "pia": [bool(line["pia"]) for line in lines]}

    def compress(self, bound, *args):
        out = os.path.join(self.work, "coded")
        report = self.run("compress", self.model, out, "--force", "--bound", f"{bound:.5g}%", "--dense-bound", "0", "-t", "1",
                          "-o", "json", *args)
        return out, json.loads(report)["experts"]["bits_per_weight"]

    def at_size(self, bits, *args):
        """The folder whose experts have at most so many bits a weight, by less than 0.01 where that can be had."""
        low, high = 2.0, 1000.0
        bound = 60 * 2 ** (3.4 - bits) * (1 if args else 0.5)
        for _ in range(12):
            out, found = self.compress(bound, *args)
            if bits - 0.01 <= found <= bits:
                break
            low, high = (bound, high) if found > bits else (low, bound)
            step = bound * 2 ** (found - bits + 0.005)  # half the bound is a bit more
            bound = step if low < step < high else math.sqrt(low * high)
        return out, found, bound

    def measure(self):
        if "original" not in self.done:
            self.keep("original", self.answers(self.model))
        if not os.path.exists(self.moments):
            self.compress(60, "--calibrate", self.text, "--moments", self.moments)
        has_shared = "n_shared_experts" in json.load(open(os.path.join(self.model, "config.json")))
        selection = "experts=all shared" if has_shared else "experts=all"
        self.ours()
        for codec in CODECS:
            if codec not in self.done:
                result = self.kl(self.model, "--perturb", f"{selection}: codec:{codec}")
                report = result.pop("report")
                self.keep(codec, {"bits": report[0]["bits"], **result})
        for method in OTHERS:
            if method not in self.done:
                out = os.path.join(self.work, "other")
                done = subprocess.run([sys.executable, GPTQ, method, self.model, self.moments, out], capture_output=True,
                                      text=True, check=True)
                self.keep(method, {"bits": json.loads(done.stdout)["bits_per_weight"], **self.kl(out)})

    def ours(self):
        for bits in TARGETS:
            for name, args in (("plain", ()), ("feedback", ("--moments", self.moments)),
                               ("even", ("--moments", self.moments, "--no-column-factors"))):
                key = f"{name} {bits}"
                if key not in self.done:
                    out, found, bound = self.at_size(bits, *args)
                    answers = self.answers(out) if bits in ANSWERED and name != "even" else {}
                    self.keep(key, {"bits": found, "bound": bound, **self.kl(out), **answers})


def mean(result, picked, without=0):
    n, kl = [result["n"][i] for i in picked], [result["kl"][i] for i in picked]
    worst = sorted(range(len(kl)), key=lambda i: -kl[i])[:without]
    return 1e6 * (sum(kl) - sum(kl[i] for i in worst)) / (sum(n) - sum(n[i] for i in worst))


def interval(figure, n, n_draws=1000):
    rng = random.Random(1)
    drawn = sorted(figure([rng.randrange(n) for _ in range(n)]) for _ in range(n_draws))
    return drawn[n_draws // 40], drawn[-1 - n_draws // 40]


def spelled(figure, n):
    low, high = interval(figure, n)
    return f"{figure(range(n)):.3g} ({low:.3g} to {high:.3g})"


def ratio_of(a, b, without=0):
    return lambda picked: mean(a, picked, without) / mean(b, picked, without)


def flips(result):
    return 100 * (1 - sum(result["same"]) / sum(result["n"]))


def mcnemar(a, b):
    """Exact, two-sided: answers that only one of both has right."""
    x, y = sum(p and not q for p, q in zip(a, b)), sum(q and not p for p, q in zip(a, b))
    return min(1.0, 2 * sum(math.comb(x + y, k) for k in range(min(x, y) + 1)) / 2 ** (x + y)), x, y


def beside(a, b, n):
    """The cells of two roundings of about the same size, but for flips."""
    return (f"| {a['bits']:.2f}; {b['bits']:.2f} | {a['bound']:.3g}; {b['bound']:.3g} | "
            f"{spelled(lambda k: mean(a, k), n)} | {spelled(lambda k: mean(b, k), n)} | "
            f"{spelled(ratio_of(b, a), n)} | {mean(a, range(n), 5):.3g} | {mean(b, range(n), 5):.3g} |")


def print_tables(path):
    done = json.load(open(path))
    n = len(done["plain 2.0"]["n"])
    print(f"\n### {os.path.basename(path).removesuffix('.json')}: {sum(done['plain 2.0']['n']):,} tokens of {n} replies\n")
    print("| bits: plain; feedback | bounds, % | plain | feedback | ratio | without the worst 5: plain | feedback | ratio | flips, % |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for bits in TARGETS:
        if f"feedback {bits}" not in done:
            continue
        p, f = done[f"plain {bits}"], done[f"feedback {bits}"]
        print(f"{beside(p, f, n)} {spelled(ratio_of(f, p, 5), n)} | {flips(p):.2f}; {flips(f):.2f} |")
    print("\n| bits: without column factors; with | bounds, % | without | with | ratio | without the worst 5: without | with |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for bits in TARGETS:
        if f"even {bits}" not in done:
            continue
        e, f = done[f"even {bits}"], done[f"feedback {bits}"]
        print(beside(e, f, n))
    print("\n| other method | bits | KL | without the worst 5 | flips, % | beside feedback at | ratio, feedback / it | "
          "without the worst 5 |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name in CODECS + OTHERS:
        if name not in done:
            continue
        other = done[name]
        smaller = [b for b in TARGETS if f"feedback {b}" in done and done[f"feedback {b}"]["bits"] <= other["bits"]]
        if not smaller:
            continue
        f = done[f"feedback {smaller[-1]}"]
        print(f"| {name} | {other['bits']:.2f} | {spelled(lambda k: mean(other, k), n)} | {mean(other, range(n), 5):.3g} | "
              f"{flips(other):.2f} | {f['bits']:.2f} | {spelled(ratio_of(f, other), n)} | "
              f"{ratio_of(f, other, 5)(range(n)):.3g} |")
    print("\n| bits | plain: ICA, PIA % | feedback: ICA, PIA % | PIA lost and won against the original (p): plain | feedback |")
    print("|--:|--:|--:|--:|--:|")
    original = done["original"]
    share = lambda r, key: f"{100 * sum(r[key]) / len(r[key]):.1f}"
    print(f"| 16 | {share(original, 'ica')}, {share(original, 'pia')} | | | |")
    for bits in ANSWERED:
        cells = []
        for kind in ("plain", "feedback"):
            r = done.get(f"{kind} {bits}")
            if r:
                p, lost, won = mcnemar(original["pia"], r["pia"])
                cells.append((f"{share(r, 'ica')}, {share(r, 'pia')}", f"{lost}, {won} ({p:.2g})"))
        if len(cells) == 2:
            print(f"| {bits} | {cells[0][0]} | {cells[1][0]} | {cells[0][1]} | {cells[1][1]} |")


def main():
    if sys.argv[1] == "measure":
        n = int(sys.argv[7]) if len(sys.argv) > 7 else 480
        Measuring(*sys.argv[2:7], n).measure()
    else:
        for path in sys.argv[2:]:
            print_tables(path)


main()
