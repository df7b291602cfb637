"""Of mkdocs: what the pages need that Markdown has not.

Links from a page to files outside docs/ are for GitHub; on the site they are their text alone. ``::: ec.NAME`` is the
documentation of a public name, which mkdocstrings makes of its docstrings.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

INIT = Path(__file__).parents[1] / "embedcache" / "__init__.py"
WRAPPED = {"embedcache.report.train_run.train_run": "embedcache.runs.job.train_head"}  # made at run time of the other
NAME = re.compile(r"^::: ec\.(\w+)$", re.MULTILINE)


@cache
def homes() -> dict[str, str]:
    """Public name -> where it is defined: what type checkers read in embedcache/__init__.py."""
    (block,) = (node for node in ast.parse(INIT.read_text("utf-8")).body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", markdown)
    return NAME.sub(lambda found: _directive(found[1]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """A function is called by its public name, whatever it is called where it is defined."""
    for public, home in homes().items():
        own = WRAPPED.get(home, home).rpartition(".")[2]
        if own != public:
            html = re.sub(rf'(<span class="nf?">){own}(</span><span class="p">\()', rf"\1{public}\2", html)
    return html


def _directive(public: str) -> str:
    home = WRAPPED.get(homes()[public], homes()[public])
    options = {"heading": f"ec.{public}", "toc_label": f"ec.{public}"}
    return "\n".join([f"::: {home}", "    options:", *(f"      {key}: {value}" for key, value in options.items()), ""])
