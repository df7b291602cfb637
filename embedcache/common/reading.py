"""What an encoder reads of texts and what it does not: tokens beyond its length, and words that it does not know."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

MUCH = 0.02  # share of unknown tokens that is worth a note
MOSTLY = 0.2  # share of a text's tokens from which the text counts as hardly known
SOME = 0.01  # share of such texts that is worth a note
SCRIPTS = 3  # that are named
SUMMED = ("texts", "truncated", "counted", "tokens", "lost", "unknown", "hardly_known", "lost_at_limit", "in_chunks")
SAMPLE = 200  # texts whose scripts are looked at
LONG, LANGUAGES = "docs/long-texts.md", "docs/languages.md"


@dataclass(frozen=True)
class Reading:
    """What the tokens of n texts say; ``texts`` and ``truncated`` are of all of them, the rest of those counted.

    Attributes:
        texts: n. truncated: how many are longer than max_length.
        counted: of how many the tokens are known (a cache of an older embedcache does not have them).
        tokens: in the whole texts, special tokens included. lost: those of them that were cut off.
        unknown: among those read, how many are the tokenizer's word for "unknown", such as [UNK].
        hardly_known: texts with a fifth or more of such tokens.
        longest: tokens of the longest text. lost_at_limit: what would be cut off at ``positions``.
        max_length: how many tokens of a text are read. positions: how many the model can read, None for not known.
        scripts: the writing systems, apart from Latin, of the texts with the most unknown tokens.
        in_chunks: how many texts are longer than max_length and are read whole, in chunks of that length.
    """

    texts: int
    truncated: int
    counted: int
    tokens: int
    lost: int
    unknown: int
    hardly_known: int
    longest: int
    lost_at_limit: int
    max_length: int
    positions: int | None = None
    scripts: tuple[str, ...] = ()
    in_chunks: int = 0

    def __add__(self, other: Reading) -> Reading:
        """What one encoder read of the texts of both."""
        summed = {name: getattr(self, name) + getattr(other, name) for name in SUMMED}
        longest = max(self.longest, other.longest)
        scripts = tuple(dict.fromkeys([*self.scripts, *other.scripts]))[:SCRIPTS]
        return replace(self, **summed, longest=longest, scripts=scripts)

    @property
    def lost_share(self) -> float:
        """Share of all tokens, 0 to 1."""
        return self.lost / self.tokens if self.tokens else 0.0

    @property
    def unknown_share(self) -> float:
        """Share of the tokens read, 0 to 1."""
        read = self.tokens - self.lost
        return self.unknown / read if read else 0.0

    @property
    def much_unknown(self) -> bool:
        """Whether there is enough that the encoder does not know to be worth a word."""
        return self.unknown_share >= MUCH or self.hardly_known >= max(1, SOME * self.counted)

    def to_dict(self) -> dict[str, Any]:
        """JSON types; the shares too."""
        document = asdict(self) | {"lost_share": self.lost_share, "unknown_share": self.unknown_share}
        return document | {"scripts": list(self.scripts)}

    def notes(self, advise: bool = True) -> list[str]:
        """A sentence for each thing that the user should know; ``advise``: with what extract can do about it."""
        notes = [self._cut(advise)] if self.truncated else []
        if self.in_chunks:
            notes.append(
                f"{self.in_chunks:,} of {self.texts:,} texts are longer than {self.max_length:,} tokens: each is read "
                "in chunks, and its vector is the mean of theirs (--chunk)"
            )
        return [*notes, self._unknown()] if self.much_unknown else notes

    def _cut(self, advise: bool) -> str:
        said = f"{self.truncated:,} of {self.texts:,} texts are longer than {self.max_length:,} tokens"
        if not self.counted:
            said += "; how many tokens are lost was not counted when this cache was made"
            return f"{said}; see {LONG}" if advise else said
        said += f"; {percent(self.lost_share)} of all tokens are not read"
        if not advise:
            return said
        if self.positions is None:
            return f"{said}; a higher --max-length reads more, if the model can; see {LONG}"
        if self.max_length >= self.positions:
            return f"{said}; {self.positions:,} is this model's limit; --chunk reads them in chunks; see {LONG}"
        if self.longest <= self.positions:
            return f"{said}; --max-length {self.longest} reads them whole (this model's limit is {self.positions:,})"
        rest = percent(self.lost_at_limit / self.tokens)
        said += f"; raise --max-length to {self.positions}, this model's limit ({rest} are lost then)"
        return f"{said}, or read them in chunks with --chunk; see {LONG}"

    def _unknown(self) -> str:
        read = self.tokens - self.lost
        said = (
            f"{percent(self.unknown_share)} of the tokens read ({self.unknown:,} of {read:,}) are unknown to this model"
        )
        said += f", in {self.hardly_known:,} texts a fifth or more" if self.hardly_known and self.counted > 1 else ""
        said += f" (writing: {', '.join(self.scripts)})" if self.scripts else ""
        return f"{said}; use an encoder of that language, or a multilingual one; see {LANGUAGES}"


def read_of(
    counts: np.ndarray,
    truncated: int,
    max_length: int,
    positions: int | None = None,
    texts: Iterable[str] = (),
    chunk: bool = False,
) -> Reading:
    """Sum up counts int [n, 2] of n texts: tokens of the whole text and unknown ones among those read; -1: not counted.

    texts: the ones that have the most unknown tokens, for their scripts.
    chunk: whether longer texts are read in chunks.
    """
    known = counts[counts[:, 0] >= 0].astype(np.int64)
    whole, unknown = known[:, 0], known[:, 1]
    read = whole if chunk else np.minimum(whole, max_length)
    unknown = np.clip(unknown, 0, read)
    reading = Reading(
        texts=len(counts),
        truncated=truncated,
        counted=len(known),
        tokens=int(whole.sum()),
        lost=int((whole - read).sum()),
        unknown=int(unknown.sum()),
        hardly_known=int(np.count_nonzero(unknown >= np.maximum(1, MOSTLY * read))),
        longest=int(whole.max(initial=0)),
        lost_at_limit=int(np.maximum(whole - positions, 0).sum()) if positions and not chunk else 0,
        max_length=max_length,
        positions=positions,
        in_chunks=int(np.count_nonzero(whole > max_length)) if chunk else 0,
    )
    return replace(reading, scripts=scripts_of(texts)) if reading.unknown else reading


def most_unknown(counts: np.ndarray) -> np.ndarray:
    """int64: the texts, by their rows in counts [n, 2], whose scripts are worth a look."""
    some = np.flatnonzero(counts[:, 1] > 0)
    return some[np.argsort(-counts[some, 1], kind="stable")][:SAMPLE]


def scripts_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The commonest writing systems of the texts, apart from Latin: as Unicode names the characters."""
    found: Counter[str] = Counter()
    for character, times in Counter("".join(texts)).items():
        if character.isalpha():
            found[unicodedata.name(character, "other").split()[0].split("-")[0]] += times
        elif unicodedata.category(character) == "So":
            found["SYMBOLS"] += times
    found.pop("LATIN", None)
    names = {"CJK": "Han (Chinese characters)", "SYMBOLS": "emoji and symbols"}
    return tuple(names.get(name, name.capitalize()) for name, _ in found.most_common(SCRIPTS))


def percent(share: float) -> str:
    """ "14%"; below one percent "0.4%" or "less than 0.1%"."""
    if 0 < share < 0.001:
        return "less than 0.1%"
    return f"{share:.1%}" if share < 0.0095 and share > 0 else f"{share:.0%}"
