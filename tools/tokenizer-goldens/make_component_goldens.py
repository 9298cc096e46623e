#!/usr/bin/env python3
"""Writes tests/tokenizer/data/components.json: every kind of part that the `tokenizers` package has, put into small
tokenizers, and hashes of what it makes of the texts of goldens/gpt2.json.

A part that we refuse has the word that our message names instead ("refused").
"""

import itertools
import json
import pathlib

import corpora
import tokenizers
from tokenizers import Regex, Tokenizer
from tokenizers import decoders as D
from tokenizers import normalizers as N
from tokenizers import pre_tokenizers as P
from tokenizers import processors as O

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/tokenizer/data"
BEHAVIOURS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
SCHEMES = ["always", "first", "never"]
AFTER, PLACE, REGEX = "a pre-tokenizer after ByteLevel", "a decoder in this place", "'Regex'"


def normalizers():
    yield N.NFC(), None
    yield N.Replace(" ", "_"), None
    yield N.Replace("aa", "a"), None
    yield N.Prepend("x"), None
    yield N.Sequence([]), None
    yield N.Sequence([N.NFC(), N.Prepend("x"), N.Replace("a", "bb"), N.Replace("bb", "")]), None
    for part in (N.NFD(), N.NFKC(), N.NFKD(), N.StripAccents(), N.Lowercase(), N.Strip(), N.ByteLevel(), N.BertNormalizer(), N.Nmt()):
        yield part, f"'{type(part).__name__}'"
    yield N.Replace(Regex(r"\s+"), " "), REGEX


def pre_tokenizers():
    for prefix, regex, trim in itertools.product((False, True), repeat=3):
        yield P.ByteLevel(add_prefix_space=prefix, use_regex=regex, trim_offsets=trim), None
    for behaviour, invert in itertools.product(BEHAVIOURS, (False, True)):
        yield P.Split("a", behaviour, invert), None
        yield P.Split(Regex(r"\s?\p{L}+|\d"), behaviour, invert), None
        yield P.Split(Regex(r"(?<=\d)[a-z]|\s+(?!\S)|^"), behaviour, invert), None
    for scheme, split in itertools.product(SCHEMES, (False, True)):
        yield P.Metaspace(prepend_scheme=scheme, split=split), None
        yield P.Sequence([P.Digits(True), P.Metaspace(replacement="_", prepend_scheme=scheme, split=split)]), None
    yield P.Digits(False), None
    yield P.Digits(True), None
    yield P.Sequence([]), None
    yield P.Sequence([P.Split(Regex(r"\p{N}{1,3}"), "isolated"), P.ByteLevel(add_prefix_space=True, use_regex=True)]), None
    yield P.Sequence([P.Metaspace(), P.Digits(True)]), None
    yield P.Sequence([P.ByteLevel(False), P.Digits(True)]), AFTER
    for part in (P.Punctuation(), P.Whitespace(), P.WhitespaceSplit(), P.BertPreTokenizer(), P.CharDelimiterSplit("a"), P.UnicodeScripts(), P.FixedLength(5)):
        yield part, f"'{type(part).__name__}'"


def decoders():
    yield D.ByteLevel(), None
    yield D.ByteFallback(), None
    yield D.Fuse(), None
    yield D.Replace("a", "bb"), None
    for scheme in SCHEMES:
        yield D.Metaspace(prepend_scheme=scheme), None
    yield D.Sequence([]), None
    yield D.Sequence([D.Replace("a", "b"), D.Replace("b", "c")]), None
    yield D.Sequence([D.Replace("\u2581", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)]), None
    yield D.Sequence([D.Replace("\u2581", " "), D.ByteFallback(), D.Fuse()]), None
    yield D.Sequence([D.ByteLevel(), D.Fuse()]), None
    yield D.Sequence([D.ByteLevel(), D.Strip(" ", 1, 0)]), None
    yield D.Sequence([D.Metaspace(), D.Fuse()]), None
    for strip in ([D.Strip("a", 1, 1)], [D.Strip("a", 1, 0), D.Fuse()], [D.ByteFallback(), D.Strip(" ", 1, 0), D.Fuse()]):
        yield D.Sequence(strip), PLACE
    for late in ([D.Fuse(), D.Replace("ab", "x")], [D.Fuse(), D.ByteFallback()], [D.Fuse(), D.Metaspace()], [D.ByteFallback(), D.Replace("a", "b")]):
        yield D.Sequence(late), PLACE
    for part in (D.BPEDecoder(), D.CTC(), D.WordPiece()):
        yield part, f"'{type(part).__name__}'"
    yield D.Replace(Regex("a+"), "b"), REGEX


def post_processors():
    ids = [("<s>", 1), ("</s>", 2)]
    for single in ("$A", "<s> $A", "$A </s>", "<s> <s> $A </s>"):
        yield O.TemplateProcessing(single=single, pair="$A $B", special_tokens=ids), None
    yield O.ByteLevel(trim_offsets=True), None
    first, second = (O.TemplateProcessing(single=s, pair="$A $B", special_tokens=ids) for s in ("<s> $A", "$A </s>"))
    yield O.Sequence([O.ByteLevel(), first]), None
    yield O.Sequence([first, second]), "a template after another one"
    yield O.BertProcessing(("</s>", 2), ("<s>", 1)), "'BertProcessing'"
    yield O.RobertaProcessing(("</s>", 2), ("<s>", 1)), "'RobertaProcessing'"


PARTS = {"normalizer": normalizers, "pre_tokenizer": pre_tokenizers, "decoder": decoders, "post_processor": post_processors}
OPTIONS = [({"fuse_unk": True}, None), ({"fuse_unk": False}, None), ({"byte_fallback": True}, None), ({"ignore_merges": True}, None), ({"dropout": 0.0}, None), ({"unk_token": None}, None), ({"continuing_subword_prefix": ""}, None), ({"dropout": 0.5}, "'dropout'"), ({"end_of_word_suffix": "</w>"}, "'</w>'")]
MODELS = [({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]]}, "'Unigram'"), ({"type": "WordPiece", "unk_token": "<unk>", "vocab": {"<unk>": 0}, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}, "'WordPiece'"), ({"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0}}, "'WordLevel'")]


def variants(tree):
    """Changes of a tokenizer's keys, and what they are refused by."""
    for key, parts in PARTS.items():
        for part, refused in parts():
            blank = Tokenizer(tokenizers.models.BPE())
            setattr(blank, key, part)
            yield {key: json.loads(blank.to_str())[key]}, refused
    yield {"decoder": None}, "'null'"
    for options, refused in OPTIONS:
        yield {"model": tree["model"] | options}, refused
    for model, refused in MODELS:
        yield {"model": model, "added_tokens": []}, refused


def refused_together(tree, changes):
    """Metaspace's "first" asks for the original place of a character, which Prepend and Replace move."""
    whole = tree | changes
    moves = any(f'"{kind}"' in json.dumps(whole["normalizer"]) for kind in ("Prepend", "Replace"))
    return "first, after a normalizer" if moves and '"first"' in json.dumps(whole["pre_tokenizer"]) else None


def kept(changes, tree):
    """The model's options alone: the vocabulary is in the base."""
    if "model" not in changes or "merges" not in changes["model"]:
        return changes
    return {"model": {k: v for k, v in changes["model"].items() if v != tree["model"].get(k, 0)}}


def shown(tree, changes, texts):
    tokenizer = Tokenizer.from_str(json.dumps(tree | changes))
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    row = {"ids": corpora.fnv(i for line in ids for i in [*line, 0x7FFFFFFF]), "whole": whole}
    if "normalizer" not in changes:  # the package shows added tokens in their normalized form
        row["back"] = corpora.fnv(b for line in ids for b in tokenizer.decode(line, skip_special_tokens=True).encode() + b"\n")
    return row


def main():
    golden = json.loads((DATA / "goldens/gpt2.json").read_text())
    texts = [g["text"] if "text" in g else bytes.fromhex(g["hex"]).decode(errors="replace") for g in golden["texts"]]
    rows = []
    for base in ("gpt2", "metaspace", "llama"):
        tree = json.loads((DATA / f"small/{base}.json").read_text())
        for changes, refused in variants(tree):
            refused = refused or refused_together(tree, changes)
            row = {"refused": refused} if refused else shown(tree, changes, texts)
            rows.append({"base": base, "changes": kept(changes, tree)} | row)
    text = f'{{"made_with": "tokenizers {tokenizers.__version__}", "rows": [\n' + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "]}\n"
    (DATA / "components.json").write_text(text)
    print(len(rows), "rows,", sum("refused" in r for r in rows), "refused,", len(text), "bytes")


if __name__ == "__main__":
    main()
