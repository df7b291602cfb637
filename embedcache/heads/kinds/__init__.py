"""The kinds of task: a class each, and one line here.

A kind is a word in files and options, and an object here: ``kind_of("regression").main`` is "r2". What is added to a
kind is added to its class, not asked for by its name elsewhere. How a head learns, its loss, is another matter: losses.

Files, in the order in which to read them:

    kind            What every kind is: its outputs, scores, words, decisions and probabilities
    classification  One class a row
    multilabel      Any number of labels a row
    regression      Numbers
    option          --task, which names a kind for all columns or for each
"""

from __future__ import annotations

from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds.classification import Classification
from embedcache.heads.kinds.kind import Kind
from embedcache.heads.kinds.multilabel import Multilabel
from embedcache.heads.kinds.regression import Regression

_KINDS: dict[str, Kind] = {kind.name: kind for kind in (Classification(), Multilabel(), Regression())}
KINDS = tuple(_KINDS)
LABELS = tuple(name for name, kind in _KINDS.items() if kind.has_classes)
LISTS = tuple(name for name, kind in _KINDS.items() if kind.has_lists)
NUMBERS = tuple(name for name, kind in _KINDS.items() if not kind.has_classes)


def kind_of(name: str) -> Kind:
    """The kind of that name. Raises EmbedcacheError for any other."""
    if name not in KINDS:
        raise EmbedcacheError(f"a task must be {', '.join(KINDS[:-1])} or {KINDS[-1]}, not {name!r}")
    return _KINDS[name]


def usual_kind(lists: bool) -> Kind:
    """The kind of labels that nothing more is known of than whether they are lists: the first that fits."""
    return next(kind for kind in _KINDS.values() if kind.has_classes and kind.has_lists == lists)
