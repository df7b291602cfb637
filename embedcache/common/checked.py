"""JSON from files that may be damaged or made to do harm: bounded in size and depth, and checked against a schema.

A schema is a msgspec.Struct or a type: what it does not name is ignored, so that files of later versions open. msgspec
takes nothing for something else (1.5, "1" and true are not whole numbers) and reads no NaN, no infinity and no half a
surrogate pair.
"""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

MOST_BYTES = 1 << 30  # of a file; 5,000 heads of 1,000 epochs have some 500 MB
MOST_DEPTH = 32  # of our own files none has more than 10
LARGEST = 1e300

Count = Annotated[int, Meta(ge=0, le=2**53)]
Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
Share = Annotated[float, Meta(ge=0, le=1)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{32,64}$")]
Interval = tuple[Number, Number]

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "array": "a list",
    "object": "a table",
    "bool": "true or false",
    "null": "nothing",
}
BOUNDS = {">=": "of at least", "<=": "of at most", ">": "above", "<": "below"}
JSON_NAMES = {"None": "null", "True": "true", "False": "false"}


class SchemaError(ValueError):
    """What is wrong with a document, in words that follow "PATH is damaged: "."""


def read_json(path: Path) -> Any:
    """The JSON of a file. Raises SchemaError where it is not JSON, too large or too deep; OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise SchemaError(f"it is larger than {MOST_BYTES >> 20:,} MB")
        return parse_json(file.read(size))  # no more than it has: Windows makes all of the room that is asked for


def parse_json(data: bytes | str) -> Any:
    """JSON types. Raises SchemaError for what is not JSON, or too deep."""
    try:
        document = msgspec.json.decode(data)
    except RecursionError:
        raise SchemaError(f"it is nested deeper than {MOST_DEPTH} levels") from None
    except ValueError as error:
        raise SchemaError(f"it is not JSON ({str(error).removeprefix('JSON is malformed: ')})") from None
    level = [document]
    for _ in range(MOST_DEPTH + 2):
        level = [one for one in level if isinstance(one, (dict, list))]
        if not level:
            return document
        level = [one for value in level for one in (value.values() if isinstance(value, dict) else value)]
    raise SchemaError(f"it is nested deeper than {MOST_DEPTH} levels")


def conform(document: Any, schema: type[T], where: str = "") -> T:
    """The document as the schema has it. ``where``: its place in a larger one. Raises SchemaError."""
    try:
        return msgspec.convert(document, schema, strict=True)
    except msgspec.ValidationError as error:
        raise SchemaError(_in_words(str(error), document, where)) from None
    except (RecursionError, OverflowError) as error:
        raise SchemaError(f"{where or 'it'} cannot be read ({error})") from None


def read_table(data: bytes, texts: frozenset[str]) -> list[dict[str, Any]]:
    """The rows of a CSV with a header: cells of the columns ``texts`` as they are, others as numbers, blank ones None.

    Raises SchemaError for what is not CSV or not a number; neither NaN nor infinity is one.
    """
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
        header = next(reader, [])
        rows = []
        for line, cells in enumerate(reader, 2):
            if len(cells) != len(header):
                raise SchemaError(f"line {line} has {len(cells)} cells, not {len(header)}")
            rows.append(
                {name: _cell(name, cell, name in texts, line) for name, cell in zip(header, cells, strict=True)}
            )
    except UnicodeDecodeError as error:
        raise SchemaError(f"it is not UTF-8 ({error.reason})") from None
    except csv.Error as error:
        raise SchemaError(f"it is not CSV ({error})") from None
    return rows


def _cell(name: str, cell: str, text: bool, line: int) -> Any:
    if not cell or text:
        return cell or None
    try:
        number = int(cell) if re.fullmatch(r"-?\d{1,18}", cell) else float(cell)
    except ValueError:
        number = float("nan")
    if not abs(number) <= LARGEST:
        raise SchemaError(f"line {line}: {name} must be a number, not {_short(cell)}")
    return number


def _in_words(message: str, document: Any, where: str) -> str:
    """msgspec's message in words: place, what must be there, what is."""
    said, _, place = message.partition(" - at `$")
    place = place.removesuffix("`")
    name = f"{where}{place}".lstrip(".") or "it"
    if found := re.fullmatch(r"Object missing required field `(.*)`", said):
        return f"{name}: {found[1]} is missing" if name != "it" else f"{found[1]} is missing"
    value = _at(document, place)
    if found := re.fullmatch(r"Expected `(.+?)`(?: (>=|<=|>|<) (\S+?))?(?:, got `.*`)?", said):
        wanted = " or ".join(WORDS.get(one, one) for one in found[1].split(" | "))
        bound = f" {BOUNDS[found[2]]} {float(found[3]):g}" if found[2] else ""
        return f"{name} must be {wanted}{bound}{value}"
    if said.startswith("Invalid enum value"):
        return f"{name} cannot be {said.removeprefix('Invalid enum value ')}"
    return f"{name}: {said[:1].lower()}{said[1:].replace('`', '')}{value}"


def _at(document: Any, place: str) -> str:
    """ ", not '1.5'": the value there, where the place names one."""
    for key, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", place):
        try:
            document = document[int(index)] if index else document[key]
        except (KeyError, IndexError, TypeError):
            return ""
    return "" if "[...]" in place or (isinstance(document, (dict, list)) and not place) else f", not {_short(document)}"


def _short(value: Any) -> str:
    text = JSON_NAMES.get(repr(value), repr(value))
    return text if len(text) <= 40 else f"{text[:37]}..."
