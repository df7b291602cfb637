"""A report as its readers have it: the text of elements, tables as lists, and whether the HTML is well formed."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "hr", "img", "link", "input"}
CLOSED = {"path", "use", "image", "rect", "line", "circle", "polygon", "polyline"}  # of SVG


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self._texts()).split())

    def _texts(self) -> list[str]:
        return [part for one in self.children for part in ([one] if isinstance(one, str) else one._texts())]

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Every such element below, in order; class_ for class."""
        found = []
        for one in self.children:
            if isinstance(one, Element):
                wanted = {name.rstrip("_"): value for name, value in attributes.items()}
                if one.tag == tag and wanted.items() <= one.attributes.items():
                    found.append(one)
                found += one.all(tag, **attributes)
        return found


class _Reader(HTMLParser):
    """Raises AssertionError where tags are not closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"an attribute twice in {tag}"
        element = Element(tag, {name: value or "" for name, value in attributes})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


@dataclass
class Page:
    source: str
    root: Element

    @classmethod
    def read(cls, path: str | Path) -> Page:
        source = Path(path).read_text("utf-8")
        reader = _Reader()
        reader.feed(source)
        reader.close()
        assert reader.open == [reader.root], f"<{reader.open[-1].tag}> is never closed"
        return cls(source, reader.root)

    def sections(self) -> list[str]:
        return [one.all(level)[0].text for one in self.root.all("section") for level in ("h2", "h3") if one.all(level)]

    def section(self, title: str, number: int = 0) -> Element:
        found = [one for one in self.root.all("section") for h in ("h2", "h3") for t in one.all(h) if t.text == title]
        return found[number]

    def table(self, caption: str, number: int = 0) -> list[dict[str, str]]:
        """The rows of the table whose caption begins so, by its columns."""
        tables = [t for t in self.root.all("table") if t.all("caption")[0].text.startswith(caption)]
        head, *body = tables[number].all("tr")
        columns = [cell.text for cell in head.all("th")]
        return [
            dict(zip(columns, [c.text for c in row.children if isinstance(c, Element)], strict=True)) for row in body
        ]
