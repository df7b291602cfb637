"""Types of the command line's options: numbers, lists and ranges. A mistake is wrong usage (exit 2), not a crash."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from embedcache.common.outputs import BESIDE
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from embedcache.heads.kinds.option import Tasks


class NumberInRange(click.ParamType):
    """A number inside a range: ``low <= x < high``, or ``low < x`` where the bound itself makes no sense."""

    def __init__(self, kind: type, low: float, high: float | None = None, *, above: bool = False) -> None:
        self.kind, self.low, self.high, self.above = kind, low, high, above
        self.name = "integer" if kind is int else "number"

    def describe(self) -> str:
        floor = f"above {self.low:g}" if self.above else f"from {self.low:g}"
        return f"{self.name} {floor}" + ("" if self.high is None else f" to below {self.high:g}")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = self.kind(value)
        except (ValueError, OverflowError):
            number = None
        inside = number is not None and (number > self.low if self.above else number >= self.low)
        finite = number is not None and abs(number) != float("inf")
        if not inside or not finite or (self.high is not None and number >= self.high):
            article = "an" if self.name[0] in "aeiou" else "a"
            self.fail(f"{value!r} is not {article} {self.describe()}", param, ctx)
        return number


class NumberOr(click.ParamType):
    """A number, or one word."""

    def __init__(self, number: NumberInRange, word: str) -> None:
        self.number, self.word = number, word
        self.name = f"{word}|{number.name}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == self.word:
            return value
        try:
            return self.number.convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is neither {self.word} nor a {self.number.describe()}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(self.word)] if self.word.startswith(incomplete) else []


class DerivedChoice(click.Choice[str]):
    """One of the names in a registry, which is loaded only where they are needed."""

    def __init__(self, find: Callable[[], Sequence[str]]) -> None:
        self.find, self.case_sensitive = find, True

    @property
    def choices(self) -> Sequence[str]:  # type: ignore[override]
        return tuple(self.find())


class ShardNumber(click.ParamType):
    """``I/N``, from 1/N to N/N."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value)
        numbers = tuple(int(part) for part in found.groups()) if found else (0, 0)
        if not 1 <= numbers[0] <= numbers[1]:
            self.fail(f"{value!r} is not I/N, part I of N, such as 1/8 to 8/8", param, ctx)
        return numbers


class SideBySide(click.ParamType):
    """``a`` or ``a+b``, each of one type; a text."""

    def __init__(self, part: click.ParamType) -> None:
        self.part, self.name = part, part.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        for one in str(value).split(BESIDE):
            self.part.convert(one, param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return self.part.shell_complete(ctx, param, incomplete)


class CommaList(click.ParamType):
    """``a,b,c``, each item of one type; no item may be empty or appear twice."""

    def __init__(self, item: click.ParamType | None = None, *, choices: tuple[str, ...] | None = None) -> None:
        self.item, self.choices = item, choices
        self.name = "LIST" if item is None else f"{item.name},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",")]
        if "" in parts:
            self.fail(f"{value!r} has an empty item", param, ctx)
        convert: Callable[[str], Any] = str
        if self.item is not None:
            item = self.item
            convert = lambda part: item.convert(part, param, ctx)  # noqa: E731
        items = [convert(part) for part in parts]
        for i, one in enumerate(items):
            if self.choices and one not in self.choices:
                self.fail(f"{one!r} is not one of {', '.join(self.choices)}", param, ctx)
            if one in items[:i]:
                self.fail(f"{one!r} is given twice", param, ctx)
        return tuple(items)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_list(self.choices or (), incomplete)


def complete_list(choices: tuple[str, ...], incomplete: str) -> list[CompletionItem]:
    """What the last item of a comma list may become."""
    before, comma, last = incomplete.rpartition(",")
    given = before.split(",") if comma else []
    return [CompletionItem(before + comma + one) for one in choices if one.startswith(last) and one not in given]


class SweepList(CommaList):
    """A comma list of a head's setting, or a range ``low:high`` to draw from (--random); the option has its name."""

    def __init__(self, item: NumberInRange) -> None:
        super().__init__(item)
        self.number = item
        self.name = "LIST | LOW:HIGH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or ":" not in value:
            return super().convert(value, param, ctx)
        from embedcache.runs.sweep import Range, check_range

        ends = [part.strip() for part in value.split(":")]
        if len(ends) != 2 or "," in value:
            self.fail(f"{value!r}: write a list, like 1,2,3, or one range, like 1:3", param, ctx)
        low, high = (self.number.convert(end, param, ctx) for end in ends)
        try:
            values = Range(low, high)
            check_range(str(param.name) if param else "", values)
        except EmbedcacheError as error:
            self.fail(str(error), param, ctx)
        return values


class TaskList(click.ParamType):
    """A kind of task for all label columns, or ``column=kind,...``."""

    name = "KIND | COL=KIND,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Tasks:
        from embedcache.heads.kinds.option import read_tasks

        try:
            return read_tasks(value)
        except EmbedcacheError as error:
            self.fail(str(error).removeprefix("--task "), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from embedcache.heads.kinds.option import WORDS

        before, equals, last = incomplete.rpartition("=")
        return [CompletionItem(before + equals + word) for word in WORDS if word.startswith(last)]


class ClassNames(click.types.StringParamType):
    """Names and descriptions of classes: not columns, of which the shell would offer names."""

    name = "CLASSES"


class JournalName(click.types.StringParamType):
    """A labels journal, which the shell completes as a file's name, or "none"."""

    name = "JOURNAL | none"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if incomplete and "none".startswith(incomplete):
            return [CompletionItem("none")]
        return [CompletionItem(incomplete, type="file")]
