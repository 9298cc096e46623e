#!/usr/bin/env python3
"""Statistics as SciPy and statsmodels compute them: tests/lab/data/statistics.json.

    venv/bin/pip install scipy statsmodels
    venv/bin/python tools/goldens/paired_statistics.py
"""
import json
import pathlib

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats as st
import statsmodels.formula.api as smf
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/lab/data/statistics.json"


def mcnemar_cases():
    pairs = [(0, 0), (1, 0), (0, 5), (5, 5), (3, 9), (9, 3), (40, 61), (0, 1000), (498, 502), (4321, 4567), (100000, 101000)]
    for b, c in pairs:
        exact = mcnemar([[0, b], [c, 0]], exact=True).pvalue if b + c else 1.0
        # Fagerland, Lydersen, Laake (2013): twice the tail, less the probability of the observed table.
        fewer, n = min(b, c), b + c
        mid = min(1, 2 * st.binom.cdf(fewer, n, 0.5) - st.binom.pmf(fewer, n, 0.5))
        yield {"n_better": b, "n_worse": c, "p_exact": min(1, float(exact)), "p_mid": float(mid)}


def adjusted_cases(rng):
    lists = [[0.05], [0.01, 0.04, 0.03, 0.005], [0.0, 1.0, 0.5, 0.5, 0.5], list(rng.uniform(0, 1, 40) ** 3)]
    for p in lists:
        yield {"p": p, "holm": list(multipletests(p, method="holm")[1]), "bh": list(multipletests(p, method="fdr_bh")[1])}


def two_level(values):
    n_seeds, n_questions = values.shape
    table = pd.DataFrame({"y": values.ravel(), "seed": np.repeat(np.arange(n_seeds), n_questions),
                          "question": np.tile(np.arange(n_questions), n_seeds)})
    mean = values.mean()
    if n_seeds == 1:
        low, high = st.t.interval(0.95, n_questions - 1, mean, st.sem(values[0]))
        return {"se": st.sem(values[0]), "df": n_questions - 1, "low": low, "high": high,
                "p": st.ttest_1samp(values[0], 0).pvalue, "se_seeds": 0.0, "se_questions": st.sem(values[0])}
    anova = anova_lm(smf.ols("y ~ C(seed) + C(question)", table).fit())
    ms = anova["sum_sq"] / anova["df"]
    seeds, questions, rest = ms["C(seed)"], ms["C(question)"], ms["Residual"]
    common = min(seeds, questions, rest)
    total = seeds + questions - common
    df = max(1, total**2 / (seeds**2 / (n_seeds - 1) + questions**2 / (n_questions - 1)
                            + common**2 / ((n_seeds - 1) * (n_questions - 1))))
    se = (total / values.size) ** 0.5
    low, high = st.t.interval(0.95, df, mean, se)
    return {"se": se, "df": df, "low": low, "high": high, "p": 2 * st.t.sf(abs(mean / se), df),
            "se_seeds": st.sem(values.mean(1)), "se_questions": st.sem(values.mean(0)),
            "var_seeds": max(0, (seeds - rest) / n_questions), "var_questions": max(0, (questions - rest) / n_seeds),
            "var_rest": rest}


def two_level_cases(rng):
    for n_seeds, n_questions, seed_sd in [(1, 30, 0), (2, 12, 0.1), (3, 40, 0.3), (3, 40, 0), (5, 7, 1)]:
        values = rng.normal(0, 1, n_questions) + seed_sd * rng.normal(0, 1, (n_seeds, 1)) + \
            0.5 * rng.normal(0, 1, (n_seeds, n_questions))
        values = np.round(values + 0.2, 3)
        yield {"n_seeds": n_seeds, "n_questions": n_questions, "values": list(values.ravel()), "mean": values.mean(),
               **two_level(values)}


def bootstrap_cases(rng):
    # Of zeros and ones the resampled sum is binomial, so the percentiles are known.
    for k, n in [(3, 50), (250, 400), (990, 1000)]:
        yield {"values": [1.0] * k + [0.0] * (n - k), "low": st.binom.ppf(0.025, n, k / n) / n,
               "high": st.binom.ppf(0.975, n, k / n) / n, "tolerance": 1.01 / n}
    values = np.round(rng.gamma(2, 1, 80), 3)
    interval = st.bootstrap((values,), np.mean, method="percentile", n_resamples=400000, rng=rng,
                            batch=10000).confidence_interval
    yield {"values": list(values), "low": interval.low, "high": interval.high, "tolerance": 0.015}


def exact_power(n, discordance, difference, alpha):
    """Of McNemar's test by the normal distribution, summed over all outcomes that matter."""
    power, share = 0.0, (discordance + difference) / (2 * discordance)
    for flips in range(int(st.binom.ppf(1e-9, n, discordance)), int(st.binom.ppf(1 - 1e-9, n, discordance)) + 1):
        better = np.arange(flips + 1)
        shown = np.abs(2 * better - flips) > st.norm.ppf(1 - alpha / 2) * flips**0.5
        power += st.binom.pmf(flips, n, discordance) * st.binom.pmf(better[shown], flips, share).sum()
    return power


def power_cases():
    for n, discordance, alpha, power in [(1000, 0.02, 0.05, 0.8), (1000, 0.2, 0.05, 0.8), (100, 0.3, 0.05, 0.8),
                                         (2000, 0.1, 0.001, 0.9), (400, 0.05, 0.05, 0.5)]:
        a, b = st.norm.ppf(1 - alpha / 2), st.norm.ppf(power)
        difference = scipy.optimize.brentq(
            lambda d: a * discordance**0.5 + b * (discordance - d * d) ** 0.5 - d * n**0.5, 0, discordance, xtol=1e-15)
        reached = exact_power(n, discordance, difference, alpha)
        assert abs(reached - power) < 0.05, (n, discordance, difference, reached)
        yield {"n": n, "discordance": discordance, "alpha": alpha, "power": power, "difference": difference}


def main():
    rng = np.random.default_rng(13)
    goldens = {
        "mcnemar": list(mcnemar_cases()),
        "adjusted": list(adjusted_cases(rng)),
        "two_level": list(two_level_cases(rng)),
        "bootstrap": list(bootstrap_cases(rng)),
        "power": list(power_cases()),
        "normal": [{"p": p, "x": st.norm.ppf(p)} for p in [1e-9, 0.001, 0.025, 0.5, 0.8, 0.975, 0.999999]],
        "student": [{"p": p, "df": df, "t": st.t.isf(p / 2, df)} for df in [1, 2, 2.5, 10, 998.3, 1e6]
                    for p in [0.9, 0.05, 1e-4]],
    }
    OUT.write_text(json.dumps(goldens, indent=None, separators=(",", ":"), default=float).replace("},{", "},\n{") + "\n")


if __name__ == "__main__":
    main()
