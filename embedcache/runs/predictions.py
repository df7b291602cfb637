"""predictions.parquet of a run: every row's side, and what the chosen head says of rows that it did not learn from.

One line for each row of the cache, in its order. docs/splits.md has the columns. Probabilities are the head's own,
before any temperature.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.digest import file_sha256
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.runs.calibration import probabilities
from embedcache.runs.split import SIDES

FILE = "predictions.parquet"
FORMAT, VERSION = b"embedcache-predictions", 1
PART_ROWS = 1 << 16  # written at a time
GROUPS = "group_hash"  # a column, where the rows were split by groups
MOST_COLUMNS = 100  # classes up to which each has a column of its own
MOST_VALUES = 50_000_000  # probabilities in the file: more than 200 MB of them are left out


@dataclass(frozen=True)
class StoredPredictions:
    """What is stored of one label column.

    side: int8 [N], the place in SIDES, -1 for none. hashes: uint8 [N, 16] of the texts. ids: [N] or None. y: as Data
    has it. rows: int64 [n], those that the head did not learn from; outputs: float32 [n, C], its logits (regression:
    values in the label's unit); fold: int [n], the fold whose head it was, -1 for the chosen head itself. groups: int64
    [N], negative for none, and group_hashes: uint8 [N, 16], of the rows' groups; None without --group.
    """

    kind: str
    classes: Sequence[str]
    side: np.ndarray
    hashes: np.ndarray
    ids: Sequence[str] | None
    y: np.ndarray
    rows: np.ndarray
    outputs: np.ndarray
    fold: np.ndarray
    groups: np.ndarray | None = None
    group_hashes: np.ndarray | None = None

    def save(self, path: Path) -> None:
        """Write the table. Raises OSError."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._schema()
        place = np.full(len(self.side), -1, np.int64)
        place[self.rows] = np.arange(len(self.rows))
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for start in range(0, len(self.side), PART_ROWS):
                part = slice(start, min(start + PART_ROWS, len(self.side)))
                writer.write_table(pa.table(list(self._columns(part, place[part], schema)), schema=schema))

    @property
    def _listed(self) -> bool:
        """Whether the probabilities of all classes are one column of lists."""
        return len(self.classes) > MOST_COLUMNS

    def _schema(self) -> Any:
        import pyarrow as pa

        kind = kind_of(self.kind)
        label = kind.by_form(one_class=pa.string(), lists=pa.list_(pa.string()), numbers=pa.float32())
        columns = [("row", pa.int64())]
        columns += [("id", pa.string())] if self.ids is not None else []
        columns += [("text_hash", pa.string())]
        columns += [(GROUPS, pa.string())] if self.groups is not None else []
        columns += [("side", pa.string()), ("fold", pa.int32())]
        columns += [("label", label), ("predicted", label)]
        if kind.has_classes:
            columns.append(("probability", pa.float32() if kind.exclusive else pa.list_(pa.float32())))
        if kind.has_classes and len(self.rows) * len(self.classes) <= MOST_VALUES:
            every = [("probabilities", pa.list_(pa.float32()))]
            columns += every if self._listed else [(f"p:{_text(name)}", pa.float32()) for name in self.classes]
        about = {"version": VERSION, "kind": self.kind, "classes": [_text(name) for name in self.classes]}
        return pa.schema(columns, metadata={FORMAT: json.dumps(about)})

    def _columns(self, part: slice, place: np.ndarray, schema: Any) -> Iterator[Any]:
        """The arrays of some rows; place: int64, where their outputs are, -1 for none."""
        import pyarrow as pa

        there = place >= 0
        outputs = self.outputs[place[there]].astype(np.float64)
        yield pa.array(np.arange(part.start, part.stop))
        if self.ids is not None:
            yield pa.array([_text(one) for one in self.ids[part]], pa.string())
        yield pa.array([key.tobytes().hex() for key in self.hashes[part]])
        if self.groups is not None and self.group_hashes is not None:
            known = zip(self.groups[part], self.group_hashes[part], strict=True)
            yield pa.array([key.tobytes().hex() if group >= 0 else None for group, key in known], pa.string())
        yield pa.array(np.array([*SIDES, ""])[self.side[part]])
        fold = self.fold[place[there]]
        yield _spread(pa.array(fold, pa.int32(), mask=fold < 0), there, pa.int32())
        y, kind = self.y[part], kind_of(self.kind)
        if not kind.has_classes:
            yield pa.array(y[:, 0], pa.float32(), mask=np.isnan(y[:, 0]))
            yield _spread(outputs[:, 0].astype(np.float32), there, pa.float32())
            return
        names = np.array([_text(name) for name in self.classes], object)
        proba = probabilities(outputs, self.kind).astype(np.float32)
        if kind.exclusive:
            guess = proba.argmax(axis=1)
            yield pa.array(names[y], pa.string(), mask=y < 0)
            yield _spread(names[guess], there, pa.string())
            yield _spread(proba[np.arange(len(guess)), guess], there, pa.float32())
        else:
            label = [None if row[0] < 0 else names[row > 0].tolist() for row in y]
            guesses = outputs > 0
            yield pa.array(label, pa.list_(pa.string()))
            yield _spread([names[row].tolist() for row in guesses], there, pa.list_(pa.string()))
            pairs = zip(proba, guesses, strict=True)
            yield _spread([row[guess].tolist() for row, guess in pairs], there, pa.list_(pa.float32()))
        if "probabilities" in schema.names:
            yield _spread(list(proba), there, pa.list_(pa.float32()))
        elif f"p:{names[0]}" in schema.names:
            for column in proba.T:
                yield _spread(column, there, pa.float32())


def _spread(values: Any, there: np.ndarray, kind: Any) -> Any:
    """An Arrow array with the values where ``there``, and null elsewhere."""
    import pyarrow as pa

    indices = pa.array(np.cumsum(there) - 1, pa.int64(), mask=~there)
    given = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return given.take(indices)


def _text(text: str) -> str:
    """UTF-8 has no lone surrogates."""
    return text.encode("utf-8", "replace").decode()


@dataclass(frozen=True)
class StoredSides:
    """The sides of a run, as it was made. hashes: uint8 [n, 16] of the texts; side: int8 [n], place in SIDES or -1."""

    hashes: np.ndarray
    side: np.ndarray
    labelled: np.ndarray  # bool [n]
    groups: list[str | None] | None = None  # [n]: the hash of each row's group in hex; None of a run that keeps none

    def of(self, hashes: np.ndarray) -> np.ndarray:
        """int8 [N]: the side of each text, -1 where it was on none, -2 where the run had no such text with a label.

        A row that stands where it stood then has its own side, any other that of its text.
        """
        by_text: dict[bytes, int] = {}
        known = np.flatnonzero(self.labelled)
        for row in known[np.argsort(self.side[known], kind="stable")].tolist():  # a real side is written last
            by_text[self.hashes[row].tobytes()] = int(self.side[row])
        found = np.array([by_text.get(key.tobytes(), -2) for key in hashes], np.int8).reshape(len(hashes))
        n = min(len(hashes), len(self.hashes))
        same = (hashes[:n] == self.hashes[:n]).all(axis=1) & self.labelled[:n]
        found[:n][same] = self.side[:n][same]
        return found


def read_sides(path: Path, digest: str) -> StoredSides:
    """The sides in such a file. digest: the SHA-256 that it must have. Raises EmbedcacheError where it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file_sha256(path) != digest:
            raise ValueError("its checksum is another")
        grouped = [GROUPS] if GROUPS in pq.read_schema(path).names else []
        table = pq.read_table(path, columns=["text_hash", "side", "label", *grouped])
        keys = "".join(table["text_hash"].to_pylist())
        hashes = np.frombuffer(bytes.fromhex(keys), np.uint8).reshape(table.num_rows, -1)
        number = {name: i for i, name in enumerate([*SIDES, ""])}
        side = np.array([number[name] for name in table["side"].to_pylist()], np.int8)
        if hashes.shape[1] != 16 and len(hashes):
            raise ValueError("text_hash")
        groups = table[GROUPS].cast(pa.string()).to_pylist() if grouped else None
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        what = " ".join(str(error).split())[:200]
        raise EmbedcacheError(f"{path} is damaged or was not written by embedcache ({what}); train it again") from None
    side[side == len(SIDES)] = -1
    labelled = ~np.asarray(table["label"].is_null().to_numpy(), bool)
    return StoredSides(hashes, side, labelled, groups)
