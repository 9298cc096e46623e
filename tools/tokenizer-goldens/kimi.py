"""A Kimi-like folder of any rank file: what tokenization_moonshot.py makes of tiktoken.model, and what it gives tiktoken."""

import base64
import json
import re

import tiktoken
import tokenizers

N_SPECIAL = 256
RUN_MAX, CHUNK_MAX = 25_000, 400_000
NAMES = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 4: "<|im_assistant|>", 9: "[EOT]", 10: "<|im_system|>",
         17: "<|im_middle|>", 20: "\u00e9\u00b7<\uff5ctool\uff5c>", 254: "[UNK]", 255: "[PAD]"}
NOT_SPECIAL = 20  # "special": false, and not in additional_special_tokens

UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]", r"\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]"
BEFORE, ENDING = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join(
    [
        r"[\p{Han}]+",
        f"{BEFORE}[{UPPER}]*[{LOWER}]+{ENDING}",
        f"{BEFORE}[{UPPER}]+[{LOWER}]*{ENDING}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def read_ranks(text):
    return {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in text.splitlines() if line}


def config(n_ranks):
    """tokenizer_config.json."""
    decoder = {
        str(n_ranks + i): {"content": name, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": i != NOT_SPECIAL}
        for i, name in NAMES.items()
    }
    return {
        "added_tokens_decoder": decoder,
        "additional_special_tokens": [NAMES[i] for i in (2, 3, 4, 9, 10, 17)],
        "auto_map": {"AutoTokenizer": ["tokenization_moonshot.TikTokenTokenizer", None]},
        "bos_token": "[BOS]",
        "eos_token": "[EOS]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "model_max_length": int(1e30),
        "tokenizer_class": "TikTokenTokenizer",
        "chat_template": "{%- for m in messages -%}<|im_{{ m.role }}|>{{ m.role }}<|im_middle|>{{ m.content }}<|im_end|>{%- endfor -%}",
    }


def pieces(text):
    """Where the Python class cuts before tiktoken sees anything."""
    for begin in range(0, len(text), CHUNK_MAX):
        chunk, n_run, first = text[begin : begin + CHUNK_MAX], 0, 0
        for i, char in enumerate(chunk):
            n_run = n_run + 1 if i > 0 and char.isspace() == chunk[i - 1].isspace() else 1
            if n_run > RUN_MAX:
                yield chunk[first:i]
                first, n_run = i, 1
        yield chunk[first:]


class Kimi:
    def __init__(self, ranks):
        self.n_ranks = len(ranks)
        self.special = {NAMES.get(i, f"<|reserved_token_{len(ranks) + i}|>"): len(ranks) + i for i in range(N_SPECIAL)}
        self.shown = {len(ranks) + i for i in range(N_SPECIAL) if i not in NAMES} | {len(ranks) + NOT_SPECIAL}
        self.model = tiktoken.Encoding("kimi", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=self.special)
        self.added = list(self.special)

    def encode(self, text):
        """As tokenizer(text) does: transformers takes the special tokens out first."""
        ids = []
        for part in re.split("(" + "|".join(map(re.escape, NAMES.values())) + ")", text):
            for piece in pieces(part):
                ids += self.model.encode(piece, allowed_special="all")
        return ids

    def decode(self, ids, skip_special):
        return self.model.decode([i for i in ids if not skip_special or i < self.n_ranks or i in self.shown])


class Encoding:
    def __init__(self, ids):
        self.ids = ids


class AsTokenizer:
    """What make_goldens.py needs of a tokenizers.Tokenizer."""

    __version__ = f"tiktoken {tiktoken.__version__}"

    def __init__(self, path):
        self.kimi = Kimi(read_ranks(path.read_text()))

    def encode(self, text, add_special_tokens):
        return Encoding(self.kimi.encode(text))  # the class puts nothing around a text

    def decode(self, ids, skip_special_tokens):
        return self.kimi.decode(ids, skip_special_tokens)

    def get_added_tokens_decoder(self):
        return {}

    def get_vocab(self):
        return self.kimi.special


def small_ranks(tokenizer_json, n):
    """A rank file of the first n tokens of a byte-level vocabulary."""
    shown = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    codes = [*range(33, 127), *range(161, 173), *range(174, 256)]
    byte_of = {chr(c): c for c in codes} | {c: b for c, b in zip(sorted(set(shown) - set(map(chr, codes))), sorted(set(range(256)) - set(codes)))}
    vocab = json.loads(tokenizer_json.read_text())["model"]["vocab"]
    tokens = [bytes(byte_of[c] for c in t) for t, _ in sorted(vocab.items(), key=lambda item: item[1]) if all(c in byte_of for c in t)]
    singles = [bytes([b]) for b in range(256)]
    longer = [t for t in tokens if len(t) > 1]
    return "".join(f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate((singles + longer)[:n]))
