"""Packages that read their own docstrings, under ``python -OO``, which leaves docstrings out.

transformers builds the documentation of its classes when they are imported, and fails where there is none; onnxscript
reads the source of functions. They are compiled with docstrings, everything else stays as the user asked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

PACKAGES = frozenset(["transformers", "sentence_transformers", "onnxscript"])


class _Loader(SourceFileLoader):
    """Compiles as a Python without options does. Never reads or writes .pyc files: theirs are without docstrings."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = compile(self.get_data(path), path, "exec", dont_inherit=True, optimize=0)
        return code


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in PACKAGES:
            return None
        spec: Any = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def keep_docstrings() -> None:
    """From now on, in this process; nothing to do unless Python leaves docstrings out."""
    if sys.flags.optimize >= 2 and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
