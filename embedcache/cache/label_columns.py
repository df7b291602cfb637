"""The label columns of a cache: those of the file, and over them, where that is asked for, what people gave since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from embedcache.cache import layout as lay
from embedcache.cache.labels import Codes, Labels
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    import numpy as np

    from embedcache.cache.file import Cache
    from embedcache.cache.strings import Strings


class LabelSource(Protocol):
    """Labels from elsewhere, which lie over those of the file; labelling/ has one that reads a journal."""

    @property
    def columns(self) -> list[str]:
        """The columns in which it has labels."""
        ...

    def holds_lists(self, column: str) -> bool:
        """Whether a row of its column has any number of labels, not one."""
        ...

    def apply(self, cache: Cache, column: str) -> Labels:
        """A label column of the file, or a new one, with its labels in their places."""
        ...

    def apply_to_cells(self, cache: Cache, column: str) -> Strings:
        """A kept column of the file with its labels in their places."""
        ...

    def describe(self, cache: Cache) -> dict[str, Any]:
        """Where the labels come from and how many there are, as JSON types."""
        ...


class LabelColumns:
    """What ``Cache`` knows of labels. ``own_...`` is the file alone.

    Attributes:
        source: what lies over the labels of the file; None: nothing. Set it again when it has more of them.
    """

    path: Path
    layout: lay.Layout

    def __init__(self, source: LabelSource | None = None) -> None:
        self.source = source

    @property
    def source(self) -> LabelSource | None:
        return self._source

    @source.setter
    def source(self, source: LabelSource | None) -> None:
        self._source = source
        self._corrected: dict[str, Labels] = {}
        self._corrected_cells: dict[str, Strings] = {}
        self._described: dict[str, Any] | None = None
        new = [] if source is None else source.columns
        self._new = [name for name in new if name not in (*self.layout.classes, *self.column_names)]

    @property
    def labels_from(self) -> dict[str, Any] | None:
        """Where labels other than the file's come from, see docs/labelling.md; None: nowhere."""
        if self._described is None and self._source is not None:
            self._described = self._source.describe(self)  # type: ignore[arg-type]
        return self._described

    @property
    def own_label_names(self) -> list[str]:
        """The label columns of the file."""
        return list(self.layout.classes)

    @property
    def label_names(self) -> list[str]:
        """The label columns."""
        return [*self.layout.classes, *self._new]

    @property
    def column_names(self) -> list[str]:
        """The kept columns, the id column among them."""
        prefix = lay.COLUMNS + "/"
        groups = [path.split("/")[1] for path in self.layout.datasets if path.startswith(prefix)]
        return [lay.unquote(link) for link in dict.fromkeys(groups)]

    def labels(self, column: str) -> Labels:
        """Codes and the class names that they number, a pair: ``codes, classes = cache.labels("label")``.

        Codes are int32 [N] (-1: no label). Where the column holds lists they are int8 [N, C]: 1 where the row has the
        label, else 0, all -1 where the row is not labelled. ``train_heads`` knows the codes, and parts of them, and
        leaves the rows without a label out.
        """
        self._check_label(column)
        if self._source is None or column not in self._source.columns:
            return self.own_labels(column)
        if column not in self._corrected:
            self._corrected[column] = self._source.apply(self, column)  # type: ignore[arg-type]
        return self._corrected[column]

    def corrected_cells(self, column: str) -> Strings:
        """A kept column, with the labels from elsewhere in their places; they are laid over it once."""
        assert self._source is not None
        if column not in self._corrected_cells:
            self._corrected_cells[column] = self._source.apply_to_cells(self, column)  # type: ignore[arg-type]
        return self._corrected_cells[column]

    def own_labels(self, column: str) -> Labels:
        """The same of a label column of the file, as it is there."""
        codes = self.array(f"{lay.LABELS}/{lay.quote(column)}").view(Codes)
        return Labels(codes, list(self.layout.classes[column]))

    def own_holds_lists(self, column: str) -> bool:
        """Whether a label column of the file holds lists."""
        return column in self.layout.kinds

    def label_kind(self, column: str) -> str:
        """ "classification" (one label a row) or "multilabel" (lists)."""
        return lay.MULTILABEL if self.holds_lists(column) else "classification"

    def holds_lists(self, column: str) -> bool:
        """Whether a row of this label column has any number of labels, not one."""
        self._check_label(column)
        if column in self._new and self._source is not None:
            return self._source.holds_lists(column)
        return column in self.layout.kinds

    def array(self, path: str) -> np.ndarray:
        """A dataset of the file."""
        raise NotImplementedError

    def _check_label(self, column: str) -> None:
        if column not in self.label_names:
            raise EmbedcacheError(f"{self.path} has no label column {column!r}; {known(self.label_names)}")


def known(names: Sequence[str]) -> str:
    """What there is, for an error about what there is not."""
    return f"it has {', '.join(map(repr, names))}" if names else "it has none; extract can add one"
