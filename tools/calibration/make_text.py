"""Write src/calibrate/default.jsonl, the calibration text that comes with Moebius.

    python3 tools/calibration/make_text.py [--shakespeare input.txt]

In it: prose in many languages, programs and data, and questions (prose.txt, code.txt, questions.txt in this folder,
written for this project), word problems with solutions (tools/reference-model/problems.py, its training split), pieces
of this project's own documents and sources, and some pages of Shakespeare, which are in the public domain.  So all of
it may be given away under the project's licence.  Domains take turns, so that any part from the beginning has some of
each.
"""

import argparse
import json
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(REPO, "tools", "reference-model"))
import problems  # noqa: E402

PROJECT = ["README.md", "docs/format.md", "docs/scoring.md", "docs/library.md", "src/base/utf8.c", "src/base/pool.c",
           "src/jinja/lex.c", "include/moebius/codec.h", "tools/borders.py", "tools/goldens/truth.py", "CMakeLists.txt"]
PIECE = 1400  # characters


def read(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return file.read()


def pieces(text, n):
    """n pieces that begin at lines, evenly spread."""
    lines = text.splitlines(keepends=True)
    out = []
    for k in range(n):
        piece, at = "", k * len(lines) // n
        while at < len(lines) and len(piece) < PIECE:
            piece += lines[at]
            at += 1
        out.append(piece)
    return out


def prose():
    """Neighbours together: windows are no shorter than they need to be."""
    return [{"text": t.strip()} for t in read("prose.txt").split("\n\n")]


def code():
    return [{"text": t.strip("\n")} for t in read("code.txt").split("%%\n")]


def questions():
    out = []
    for item in read("questions.txt").split("%%\n"):
        question, reply = item.rstrip("\n").split("\n", 1)
        out.append({"question": question, "reply": reply})
    return out


def word_problems(n):
    rng = random.Random("moebius-calibration")
    made = (problems.problem(rng, False) for _ in range(n))
    return [{"question": p["question"], "reply": p["reply"]} for p in made]


def project():
    out = []
    for name in PROJECT:
        with open(os.path.join(REPO, name), encoding="utf-8") as file:
            out += [{"text": piece} for piece in pieces(file.read(), 2)]
    return out


def shakespeare(path):
    with open(path, encoding="utf-8") as file:
        return [{"text": piece} for piece in pieces(file.read(), 10)]


def take_turns(domains):
    """Items of all domains, each spread evenly."""
    placed = [((k + 0.5) / len(items), i, item) for i, items in enumerate(domains) for k, item in enumerate(items)]
    return [item for _, _, item in sorted(placed, key=lambda p: p[:2])]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shakespeare", default=os.path.join(REPO, "..", "shared", "data", "tinyshakespeare", "input.txt"))
    args = parser.parse_args()
    items = take_turns([prose(), code(), questions(), word_problems(150), project(), shakespeare(args.shakespeare)])
    path = os.path.join(REPO, "src", "calibrate", "default.jsonl")
    with open(path, "w", encoding="utf-8") as out:
        for item in items:
            out.write(json.dumps(item, ensure_ascii=False) + "\n")
    print(len(items), "items,", os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
