"""Writes unicode.inc, what the tokenizers ask about characters: ``python csrc/tokenizer/make_unicode.py``.

Every character is asked twice: of Python's unicodedata and of the ``tokenizers`` library, whose parts follow different
versions of Unicode. Where the two agree the native tokenizer knows it; where they do not, and where a character has no
meaning yet, it says so, and a text with that character is left to the library.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers

END = 0x32400  # behind it nothing but tags, variation selectors and private characters: they are left to the library
WHITE = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
CJK = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
       (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))  # fmt: skip
LETTER, NUMBER, SPACE, DROPPED, BLANK, IDEOGRAPH, PUNCTUATION, MARK = (1 << i for i in range(8))
STRIPPED, LOWERED, ODD_IN_WORDS, ODD_IN_BYTES, NOT_NFC = (1 << i for i in range(8, 13))
CLASSES = (r"\p{L}", r"\p{N}", r"\s")
HANGUL = range(0xAC00, 0xD7A4)  # decomposed by arithmetic

CLEAN = normalizers.BertNormalizer(True, False, False, False)
APART = normalizers.BertNormalizer(False, True, False, False)
STRIP = normalizers.BertNormalizer(False, False, True, False)
LOWER = normalizers.BertNormalizer(False, False, False, True)
SPLIT = pre_tokenizers.BertPreTokenizer()
NFC = normalizers.NFC()


def between(normalizer: normalizers.Normalizer, c: str) -> str:
    """What becomes of a character between two letters."""
    return normalizer.normalize_str(f"a{c}b")[1:-1]


def library_classes() -> dict[str, set[str]]:
    """The characters of the classes that the byte-level pre-tokenizer's pattern names."""
    everything = "".join(chr(i) for i in range(END) if not 0xD800 <= i < 0xE000)
    others = {name: pre_tokenizers.Split(Regex(f"[^{name}]+"), "removed") for name in CLASSES}
    return {
        name: set("".join(piece for piece, _ in split.pre_tokenize_str(everything))) for name, split in others.items()
    }


def in_words(c: str) -> tuple[int, str, str]:
    """(flags, without accents, in lower case) for BERT's normalizer and splitting."""
    i, kind = ord(c), unicodedata.category(c)
    white = i in WHITE
    dropped = i in (0, 0xFFFD) or (c not in "\t\n\r" and kind in ("Cc", "Cf", "Co"))
    ideograph = any(first <= i <= last for first, last in CJK)
    punctuation = kind[0] == "P" or (i < 128 and c.isprintable() and not c.isalnum() and c != " ")
    bare = unicodedata.normalize("NFD", c)
    stripped, lowered = "".join(one for one in bare if unicodedata.category(one) != "Mn"), c.lower()
    pieces = [piece for piece, _ in SPLIT.pre_tokenize_str(f"a{c}b")]
    agreed = (
        kind != "Cn"
        and between(CLEAN, c) == ("" if dropped else " " if white else c)
        and between(APART, c) == (f" {c} " if ideograph else c)
        and between(STRIP, c) == stripped
        and between(LOWER, c) == lowered
        and pieces == (["a", "b"] if white else ["a", c, "b"] if punctuation else [f"a{c}b"])
        # Marks that are not stripped may change places with others.
        and not any(map(unicodedata.combining, stripped))
    )
    flags = DROPPED * dropped | BLANK * (white and not dropped) | IDEOGRAPH * ideograph | PUNCTUATION * punctuation
    flags |= MARK * (not stripped) | STRIPPED * (stripped not in ("", c)) | LOWERED * (lowered != c)
    return flags | (0 if agreed else ODD_IN_WORDS), stripped, lowered


def second_halves() -> set[str]:
    """The characters that NFC may join with the one before."""
    pairs = (unicodedata.normalize("NFD", chr(i)) for i in range(END) if not 0xD800 <= i < 0xE000)
    return {one for pair in pairs for one in pair[1:]}


def main() -> None:
    """Write the table beside this file."""
    classes, joined = library_classes(), second_halves()
    runs, stripped, lowered, last = [], [], [], None
    for i in range(END):
        if 0xD800 <= i < 0xE000:
            info = ODD_IN_WORDS | ODD_IN_BYTES
        else:
            c = chr(i)
            info, bare, small = in_words(c)
            kind, white = unicodedata.category(c), i in WHITE
            mine = kind[0] == "L", kind[0] == "N", white
            theirs = tuple(c in classes[name] for name in CLASSES)
            normal = unicodedata.is_normalized("NFC", c)
            agreed = mine == theirs and kind != "Cn" and normal == (NFC.normalize_str(c) == c)
            info |= LETTER * mine[0] | NUMBER * mine[1] | SPACE * mine[2] | (0 if agreed else ODD_IN_BYTES)
            info |= NOT_NFC * (not normal or c in joined) | unicodedata.combining(c) << 16
            if info & STRIPPED and i not in HANGUL:
                stripped.append((i, bare))
            if info & LOWERED:
                lowered.append((i, small))
        if info != last:
            runs.append(f"{{{i:#x}, {info:#x}}}")
            last = info
    text = [f"/* Written by make_unicode.py, Unicode {unicodedata.unidata_version}: do not edit. */"]
    text += ["static const Run RUNS[] = {", *lines(runs), "};"]
    for name, pairs in (("STRIPPED_TO", stripped), ("LOWERED_TO", lowered)):
        entries = [f"{{{', '.join(hex(x) for x in (i, len(to), *map(ord, to)))}}}" for i, to in pairs]
        text += [f"static const Mapping {name}[] = {{", *lines(entries), "};"]
    Path(__file__).with_name("unicode.inc").write_text("\n".join(text) + "\n", encoding="utf-8")


def lines(entries: list[str]) -> list[str]:
    """Joined by commas, in lines of up to 120 characters."""
    found = [""]
    for entry in entries:
        if len(found[-1]) + len(entry) + 2 > 120:
            found.append("")
        found[-1] += entry + ", "
    return [line.rstrip() for line in found]


main()
