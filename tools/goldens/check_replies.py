#!/usr/bin/env python3
"""The hand-made replies of tests/lab/data/replies.jsonl, as lm-evaluation-harness scores GSM8K's.

    venv/bin/pip install lm-eval
    venv/bin/python tools/goldens/check_replies.py

Writes into each row of format hash whose answer is a number what the filters strict-match and flexible-extract of its
task gsm8k make of the reply. Verdicts stay as they are: where they differ, the row says why ("differs"), and
tests/lab/test_score.c checks that no row differs without.
"""
import importlib.resources
import json
import pathlib
import re

import yaml
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter

LIST = pathlib.Path(__file__).resolve().parents[2] / "tests/lab/data/replies.jsonl"


def main():
    task = yaml.safe_load(importlib.resources.files("lm_eval").joinpath("tasks/gsm8k/gsm8k.yaml").read_text())
    ignore = task["metric_list"][0]["regexes_to_ignore"]
    filters = {}
    for entry in task["filter_list"]:
        settings = {k: v for k, v in entry["filter"][0].items() if k != "function"}
        filters[entry["name"]] = RegexFilter(**settings)
    rows = [json.loads(line) for line in LIST.read_text().splitlines()]
    for row in rows:
        if row["format"] != "hash" or not re.fullmatch(r"-?[0-9.]+", row["answer"]):
            continue
        for key, name in (("strict", "strict-match"), ("flexible", "flexible-extract")):
            found = filters[name].apply([[row["reply"]]], [{}])[0][0]
            row[key] = bool(exact_match_hf_evaluate(predictions=[found], references=["#### " + row["answer"]],
                                                    regexes_to_ignore=ignore, ignore_case=True)["exact_match"])
    LIST.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    main()
