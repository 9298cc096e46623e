#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_tables.h: where the `tokenizers` package's Unicode differs from the libraries'.

PCRE2 10.42 and utf8proc 2.8 know Unicode 14. The package's regular expressions know a later version, its
NFC an earlier one, its Digits a third. The tables are found by asking the package about every character.

    pip install tokenizers        (Python 3.11, whose unicodedata is Unicode 14)
    ./unicode_tables.py > ../../src/tokenizer/unicode_tables.h
"""

import sys
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cf".split()
SCRIPTS = "Han Hiragana Katakana Hangul Latin Greek Cyrillic Arabic Hebrew Thai Devanagari".split()
ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def members(pattern, codes):
    """The codes that the package's regular expressions find in a class."""
    split = pre_tokenizers.Split(Regex(pattern + "+"), "removed")
    left = "".join(piece for piece, _ in split.pre_tokenize_str("".join(map(chr, codes))))
    return sorted(set(codes) - {ord(c) for c in left})


def ranges(codes):
    out = []
    for code in sorted(codes):
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return out


def print_table(name, comment, rows):
    print(f"/* {comment} */")
    print(f"static const struct mb_code_range {name}[] = {{")
    for first, last, tag in rows:
        print(f'    {{0x{first:x}, 0x{last:x}, "{tag}"}},')
    print("};\n")


def later_categories():
    unknown = [c for c in ALL if unicodedata.category(chr(c)) == "Cn"]
    rows = []
    for category in CATEGORIES:
        rows += [(first, last, category) for first, last in ranges(members(rf"\p{{{category}}}", unknown))]
    return sorted(rows)


def scripts():
    return [(first, last, name) for name in SCRIPTS for first, last in ranges(members(rf"\p{{{name}}}", ALL))]


def word_extra():
    known = [members(rf"\p{{{c}}}", ALL) for c in ("L", "M", "Nd", "Nl", "Pc")]
    word, in_class = set(members(r"\w", ALL)), set(members(r"[\w]", ALL))
    extra = [(first, last, "") for first, last in ranges(in_class - set().union(*known))]
    return sorted(extra + [(first, last, "outside") for first, last in ranges(word - in_class)])


def digits_extra():
    digits = pre_tokenizers.Digits(individual_digits=True)
    pieces = digits.pre_tokenize_str("".join("a" + chr(c) for c in ALL))
    cut = {ord(piece) for piece, _ in pieces if len(piece) == 1 and piece != "a"}
    return [(first, last, "") for first, last in ranges(cut - set(members(r"\p{N}", ALL)))]


def nfc_opaque():
    """Characters that Unicode 14 reorders or composes and the package leaves alone."""
    nfc = normalizers.NFC().normalize_str
    opaque = set()
    for c in ALL:
        text = "a" + chr(c) + "\u0301\u0323"
        if nfc(text) != unicodedata.normalize("NFC", text) or nfc(chr(c)) != unicodedata.normalize("NFC", chr(c)):
            opaque.add(c)
        pair = unicodedata.decomposition(chr(c)).split()
        if len(pair) == 2 and not pair[0].startswith("<"):
            text = "".join(chr(int(p, 16)) for p in pair)
            if nfc(text) != unicodedata.normalize("NFC", text):
                opaque.add(int(pair[1], 16))
    return [(first, last, "") for first, last in ranges(opaque)]


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit("unicode_tables.py: needs a Python whose unicodedata is Unicode 14.0.0, as 3.11 has it")
    print("/*\n * unicode_tables.h - where the `tokenizers` package's Unicode differs from PCRE2's and utf8proc's (14.0).\n"
          " *\n * Written by tools/tokenizer-goldens/unicode_tables.py.\n */")
    print("#ifndef MB_TOKENIZER_UNICODE_TABLES_H\n#define MB_TOKENIZER_UNICODE_TABLES_H\n\n#include <stdint.h>\n")
    print("struct mb_code_range {\n    uint32_t first, last;\n    char tag[12]; /* general category, script, or where it holds */\n};\n")
    print_table("mb_later_categories", "Characters assigned after Unicode 14.", later_categories())
    print_table("mb_scripts", "Scripts that patterns may name, whole.", scripts())
    print_table("mb_word_extra", "In \\w besides L, M, Nd, Nl and Pc; some only where it stands outside of a class.", word_extra())
    print_table("mb_digits_extra", "Numbers for the pre-tokenizer Digits besides \\p{N}.", digits_extra())
    print_table("mb_nfc_opaque", "Marks and letters that its NFC does not know: they neither move nor compose.", nfc_opaque())
    print("#endif")


if __name__ == "__main__":
    main()
