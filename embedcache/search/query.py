"""What is looked for: texts and rows that the results should be like, and unlike."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embedcache.errors import EmbedcacheError


@dataclass(frozen=True, init=False)
class Query:
    """What to look for: texts (str) and rows of the cache (int) that it should be like, and unlike; one or several.

    The vector looked for is that of the example. Of several, with p and n the means of the likes' and the unlikes'
    vectors, it is p + (p - n), as in Qdrant's "average vector" recommendations: away from the unlikes as far as they
    are from the likes. The rows named are not found. Raises EmbedcacheError for what is neither text nor row.
    """

    like: tuple[str | int, ...]
    unlike: tuple[str | int, ...]

    def __init__(self, like: str | int | Iterable[str | int], unlike: str | int | Iterable[str | int] = ()) -> None:
        object.__setattr__(self, "like", _examples(like))  # frozen: only here
        object.__setattr__(self, "unlike", _examples(unlike))

    @property
    def rows(self) -> set[int]:
        return {one for one in (*self.like, *self.unlike) if not isinstance(one, str)}

    @property
    def texts(self) -> list[str]:
        return [one for one in (*self.like, *self.unlike) if isinstance(one, str)]


def _examples(given: str | int | Iterable[str | int]) -> tuple[str | int, ...]:
    """Texts and row numbers; a text alone is one, not its letters."""
    several = given if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    try:
        return tuple(str(one) if isinstance(one, str) else operator.index(one) for one in several)
    except TypeError:
        wrong = next(one for one in several if not isinstance(one, (str, int)))
        raise EmbedcacheError(f"an example must be a text or a row number, not {wrong!r}") from None


def read_queries(queries: str | Query | Sequence[str | Query]) -> list[Query]:
    """One or several. Raises EmbedcacheError: something else than texts and queries, with its place."""
    if isinstance(queries, (str, Query)):
        queries = [queries]
    if not isinstance(queries, Iterable) or hasattr(queries, "columns"):
        raise EmbedcacheError(f"search needs a text, a Query or a list of them, not {type(queries).__name__}")
    asked = []
    for place, one in enumerate(queries):
        if not isinstance(one, (str, Query)):
            also = f"; row {one} of the cache is Query({one})" if isinstance(one, int) else ""
            raise EmbedcacheError(f"query {place} must be a text or a Query, not {one!r}{also}")
        asked.append(Query(one) if isinstance(one, str) else one)
    return asked
