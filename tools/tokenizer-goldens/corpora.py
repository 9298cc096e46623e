"""The large texts that goldens are hashes of; tests/tokenizer/corpora.c makes the same ones.

Nothing large is kept: "code", "mixed" and "long" come from the pieces in tests/tokenizer/data/corpora.json, "characters"
from a loop, "prose" from a file that both sides have.
"""

import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
NBYTES = 1_000_000
MASK = (1 << 64) - 1


class Random:
    """A 64-bit linear congruential generator (Knuth's constants); its upper 31 bits."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & MASK
        return (self.state >> 33) % n


def from_pieces(corpus):
    """Pieces drawn at random until there are enough bytes: a text, or [first, last, n_min, n_max] characters."""
    random, out, nbytes = Random(corpus["seed"]), [], 0
    while nbytes < corpus["nbytes"]:
        piece = corpus["pieces"][random.below(len(corpus["pieces"]))]
        if not isinstance(piece, str):
            first, last, n_min, n_max = piece
            n = n_min + random.below(n_max - n_min + 1)
            piece = "".join(chr(first + random.below(last - first + 1)) for _ in range(n))
        out.append(piece)
        nbytes += len(piece.encode())
    return "".join(out)


def characters():
    """Every character of the first two planes, between a letter and a digit."""
    return "".join(f"a{chr(c)}1 " for c in range(0x20000) if not 0xD800 <= c < 0xE000)


def prose(path):
    """The first NBYTES of a file; what that cuts of a character is U+FFFD."""
    return path.read_bytes()[:NBYTES].decode(errors="replace")


def generated():
    pieces = json.loads((ROOT / "tests/tokenizer/data/corpora.json").read_text())
    return {name: from_pieces(corpus) for name, corpus in pieces.items()} | {"characters": characters()}


def fnv(numbers):
    """FNV-1a over numbers of 32 bits."""
    h = 0xCBF29CE484222325
    for n in numbers:
        h = ((h ^ n) * 0x100000001B3) & MASK
    return f"{h:016x}"
