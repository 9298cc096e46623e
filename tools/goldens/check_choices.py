#!/usr/bin/env python3
"""Multiple choice: `moebius eval --task` beside lm-evaluation-harness on the same model and questions.

    venv/bin/pip install "lm-eval[hf]"
    venv/bin/python tools/goldens/check_choices.py build/release/cli/moebius models/reference ../shared/data [N [SHOTS]]
    venv/bin/python tools/goldens/check_choices.py golden models/reference

lm-evaluation-harness runs its own tasks (arc_easy, arc_challenge, winogrande, MMLU by subject) on its own model
class, in float32; only the questions come from the files. Log-likelihoods have to agree to 1e-3, and the accuracies
have to be the same. With SHOTS the first questions of each file (MMLU: of each subject) are the examples of the
others. Questions longer than the model's context are left out: lm-evaluation-harness cuts their
beginning, Moebius counts them as wrong. `golden` writes tests/lab/data/choices.json, the log-likelihoods of
choices.jsonl.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import lm_eval
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks.winogrande import preprocess_winogrande as winogrande

# The prompts are those of lm_eval/tasks/*.yaml, with the keys of our files.
ARC = {"doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}"}
MMLU = {
    "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
    "doc_to_choice": ["A", "B", "C", "D"],
    "doc_to_target": "answer",
}
WINOGRANDE = {
    "doc_to_text": winogrande.doc_to_text,
    "doc_to_target": winogrande.doc_to_target,
    "doc_to_choice": winogrande.doc_to_choice,
}
FILES = [("arc/arc_easy_test.jsonl", ARC), ("arc/arc_challenge_test.jsonl", ARC), ("mmlu/validation.jsonl", MMLU),
         ("winogrande/validation.jsonl", WINOGRANDE)]
MMLU_DESCRIPTION = "The following are multiple choice questions (with answers) about {}.\n\n"


def ours(program, model, lines, shown, n_shots, folder):
    task, examples, replies = folder / "task.jsonl", folder / "examples.jsonl", folder / "replies.jsonl"
    task.write_text("".join(lines))
    examples.write_text("".join(shown))
    few = ["--few-shot", str(n_shots), "--examples", examples] if n_shots else []
    out = subprocess.run([program, "eval", model, "--task", task, "--replies", replies, "--cache-type", "f32", "-o", "json",
                          *few], check=True, capture_output=True, text=True).stdout
    return json.loads(out), [json.loads(line) for line in replies.read_text().splitlines()]


def theirs(lm, name, keys, description, lines, shown, n_shots, folder):
    path, dev = folder / f"{name}.jsonl", folder / f"{name}_dev.jsonl"
    path.write_text("".join(lines))
    dev.write_text("".join(shown or lines[:1]))
    task = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path), "dev": str(dev)}},
            "fewshot_split": "dev", "fewshot_config": {"sampler": "first_n"}, "num_fewshot": n_shots, "output_type": "multiple_choice", "test_split": "test", "description": description,
            "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")],
            **keys}
    result = lm_eval.simple_evaluate(model=lm, tasks=[task], log_samples=True, bootstrap_iters=0,
                                     task_manager=TaskManager(include_defaults=False))
    samples = sorted(result["samples"][name], key=lambda s: s["doc_id"])
    return [[float(r[0]) for r in s["filtered_resps"]] for s in samples], [s["acc"] for s in samples], \
        [s["acc_norm"] for s in samples]


def subject_of(line):
    return json.loads(line).get("subject", "")


def take_examples(lines, n_shots):
    """The first of each subject, and the others."""
    shown, asked, counts = [], [], {}
    for line in lines:
        counts[subject_of(line)] = counts.get(subject_of(line), 0) + 1
        (shown if counts[subject_of(line)] <= n_shots else asked).append(line)
    return shown, asked


def all_theirs(lm, name, keys, lines, shown, n_shots, folder):
    """MMLU has a task, and a description, for each subject."""
    if keys is not MMLU:
        return theirs(lm, name, keys, "", lines, shown, n_shots, folder)
    groups = {}
    for i, line in enumerate(lines):
        groups.setdefault(subject_of(line), []).append(i)
    merged = [[None] * len(lines) for _ in range(3)]
    for subject, places in groups.items():
        found = theirs(lm, f"mmlu_{subject}", keys, MMLU_DESCRIPTION.format(subject.replace("_", " ")),
                       [lines[i] for i in places], [line for line in shown if subject_of(line) == subject], n_shots, folder)
        for values, out in zip(found, merged):
            for place, value in zip(places, values):
                out[place] = value
    return merged


def compare(program, model, data, limit, n_shots, lm, file, keys):
    shown, lines = take_examples([line + "\n" for line in (data / file).read_text().splitlines()[:limit]], n_shots)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _, replies = ours(program, model, lines, shown, n_shots, folder)
        kept = [i for i, r in enumerate(replies) if r["log_likelihoods"]]
        lines = [lines[i] for i in kept]
        report, replies = ours(program, model, lines, shown, n_shots, folder)
        sums, acc, acc_norm = all_theirs(lm, pathlib.Path(file).stem, keys, lines, shown, n_shots, folder)
    worst = max(abs(a - b) for r, s in zip(replies, sums) for a, b in zip(r["log_likelihoods"], s, strict=True))
    same = [r["acc"] == bool(a) for r, a in zip(replies, acc)]
    partial = keys is WINOGRANDE  # lm-evaluation-harness has no acc_norm for it
    same_norm = [partial or r["acc_norm"] == bool(a) for r, a in zip(replies, acc_norm)]
    print(f"{file}: {len(lines)} questions ({limit - len(lines)} examples, too long or missing), acc {report['acc']['share']:.4f} and "
          f"{sum(acc) / len(acc):.4f}, log-likelihoods at most {worst:.2e} apart, acc differs on {same.count(False)}, "
          f"acc_norm on {same_norm.count(False)}")
    return worst < 1e-3 and all(same) and all(same_norm)


def pairs(question):
    """Contexts and continuations of a question, as the tasks above make them."""
    if "sentence" in question:
        rest = " " + winogrande.doc_to_target(question)
        return [(context, rest) for context in winogrande.doc_to_choice(question)]
    text, letters = question["question"], "ABCDE"
    if "options" in question:
        context = "\n".join([f"Question: {text}", *question["options"], "Answer:"])
        return [(context, f" {letter}") for letter in letters[: len(question["options"])]]
    choices = question["choices"]
    if "subject" not in question:
        return [(f"Question: {text}\nAnswer:", f" {choice}") for choice in choices]
    listed = [f"{letter}. {choice}" for letter, choice in zip(letters, choices)]
    context = MMLU_DESCRIPTION.format(question["subject"].replace("_", " ")) + "\n".join([text.strip(), *listed, "Answer:"])
    return [(context, f" {letter}") for letter in letters[: len(choices)]]


def write_golden(lm):
    folder = pathlib.Path(__file__).resolve().parents[2] / "tests/lab/data"
    golden = []
    for line in (folder / "choices.jsonl").read_text().splitlines():
        requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs(json.loads(line)))]
        golden.append([round(ll, 6) for ll, _ in lm.loglikelihood(requests)])
    (folder / "choices.json").write_text("[" + ",\n".join(map(json.dumps, golden)) + "]\n")


def main():
    program, model = sys.argv[1:3]
    network = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    lm = HFLM(pretrained=network, tokenizer=transformers.AutoTokenizer.from_pretrained(model), batch_size=8)
    if program == "golden":
        return write_golden(lm)
    data = sys.argv[3]
    limit = int(sys.argv[4]) if len(sys.argv) > 4 else 300
    n_shots = int(sys.argv[5]) if len(sys.argv) > 5 else 0
    print(f"lm-eval {lm_eval.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    good = [compare(program, model, pathlib.Path(data), limit, n_shots, lm, file, keys) for file, keys in FILES]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
