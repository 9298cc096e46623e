#!/usr/bin/env python3
"""Writes tests/tokenizer/data/goldens/patterns.json: what the tokenizers package leaves of texts when it cuts out each pattern."""

import json
import pathlib

import tokenizers
from tokenizers import Regex, pre_tokenizers

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/tokenizer/data/goldens/patterns.json"

TEXTS = [
    "Hello WORLD, it's 12345 abcabc\n\n  aab\tab.c $.9 x-y_z [q] end",
    "caf\u00e9 \u00c9t\u00e9 \u0416\u0443\u043a \u4e2d\u6587\u3042\u30a2 \u0661\u0662 \u00bd\u00b2 \u20ac+\u00b1 e\u0301\u0323 \U0001f600\u200d\u2728 \u017f\u212a \u00df\u1e9e",
    "\r\n\u00a0\u3000\u2028 \u0085\x0b\x0c|a\nb\r\nc\x1b\x07'quoted' \"q\"\u2019s \u2581x",
]

PATTERNS = r"""
.
.+
a.c
\AHello|\Acaf|end\z|x\z
^.|.$
^\w+|\w+$
(?i)HELLO|x-Y
(?i:wORLD|Q)|(?-i:A)
[^abc]+
[a-f\d]+
[\x41-\x{5a}\u00e9]+
\x41|\x{4e2d}|\u3042
\p{^L}+
\P{L}+
\p{Lu}|\p{Ll}{2}
[\p{Lu}\p{Nd}]+
[^\p{L}\s]+
\p{L}\p{M}*
\p{N}{1,3}
\p{S}+|\p{P}
\p{Sc}|\p{Sm}|\p{So}
\p{Z}|\p{Cc}|\p{Cf}
\p{Han}+|\p{Hiragana}
\p{Cyrillic}+|\p{Greek}
\w+
\W+
[\w']+
\d+|\D
\s+
\S+
[^\S\n]+
[\S]
[\s\d]+
(?<=a)b|(?<!a)c
a(?=b)|b(?!\.)
(?>a+)b
a{2,3}|b{1}
a{2,}?|l{1,2}?
a+?b|a*?c
(?:ab)+c?
(ab|a)(c|bc)
[\-\]\[_]
[-a]|[+\-.]
\[|\]|\$\.|\\
\t|\n|\r|\v|\f|\a|\e
[\t\n\r\v\f\a\e]
[a-z&&[^aeiou]]+
[\p{L}&&[^\p{Lu}]]+
[\w&&[^aé]]+
[^\w'-]+
[\w-]+
[a-zà-ÿ]+
[中-文あ]
é|É|ß
' ?|"
 ?\p{L}+|\s+(?!\S)|\s+
(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+
x*
a|
(?=a)
\/|\-|\.
\x20+
(?i:q)|[\p{Lu}\p{Lt}]|s(?:t(?i:'s)?)
(?:(?i:W(?-i:O))|\p{Lu})R
[\p{Lu}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[\p{Han}]+
"""


def left(pattern, text):
    pieces = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(text)
    return [piece for piece, _ in pieces]


def main():
    patterns = [line for line in PATTERNS.split("\n") if line]
    goldens = {
        "made_with": f"tokenizers {tokenizers.__version__}",
        "texts": TEXTS,
        "patterns": [[pattern, *(left(pattern, text) for text in TEXTS)] for pattern in patterns],
    }
    OUT.write_text(json.dumps(goldens, indent=0) + "\n")


if __name__ == "__main__":
    main()
