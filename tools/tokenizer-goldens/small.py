"""Small tokenizers for what the published ones do not have: other pipelines, each trained here on a few lines."""

import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPECIAL = ["<unk>", "<s>", "</s>"]
OTHER_SCRIPTS = [
    "\u00e9t\u00e9 na\u00efve \u00fcber stra\u00dfe",
    "\u4e2d\u6587\u5206\u8bcd\u6d4b\u8bd5",
    "\u3072\u3089\u304c\u306a \u30ab\u30bf\u30ab\u30ca",
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442",
    "def f(x):\n    return x ** 2",
]


def lines():
    problems = (ROOT / "models/reference/eval.jsonl").read_text().splitlines()[:200]
    return [json.loads(p)["question"] for p in problems] + 3 * OTHER_SCRIPTS


def split(regex, behavior, invert=False):
    return pre_tokenizers.Split(Regex(regex), behavior, invert)


def train(tokenizer, vocab_size, byte_level, special=SPECIAL):
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    tokenizer.train_from_iterator(
        lines(),
        trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


def around(before, after):
    tokens = [(t, SPECIAL.index(t)) for t in set(before + after)]
    return processors.TemplateProcessing(single=" ".join(before + ["$A"] + after), special_tokens=tokens)


def gpt2():
    """A space in front, the ByteLevel pattern, tokens around a text, added tokens of every kind."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    t.decoder = decoders.ByteLevel()
    t.post_processor = around(["<s>"], ["</s>"])
    train(t, 420, True)
    t.add_tokens([AddedToken("[L]", lstrip=True), AddedToken("[R]", rstrip=True), AddedToken("[LR]", lstrip=True, rstrip=True)])
    t.add_tokens([AddedToken("word", single_word=True), AddedToken("[L]x", normalized=False), "caf\u00e9"])
    t.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True)])
    return t


def llama():
    """SentencePiece's form: spaces made visible by normalizers, no words, unknown characters as bytes."""
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    t.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    t.post_processor = around(["<s>"], [])
    train(t, 560, False, SPECIAL + [f"<0x{b:02X}>" for b in range(256)])
    t.pre_tokenizer = None
    fields = json.loads(t.to_str())  # the bytes are tokens like others, not added ones
    fields["added_tokens"] = fields["added_tokens"][: len(SPECIAL)]
    return Tokenizer.from_str(json.dumps(fields))


def metaspace():
    """Metaspace words, unknown characters fused into <unk>."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    t.decoder = decoders.Metaspace(prepend_scheme="first", split=True)
    return train(t, 300, False)


def unknown():
    """One <unk> for each unknown character, words by Metaspace everywhere."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    t.decoder = decoders.Metaspace(prepend_scheme="always", split=True)
    return train(t, 250, False)


def neox():
    """OLMoE's form: NFC, ByteLevel, runs of spaces as added tokens."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    t.decoder = decoders.ByteLevel()
    train(t, 400, True)
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in (8, 4, 3, 2)])
    t.add_tokens([AddedToken("e\u0301t\u0301", normalized=True), AddedToken("e\u0301|", normalized=False)])
    return t


def llama3():
    """A published kind of pattern before ByteLevel, whole words first, two post-processors."""
    t = Tokenizer(models.BPE(ignore_merges=True))
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    t.pre_tokenizer = pre_tokenizers.Sequence([split(pattern, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), around(["<s>"], [])])
    return train(t, 450, True)


def splits():
    """Every behaviour of Split, literals, intersections of classes, Digits."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            split(r"[\p{Han}\p{Hiragana}\p{Katakana}]+", "isolated"),
            split(r"[\p{L}&&[^\p{Lu}]]+\.?|[^\S\n]", "merged_with_previous"),
            split(r"\p{Lu}(?=\p{Ll})", "merged_with_next"),
            split(r"[!?]", "contiguous"),
            split(r"(?<=\d)[a-z]|^\s+$", "isolated", True),
            pre_tokenizers.Split("zz", "removed"),
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    t.decoder = decoders.ByteLevel()
    return train(t, 380, True)


ALL = {f.__name__: f for f in (gpt2, llama, metaspace, unknown, neox, llama3, splits)}
