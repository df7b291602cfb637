"""The language of --where: "label=positive and year>=2010 and not (genre=war or genre=horror)".

    list       one or more of expression, with commas between
    expression conditions with not, and, or (which bind in this order) and parentheses
    condition  COLUMN OP VALUE, OP being = != < <= > >=

A value needs no quotes: it goes on until something follows that can only be the next condition, so that names and
values may hold commas, = and words such as "and" themselves. Quotes, "..." or '...', are for those that would not come
through otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedcache.errors import EmbedcacheError

OPERATORS = "!=|<=|>=|=|<|>"
LONGEST = 10_000  # characters: a condition may come from a stranger


@dataclass(frozen=True)
class Condition:
    """``operator`` is one of = != < <= > >=; ``quoted``: the value was written with quotes around."""

    column: str
    operator: str
    value: str
    quoted: bool = False


@dataclass(frozen=True)
class Not:
    part: Tree


@dataclass(frozen=True)
class All:
    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class AnyOf:
    parts: tuple[Tree, ...]


Tree = Condition | Not | All | AnyOf


def parse(text: str, columns: Sequence[str]) -> list[Tree]:
    """The expressions of a list; ``columns`` are the names that are known to begin a condition.

    Raises:
        EmbedcacheError: it is none, too long or too deep.
    """
    import pyparsing

    if len(text) > LONGEST:
        raise EmbedcacheError(f"--where of {len(text):,} characters: {LONGEST:,} are the most")
    try:
        return list(_grammar(columns).parse_string(text, parse_all=True))
    except pyparsing.ParseBaseException as error:
        rest = text[error.loc :].strip()
        near = f' (from "{rest[:40]}" on)' if rest and rest != text.strip() else ""
        raise EmbedcacheError(
            f'--where "{text[:200]}" is no condition{near}: write COLUMN=VALUE or COLUMN!=VALUE, as in '
            '"label=positive and year>=2010"; a VALUE with parentheses or quotes goes into "quotes"'
        ) from None
    except RecursionError:
        raise EmbedcacheError("--where has too many parentheses: write it simpler") from None


def _grammar(columns: Sequence[str]) -> Any:
    import pyparsing as pp

    known = "|".join(map(re.escape, sorted(columns, key=len, reverse=True))) or r"(?!)"
    begins = rf"(?:not\s+|\(\s*)*(?:{known})\s*(?:{OPERATORS})"  # a condition on a known column, certainly
    ends = rf"\s+(?:and|or)\s+{begins}|,\s*{begins}"
    flags = re.IGNORECASE | re.DOTALL
    known_column = pp.Regex(rf"(?:{known})(?=\s*(?:{OPERATORS}))", re.DOTALL)
    other_column = pp.Regex(rf"[^=<>!(),]+(?=(?:{OPERATORS}))")
    quoted = (pp.QuotedString('"', esc_char="\\") | pp.QuotedString("'", esc_char="\\")).set_parse_action(
        lambda found: [(found[0], True)]
    )
    follows = pp.Regex(rf"\s*(?:$|\)|{ends})", flags).leave_whitespace()
    bare = pp.Opt(pp.Regex(rf"(?:(?!{ends})(?:\([^()]*\)|[^)]))+", flags).leave_whitespace(), default="")
    value = pp.Regex(OPERATORS) + (quoted + pp.FollowedBy(follows) | bare.leave_whitespace())
    condition, stranger = ((column + value).set_parse_action(_condition) for column in (known_column, other_column))
    expression, factor = pp.Forward(), pp.Forward()
    inside = pp.Suppress("(") + expression + pp.Suppress(")")
    negated = (pp.Suppress(pp.CaselessKeyword("not")) + factor).set_parse_action(lambda found: Not(found[0]))
    factor <<= condition | negated | inside | stranger
    both = pp.DelimitedList(factor, pp.CaselessKeyword("and"))
    both.set_parse_action(lambda found: found[0] if len(found) == 1 else All(tuple(found)))
    expression <<= pp.DelimitedList(both, pp.CaselessKeyword("or"))
    expression.set_parse_action(lambda found: found[0] if len(found) == 1 else AnyOf(tuple(found)))
    return pp.DelimitedList(expression, ",").parse_with_tabs()


def _condition(found: Any) -> Condition:
    column, operator, value = found
    text, quoted = value if isinstance(value, tuple) else (value, False)
    return Condition(column.strip(), operator, text, quoted)
