"""Modules that can be called: `ec.search(...)` is a public function, and `embedcache.search` a room of that name.

Any import of such a module, at any time, binds it where the function's name belongs. So the module
itself is what the public name means, and a call of it is a call of the function.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any


class CallableModule(types.ModuleType):
    """A module whose call is that of one function, which is looked up when it is called first."""

    _called: tuple[str, str]

    @property
    def function(self) -> Callable[..., Any]:
        """What is called."""
        home, name = self._called
        found: Callable[..., Any] = getattr(importlib.import_module(home), name)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.function)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)  # a function would be pickled by its name, too


def make_callable(module: str, home: str, name: str) -> None:
    """Let ``module``, which calls this, be called as function ``name`` of module ``home``."""
    found = sys.modules[module]
    found.__class__ = CallableModule
    found.__dict__["_called"] = (home, name)
