#!/usr/bin/env python3
"""Prints the tables of docs/findings.md from the results of its sweeps: figures.py FOLDER [FOLDER ...]

A folder has, for one model: paper.db, errors.db, experts.db (moebius sweep) and fisher.json (fisher.py).
Intervals are those that the sweep computed: 95 %, over questions and seeds together for shares of right answers.
"""
import json
import math
import os
import random
import sqlite3
import sys


class Results:
    def __init__(self, path):
        self.db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)

    def rows(self, sql, *arguments):
        return self.db.execute(sql, arguments).fetchall()

    def one(self, sql, *arguments):
        found = self.rows(sql, *arguments)
        return found[0] if found else None

    def manifest(self, key):
        return self.one("SELECT value FROM manifest WHERE key = ?", key)[0]

    def pooled(self, name, target, error, bound):
        """mean, low, high, difference, its low and high, verdict: over seeds, or of the only run."""
        return self.one("SELECT mean, low, high, difference, difference_low, difference_high, verdict FROM pooled WHERE "
                        "name = ? AND target = ? AND error = ? AND bound IS ?", name, target, error, bound)


def points(share):
    return "-" if share is None else f"{100 * share:.1f}"


def interval(low, high):
    return "" if low is None else f" ({100 * low:.1f} to {100 * high:.1f})"


def kl(value):
    return "NaN" if value is None else f"{value:.2g}"


def heading(text):
    print(f"\n### {text}\n")


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def ranks(values):
    """Ranks from 1, equals share their mean."""
    order = sorted(range(len(values)), key=values.__getitem__)
    rank = [0.0] * len(values)
    i = 0
    while i < len(order):
        j = i
        while j < len(order) and values[order[j]] == values[order[i]]:
            j += 1
        for k in order[i:j]:
            rank[k] = (i + j + 1) / 2
        i = j
    return rank


def correlation(a, b):
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    saa, sbb = sum((x - ma) ** 2 for x in a), sum((y - mb) ** 2 for y in b)
    return sum((x - ma) * (y - mb) for x, y in zip(a, b)) / math.sqrt(saa * sbb) if saa and sbb else float("nan")


def spearman(a, b, n_draws=1000):
    """Rank correlation, with an interval by drawing pairs again."""
    rng = random.Random(1)
    drawn = []
    for _ in range(n_draws):
        pick = [rng.randrange(len(a)) for _ in a]
        drawn.append(correlation(ranks([a[i] for i in pick]), ranks([b[i] for i in pick])))
    drawn = sorted(x for x in drawn if not math.isnan(x))
    return correlation(ranks(a), ranks(b)), drawn[len(drawn) // 40], drawn[-1 - len(drawn) // 40]


def by_bound(errors):
    heading("All experts, by error and bound")
    head = ["bound", "error", "ICA %", "PIA %", "lost of PIA, points", "dead %", "KL, nats"]
    rows = []
    for bound in ["30%", "80%", "150%", "200%", "300%", "400%"]:
        for error in ["codec", "uniform", "normal", "gauss-iso"]:
            pia = errors.pooled("pia", "experts=all", error, bound)
            if pia is None:
                continue
            ica, dead, kls = (errors.pooled(name, "experts=all", error, bound) for name in ("ica", "dead", "kl"))
            rows.append([bound, error, points(ica[0]) + interval(*ica[1:3]), points(pia[0]) + interval(*pia[1:3]),
                         points(-pia[3]) + interval(-pia[5], -pia[4]), points(dead[0]) if dead else "-", kl(kls and kls[0])])
    table(head, rows)


def by_layer(errors):
    heading("All experts of one layer")
    rows = []
    targets = errors.rows("SELECT DISTINCT target, bound FROM run WHERE label = 'layer' ORDER BY id")
    for target, bound in targets:
        row = [f"{target.split()[0]}, {bound}"]
        for error in ("normal", "codec"):
            pia, kls = errors.pooled("pia", target, error, bound), errors.pooled("kl", target, error, bound)
            row += [points(pia[3]) + interval(pia[4], pia[5]) + ("" if pia[6].startswith("no") else f" {pia[6]}"), kl(kls and kls[0])]
        rows.append(row)
    table(["layer", "normal: PIA, points", "KL", "codec: PIA, points", "KL"], rows)


def added_up(errors):
    heading("Do errors add up?")
    rows = []
    bound = errors.one("SELECT bound FROM run WHERE label = 'layer'")[0]
    for error in ("normal", "codec"):
        targets = [t for t, in errors.rows("SELECT DISTINCT target FROM run WHERE label = 'layer' AND error = ?", error)]
        parts = [(errors.pooled("kl", t, error, bound), errors.pooled("pia", t, error, bound)) for t in targets]
        whole_kl = errors.pooled("kl", "experts=all", error, bound)
        whole = errors.pooled("pia", "experts=all", error, bound)
        total = sum(k[0] for k, _ in parts)
        rows.append([error, bound, kl(total), kl(whole_kl[0]), f"{whole_kl[0] / total:.2f}",
                     points(-sum(p[3] for _, p in parts)), points(-whole[3]) + interval(-whole[5], -whole[4])])
    table(["error", "bound", "KL: sum of layers", "all at once", "ratio", "PIA lost: sum, points", "all at once"], rows)


def by_use(errors):
    heading("Most and least used experts")
    rows = []
    for target, in errors.rows("SELECT DISTINCT target FROM run WHERE label = 'use' ORDER BY id"):
        row = [target]
        for error in ("zero", "drop", "random"):
            pia, kls = errors.pooled("pia", target, error, None), errors.pooled("kl", target, error, None)
            row.append("" if pia is None else f"{points(pia[3])}{interval(pia[4], pia[5])}, KL {kl(kls and kls[0])}")
        rows.append(row)
    table(["experts", "zero: PIA points, KL", "drop", "random"], rows)


def format_first(results):
    heading("Format or reasoning first? Runs in which answers got worse")
    n_ica = n_pia = n_runs = both = only_format = 0
    clean = dict((q, (i, p)) for q, i, p in results.rows("SELECT question, ica, pia FROM answer WHERE run = 0"))
    worse = results.rows("SELECT run FROM comparison WHERE name = 'ica' AND verdict = 'worse'")
    for run, in worse:
        n_runs += 1
        for q, i, p in results.rows("SELECT question, ica, pia FROM answer WHERE run = ?", run):
            if clean[q] != (1, 1):
                continue
            n_ica += 1 - i
            n_pia += 1 - p
            only_format += p and not i
    if n_runs:
        print(f"{n_runs} runs; of answers that were right in form and content, {n_ica} lost ICA, and of these "
              f"{only_format} ({100 * only_format / max(n_ica, 1):.1f} %) kept PIA: format alone broke.")


def verdicts(name, results):
    heading(f"Verdicts of all comparisons, {name}")
    table(["figure", "better", "worse", "no difference seen", "p < 0.05 and higher, uncorrected"],
          [[figure] + [results.one("SELECT count(*) FROM comparison WHERE name = ? AND verdict LIKE ?", figure, verdict + "%")[0]
                       for verdict in ("better", "worse", "no difference")]
           + [results.one("SELECT count(*) FROM comparison WHERE name = ? AND p < 0.05 AND difference > 0", figure)[0]]
           for figure in ("ica", "pia")])


def paper(results):
    heading("The paper's figures")
    table(["error", "agree", "disagree", "n too small to tell"],
          [[error] + [results.one("SELECT count(*) FROM paper WHERE error = ? AND agrees = ?", error, word)[0]
                      for word in ("agree", "disagree", "n too small to tell")]
           for error in ("normal", "uniform", "codec")])
    rows = results.rows("SELECT part, place, bound, error, name, paper, paper_clean, ours, ours_clean, low, high FROM paper "
                        "WHERE agrees = 'disagree' AND error = 'normal'")
    print()
    table(["part", "place", "bound", "error", "figure", "paper", "ours, points"],
          [[*row[:5], points(row[5] - row[6]) if row[5] is not None else "-", points(row[7] - row[8]) + interval(row[9], row[10])]
           for row in rows])


def routing(errors):
    heading("Routing: what errors change")
    rows = []
    for target, in errors.rows("SELECT DISTINCT target FROM run WHERE label = 'layer' ORDER BY id"):
        run, = errors.one("SELECT id FROM run WHERE target = ? AND error = 'normal' ORDER BY seed LIMIT 1", target)
        layer = int(target.split()[0].split("=")[1])
        here, = errors.one("SELECT changed FROM routing WHERE run = ? AND layer = ?", run, layer)
        later = errors.rows("SELECT changed, moved FROM routing WHERE run = ? AND layer > ?", run, layer)
        if later:
            rows.append([target.split()[0], points(here), points(later[0][0]), points(later[-1][0]),
                         points(sum(m for _, m in later) / len(later))])
    table(["damaged layer", "tokens with other experts in it %", "in the next %", "in the last %", "load moved in later layers %"], rows)
    heading("Load of a damaged expert")
    rows = []
    for run, selected, target in errors.rows("SELECT id, selected, target FROM run WHERE label = 'use' AND error = 'zero' AND "
                                             "target LIKE 'layer=%top1'"):
        layer, expert = (int(x) for x in selected.split("."))
        n, = errors.one("SELECT n FROM load WHERE run = ? AND layer = ? AND expert = ?", run, layer, expert)
        clean, = errors.one("SELECT n FROM load WHERE run = 0 AND layer = ? AND expert = ?", layer, expert)
        rows.append([selected, clean, n])
    table(["expert", "tokens, clean", "tokens, expert zeroed"], rows)


def predictors(errors, experts, fisher):
    heading("Predictors")
    rows = []
    both = errors.rows(
        "SELECT k.value, c.difference FROM run JOIN value k ON k.run = run.id AND k.name = 'kl' JOIN comparison c ON c.run = run.id "
        "AND c.name = 'pia' WHERE run.id > 0 AND k.value IS NOT NULL")
    r = spearman([k for k, _ in both], [-d for _, d in both])
    rows.append(["KL of a run, PIA lost", len(both), "%.2f (%.2f to %.2f)" % r])
    some = [(k, d) for k, d in both if k < 0.05]
    r = spearman([k for k, _ in some], [-d for _, d in some])
    rows.append(["the same, KL below 0.05", len(some), "%.2f (%.2f to %.2f)" % r])
    measured = {}
    for selected, value, err_rms, bound_e in experts.rows(
            "SELECT run.selected, k.value, r.value, 0 FROM run JOIN value k ON k.run = run.id AND k.name = 'kl' "
            "JOIN value r ON r.run = run.id AND r.name = 'norm' WHERE run.label = 'expert'"):
        measured[selected] = (value, err_rms)
    keys = [f"{row['layer']}.{row['expert']}" for row in fisher["experts"]]
    found = [(row, measured[key]) for row, key in zip(fisher["experts"], keys) if key in measured]
    for name in ("fisher", "moments"):
        predicted = [row[name] * row["mean_square"] * norm ** 2 / 2 for row, (_, norm) in found]
        r = spearman(predicted, [k for _, (k, _) in found])
        rows.append([f"{name} x error^2, KL of an expert", len(found), "%.2f (%.2f to %.2f)" % r])
        if name == "fisher":
            ratios = sorted(k / p for p, (_, (k, _)) in zip(predicted, found) if p > 0)
            share = sum(p for p in predicted) and sum(k for _, (k, _) in found) / sum(predicted)
            rows.append(["measured KL over s^2/2 x Fisher trace: median, quartiles; of the sums", len(ratios),
                         "%.2f (%.2f to %.2f); %.2f" % (ratios[len(ratios) // 2], ratios[len(ratios) // 4],
                                                        ratios[3 * len(ratios) // 4], share)])
    use = dict(experts.rows("SELECT layer || '.' || expert, n FROM load WHERE run = 0"))
    r = spearman([use[key] for key in measured], [measured[key][0] for key in measured])
    rows.append(["tokens sent to an expert, its KL", len(measured), "%.2f (%.2f to %.2f)" % r])
    table(["", "n", "rank correlation"], rows)
    values = sorted(k for k, _ in measured.values())
    top = sum(values[-len(values) // 10:]) / sum(values)
    print(f"\nKL of single experts: smallest {values[0]:.1e}, median {values[len(values) // 2]:.1e}, largest {values[-1]:.1e}; "
          f"the tenth with most has {100 * top:.0f} % of the sum")


def main():
    for folder in sys.argv[1:]:
        read = {name: Results(os.path.join(folder, name + ".db")) for name in ("paper", "errors", "experts")
                if os.path.exists(os.path.join(folder, name + ".db"))}
        print(f"\n## {folder}: {next(iter(read.values())).manifest('model')}")
        if "errors" in read:
            for part in (by_bound, by_layer, added_up, by_use, format_first, routing):
                part(read["errors"])
            verdicts("errors", read["errors"])
        if "paper" in read:
            paper(read["paper"])
            verdicts("paper", read["paper"])
        if "experts" in read and os.path.exists(os.path.join(folder, "fisher.json")):
            with open(os.path.join(folder, "fisher.json"), encoding="utf-8") as file:
                predictors(read["errors"], read["experts"], json.load(file))


if __name__ == "__main__":
    main()
