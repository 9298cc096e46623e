#!/usr/bin/env python3
"""Writes tests/tokenizer/data: what the `tokenizers` package makes of nasty texts and of large ones.

    make_goldens.py [NAME...]       names: reference, deepseek_v3, qwen3, and those in small.py; default all
"""

import json
import os
import pathlib
import sys

import corpora
import kimi
import nasty
import small
import tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/tokenizer/data"
OUTSIDE = pathlib.Path(os.environ.get("MOEBIUS_TEST_DATA", ROOT / "../shared/data"))
BLOCK = 32768  # ids under one hash

REFERENCE = ROOT / "models/reference"
PUBLISHED = {name: OUTSIDE / "tokenizers" / name / "tokenizer.json" for name in ("deepseek_v3", "qwen3")}
PROSE = {"reference": REFERENCE / "eval.jsonl"} | {name: OUTSIDE / "wikitext2/test.txt" for name in PUBLISHED}


def shows_normalized(tokenizer, ids):
    """The package (0.23) shows an added token that was normalized in its normalized form, and then no longer knows a
    special one as special. We show a token's content; no published tokenizer seen has such a token."""
    added = tokenizer.get_added_tokens_decoder()
    return any(i in added and tokenizer.id_to_token(i) != added[i].content for i in ids)


def of_text(tokenizer, text):
    valid = text if isinstance(text, str) else text.decode(errors="replace")
    ids = tokenizer.encode(valid, add_special_tokens=False).ids
    golden = {"text": text} if isinstance(text, str) else {"hex": text.hex()}
    golden["ids"] = ids
    if shows_normalized(tokenizer, ids):
        return golden | {"back": None}
    back = tokenizer.decode(ids, skip_special_tokens=False)
    if back != valid:
        golden["back"] = back
    without_special = tokenizer.decode(ids, skip_special_tokens=True)
    if without_special != back:
        golden["back_without_special"] = without_special
    return golden


def of_corpus(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return {
        "text_nbytes": len(text.encode()),
        "text_hash": corpora.fnv(text.encode()),
        "n_ids": len(ids),
        "back_hash": corpora.fnv(tokenizer.decode(ids, skip_special_tokens=False).encode()),
        "block_hashes": [corpora.fnv(ids[i : i + BLOCK]) for i in range(0, len(ids), BLOCK)],
    }


def added_tokens(tokenizer):
    return [t.content for _, t in sorted(tokenizer.get_added_tokens_decoder().items())]


def edges(tokenizer):
    inner, whole = (tokenizer.encode("a", add_special_tokens=s).ids for s in (False, True))
    i = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
    return whole[:i], whole[i + len(inner) :]


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def lines(items):
    return ",\n".join(items) + "\n"


def write(name, tokenizer, texts, large):
    before, after = edges(tokenizer)
    head = {
        "made_with": getattr(tokenizer, "__version__", f"tokenizers {tokenizers.__version__}"),
        "n_vocab": max(tokenizer.get_vocab().values()) + 1,
        "before": before,
        "after": after,
        "block": BLOCK,
    }
    body = json.dumps(head)[:-1]
    body += ',\n"corpora": {\n' + lines(f'"{key}":{compact(of_corpus(tokenizer, text))}' for key, text in large.items())
    body += '},\n"texts": [\n' + lines(compact(of_text(tokenizer, text)) for text in texts) + "]}\n"
    (DATA / "goldens" / f"{name}.json").write_text(body)
    print(name, len(texts), "texts", len(body), "bytes")


def write_kimi(name, large):
    """A folder with tiktoken.model: a small one that is kept, or o200k's ranks as if they were Kimi's."""
    folder, ranks = DATA / name, OUTSIDE / "tokenizers/o200k_base/o200k_base.tiktoken"
    folder.mkdir(exist_ok=True)
    if name == "kimi":
        ranks = folder / "tiktoken.model"
        ranks.write_text(kimi.small_ranks(REFERENCE / "tokenizer.json", 700))
    tokenizer = kimi.AsTokenizer(ranks)
    config = kimi.config(tokenizer.kimi.n_ranks)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    added = [*kimi.NAMES.values(), tokenizer.kimi.added[100]]
    write(name, tokenizer, nasty.texts(added, 0), {key: large[key] for key in ("mixed", "long", "characters")})


def main():
    names = sys.argv[1:] or ["reference", *PUBLISHED, *small.ALL, "kimi", "kimi_o200k"]
    large = corpora.generated()
    for name in names:
        if name.startswith("kimi"):
            write_kimi(name, large)
            continue
        if name in small.ALL:
            tokenizer = small.ALL[name]()
            path = DATA / "small" / f"{name}.json"
            path.write_text(compact(json.loads(tokenizer.to_str())) + "\n")
            texts = nasty.texts(added_tokens(tokenizer)[len(small.SPECIAL) :], 60)
            write(name, tokenizer, texts, {"mixed": large["mixed"]})
            continue
        path = PUBLISHED.get(name, REFERENCE / "tokenizer.json")
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        texts = nasty.texts(added_tokens(tokenizer), 150)
        write(name, tokenizer, texts, {"prose": corpora.prose(PROSE[name])} | large)


if __name__ == "__main__":
    main()
