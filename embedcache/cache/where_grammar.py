"""The language of --where: "label=positive and year>=2010 and not (genre=war or genre=horror)".

    list       one or more of expression, with commas between
    expression conditions with not, and, or (which bind in this order) and parentheses
    condition  COLUMN OP VALUE, OP being = != < <= > >= or [not] contains, [not] starts with
               COLUMN [not] in (VALUE, VALUE, ...)

A value needs no quotes: it ends where something follows that can only be the next condition, so names and values may
hold commas, = and words such as "and" themselves. Quotes, "..." or '...', are for those that would be cut otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedcache.errors import EmbedcacheError

OPERATORS = "!=|<=|>=|=|<|>"
WORDS = r"(?i:(?:not\s+)?(?:contains|starts\s+with)(?=[\s\"']|$))"
IN = r"(?i:(?:not\s+)?in(?=\s*\())"
LONGEST = 10_000  # characters: a condition may come from a stranger


@dataclass(frozen=True)
class Condition:
    """``operator`` is one of = != < <= > >= contains "starts with"; ``quoted``: the value stood in quotes."""

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
        EmbedcacheError: it is not such a list, too long or nested too deeply.
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
            f'--where "{text[:200]}" is not a condition{near}: write COLUMN=VALUE, as in '
            '"label=positive and year>=2010", or COLUMN contains WORD, starts with WORD, in (VALUE, VALUE); what has '
            'parentheses or quotes goes into "quotes"'
        ) from None
    except RecursionError:
        raise EmbedcacheError("--where has too many parentheses: write it simpler") from None


def _grammar(columns: Sequence[str]) -> Any:
    import pyparsing as pp

    # 1. Patterns: an operator, the beginning of a condition on a known column, and what ends a bare value before it.
    known = "|".join(map(re.escape, sorted(columns, key=len, reverse=True))) or r"(?!)"
    operator = rf"(?:\s*(?:{OPERATORS})|\s+(?:{WORDS}|{IN}))"
    begins = rf"(?:not\s+|\(\s*)*(?:{known}){operator}"
    ends = rf"\s+(?:and|or)\s+{begins}|,\s*{begins}"
    flags = re.IGNORECASE | re.DOTALL
    # 2. A column: one of the cache's, whose name may hold anything; or any other word before an operator, to report.
    known_column = pp.Regex(rf"(?:{known})(?={operator})", re.DOTALL)
    other_column = pp.Regex(rf"[^=<>!(),]+(?=(?:{OPERATORS}))|[^=<>!(),\s]+(?=\s+(?:{WORDS}|{IN}))")
    # 3. A value: in quotes, if its end is the condition's, else bare: everything up to the end, parentheses in pairs.
    quoted = (pp.QuotedString('"', esc_char="\\") | pp.QuotedString("'", esc_char="\\")).set_parse_action(
        lambda found: [(found[0], True)]
    )
    follows = pp.Regex(rf"\s*(?:$|\)|{ends})", flags).leave_whitespace()
    bare = pp.Opt(pp.Regex(rf"(?:(?!{ends})(?:\([^()]*\)|[^)]))+", flags).leave_whitespace(), default="")
    value = quoted + pp.FollowedBy(follows) | bare.leave_whitespace()
    # 4. A list of values for "in", where commas and parentheses end each.
    item = quoted + pp.FollowedBy(pp.one_of(", )")) | pp.Regex(r"[^,()]+").set_parse_action(
        lambda found: found[0].strip()
    )
    several = pp.Suppress("(") + pp.Group(pp.DelimitedList(item)) + pp.Suppress(")")
    # 5. A condition: a column and its test. Known columns are tried before "not" and parentheses, others after them.
    test = pp.Regex(IN) + several | pp.Regex(WORDS) + value | pp.Regex(OPERATORS) + value
    condition, stranger = ((column + test).set_parse_action(_condition) for column in (known_column, other_column))
    expression, factor = pp.Forward(), pp.Forward()
    inside = pp.Suppress("(") + expression + pp.Suppress(")")
    negated = (pp.Suppress(pp.CaselessKeyword("not")) + factor).set_parse_action(lambda found: Not(found[0]))
    factor <<= condition | negated | inside | stranger
    # 6. and binds more than or, or more than the commas of the list.
    both = pp.DelimitedList(factor, pp.CaselessKeyword("and"))
    both.set_parse_action(lambda found: found[0] if len(found) == 1 else All(tuple(found)))
    expression <<= pp.DelimitedList(both, pp.CaselessKeyword("or"))
    expression.set_parse_action(lambda found: found[0] if len(found) == 1 else AnyOf(tuple(found)))
    return pp.DelimitedList(expression, ",").parse_with_tabs()


def _condition(found: Any) -> Tree:
    column, operator, value = found[0].strip(), " ".join(found[1].lower().split()), found[2]
    positive = operator.removeprefix("not ")
    values = [one if isinstance(one, tuple) else (one, False) for one in (value if positive == "in" else [value])]
    if positive in ("contains", "starts with"):
        values = [(one if quoted else one.strip(), quoted) for one, quoted in values]
    conditions = tuple(Condition(column, "=" if positive == "in" else positive, *one) for one in values)
    tree: Tree = AnyOf(conditions) if positive == "in" else conditions[0]
    return tree if positive == operator else Not(tree)
