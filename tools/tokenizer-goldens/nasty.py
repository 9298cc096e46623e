"""Texts that tokenizers get wrong: cases by hand, and random mixtures of them."""

import random

# Each line: what it is about, then texts. bytes are not UTF-8.
CASES = [
    # nothing, and nearly nothing
    ["", " ", "  ", "   ", "\n", "\r\n", "\r", "\t", "\0", "a", "1", "."],
    # runs of white space before words, at ends, and between lines
    ["  a", "a  ", "a   b", "\n\n\na", "a\n \n b", " \n", "\n ", " \t\n", "a \r\n\r\n b", "\x0b\x0c\x1c\x1d\x1e\x1f\x85"],
    ["\u00a0a", "a\u00a0\u00a0b", "\u3000\u3000a", "\u1680a\u2000\u200a b\u2028c\u2029d\u202fe\u205ff", "\u180ea", "a\u200bb"],
    # contractions, in both cases and with other apostrophes
    ["I'm you're he's we'll they'd I've can't", "I'M YOU'RE HE'S WE'LL", "'s's's", "''s", "a's'd", "it\u2019s", "'\u017f", "'\u212a", "o'clock 'twas"],
    # numbers
    ["12", "123", "1234", "12345678901", "1,234.50", "3.14e-10", "0x1F", "a1b22c333d4444", "\u0661\u0662\u0663\u0664", "\u0967\u0968", "\u2167\u2168", "\u00bd\u00b2\u2460", "1\u20442", "\U0001d7d8\U0001d7d9\U0001d7da\U0001d7db", "\u3021\u3007\u4e00"],
    # punctuation and symbols
    ["...", "!!!???", "a.b.c", "--flag", "a->b::c", "<<=>>=", "$5.00 & 50%", "\u2026\u2014\u201ca\u201d", "(a)[b]{c}", "\u00a7\u00b6\u00a9", "\u20ac100", "+-*/=", "`~^|\\", "\u3002\u3001\uff01", "\u00bf\u00a1", ".\n", "!\r\n\n", "; \n"],
    # code
    ["def f(x):\n    return x**2\n", "\tif (a && b)\n\t\tc();\r\n", "#include <stdio.h>", "a_b_cDefGHI", "https://example.org/?a=b&c=%20#d"],
    # marks, composed and not
    ["\u00e9", "e\u0301", "\u0301", "\u0301\u0301\u0301", "a\u0323\u0307", "a\u0307\u0323", "\u1e9b\u0323", "\u0344", "\u212b\u2126\u00c5", "\uac00\u1100\u1161\u11a8", "\u0958\u0928\u093c", "\u2adc\U0001d15e", "\ufb01\ufb03", "\u0fb2\u0f71\u0f80", "o\u0308\u0304", "a\u0315\u0300\u05ae\u0062", "\u09c7\u09be", "\U00011099\U000110ba"],
    # letters that change length or class with case
    ["\u00df\u1e9e", "\u0130\u0131", "\u01c5\u01c6", "\u03a3\u03c3\u03c2", "\u2c7e\ua7c0", "\u13a0\uab70"],
    # scripts
    ["\u4e2d\u6587\u5206\u8bcd", "\u3072\u3089\u304c\u306a\u30ab\u30bf\u30ab\u30ca\u30fc\u6f22\u5b57", "\ud55c\uad6d\uc5b4 \ubb38\uc7a5", "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442", "\u0627\u0644\u0639\u0631\u0628\u064a\u0651\u0629", "\u05e2\u05d1\u05e8\u05d9\u05ea", "\u0939\u093f\u0928\u094d\u0926\u0940 \u0915\u093c", "\u0e44\u0e17\u0e22\u0e20\u0e32\u0e29\u0e32", "\u1786\u17d2\u1798\u17c2\u179a", "\u9fa5\u9fa6\u3400\U00020000", "\u309f\u30a0\u3040\u31f0"],
    # emoji: joiners, flags, skin, keycaps, selectors, tags
    ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea\U0001f1eb", "\U0001f44d\U0001f3fd", "1\ufe0f\u20e3", "\u2764\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e007f"],
    # invisible, private, unassigned, noncharacters
    ["\ufeffa", "a\u00adb", "\u200e\u200fa", "\ue000\uf8ff", "\uffff\ufffe\ufdd0", "\u0378\u0530", "\U0010ffff\U000f0000", "\ufffd"],
    # characters of Unicode versions after 14
    ["\u0cf3\u0ece", "\U00010efd\U00011240", "\U0001fae8\U0001fa75", "\U000105c0\U00016d40", "\U0002ebf0", "\u1c89\ua7cb"],
    # what byte-level vocabularies show bytes by, and what looks like a token
    ["\u0120\u010a\u0100", "\u0120a", "\u2581a\u2581", "<0x41>", "<|", "|>", "<\uff5c", "<|end", "<|end|", "<s></s><unk>"],
    # bytes that are not UTF-8
    [b"\xff", b"a\xffb", b"\xc3", b"\xe2\x82", b"\xe2\x82a", b"\xf0\x9f\x98", b"\xf0\x9f\x98\x80\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\x80\x80", b"caf\xe9 \xe9t\xe9", b"\xfe\xff\x00a"],
]
REPEATED = [("a", 300), (" ", 300), ("\n", 300), ("ab ", 60), ("1", 300), ("!", 300), ("\u4e2d", 120), ("\u0301", 120), ("\U0001f600", 60), ("aA", 100), ("\u00e9", 100)]

MIXED = ["'s", "'T", "'LL", "'\u017f", "\r\n", "\n", "\r", "\t", " ", "  ", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufeff", "\0", "a", "B", "\u00df", "12", "1234", "\u0661\u0662", "\u2167", "\u00bd", "\u4e2d", "\u6587", "\u3072", "\u30ab", "\u30fc", "\ud55c", "\u1112\u1161\u11ab", "!", "...", "--", "==", "\u00e9", "e\u0301", "\u0344", "\u1e9b\u0323", "\u0301\u0327", "\ufb01", "\u0130", "\U0001f1e9\U0001f1ea", "\U0001f468\u200d\U0001f469", "<|", "|>", "\u2581", "\u0120", "\ufffd"]
RANGES = [(0, 0x24F), (0x250, 0x2FFF), (0x3000, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x10FFFF)]


def mixture(rng, added):
    out = []
    for _ in range(rng.randint(2, 12)):
        kind = rng.randrange(6)
        if kind == 0 and added:
            out.append(rng.choice(added))
        elif kind == 1:
            out.append(chr(rng.randint(*rng.choice(RANGES))))
        elif kind == 2:
            out.append("".join(rng.choice("abcdefghijklmnopqrstuvwxyzABC") for _ in range(rng.randint(1, 9))))
        else:
            out.append(rng.choice(MIXED))
    return "".join(out)


def texts(added, n_mixed):
    """str and bytes; 'added': contents of a tokenizer's added tokens, which are put into texts too."""
    some = added[:3] + added[-3:] if len(added) > 6 else added
    around = [t for a in some for t in (a, a + a, f"x{a}y", f"  {a}  ", f"\n{a}\n.", a[:-1], a[1:])]
    rng = random.Random(7)
    return (
        [t for case in CASES for t in case]
        + [text * n for text, n in REPEATED]
        + around
        + [mixture(rng, added) for _ in range(n_mixed)]
    )
