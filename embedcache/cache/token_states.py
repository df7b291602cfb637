"""The token states of a cache's rows: what the last K layers of the encoder read, for tuning them without the rest.

states = open_cache("reviews.h5").token_states()      # made by extract --tokens K
values, offsets = states.take(rows)                   # float16 [t, D], int64 [n + 1]; any rows, in any order
values[offsets[i] : offsets[i + 1]]                   # of rows[i]: its true tokens, special ones too, no padding
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache.state_files import StateFiles, index_path, open_states, values_path
from embedcache.cache.strings import first_rows
from embedcache.encoder.token_rows import row_offsets
from embedcache.errors import EmbedcacheError


class TokenStates:
    """The states of the tokens of N rows, ragged; rows with the same text share theirs. Made by ``Cache.token_states``.

    With N_layers layers in the encoder and K = ``layers`` of them left to run, the states are the output of layer
    ``layer`` = N_layers - K, which layer N_layers - K + 1 reads; layer 0 is what enters the first. In transformers
    that is ``hidden_states[layer]``.

    Nothing is in memory but 16 bytes a row: ``take`` reads what it is asked for, and ``values`` is a memory map. Forks
    and threads may share it.

    Attributes:
        layers: K. layer: N_layers - K. dim: D.
        encoder: ``source`` and ``identity`` of the encoder, as in ``Cache.encoder``.
        begins: int64 [N], the row of ``values`` where each cache row's states begin. lengths: int64 [N], how many.
        max_tokens: the most tokens of a row. tokens: of all rows, each text once. bytes: what these take.
    """

    def __init__(self, files: StateFiles, hashes: np.ndarray) -> None:
        """hashes: uint8 [N, 16], of the rows' texts.

        Raises:
            EmbedcacheError: a row has no states.
        """
        self._files, about = files, files.about
        self.layers, self.layer, self.dim, self.encoder = about.layers, about.layer, about.dim, about.encoder
        slots = find_slots(files, hashes)
        if missing := int((slots < 0).sum()):
            raise EmbedcacheError(
                f"{files.path} is not complete: {missing:,} of {len(slots):,} rows have no token states; run the same "
                "extract again: it continues where it stopped"
            )
        self.begins, self.lengths = np.ascontiguousarray(files.spans[slots].T)
        self.max_tokens = int(self.lengths.max(initial=0))
        self.tokens = int(files.spans[np.unique(slots), 1].sum())
        self.bytes = self.tokens * about.token_bytes

    def __len__(self) -> int:
        return len(self.begins)

    def __repr__(self) -> str:
        size = f"{len(self):,} rows, {self.tokens:,} tokens x {self.dim}, {self.bytes / 1e9:.2f} GB"
        return f"TokenStates(before the last {self.layers} layers, {size})"

    @property
    def values(self) -> np.ndarray:
        """float16 [T, D], a read-only memory map of the whole file: row i's are ``values[begins[i]:][:lengths[i]]``.

        It may hold texts that the cache does not have, and gaps. What is read of it counts as this process's memory
        until the system takes it back; ``take`` does not.
        """
        return self._files.values()

    def take(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        """The states of rows [n], in this order, as often as they are named.

        Returns:
            float16 [t, D], one row's tokens after another, and int64 [n + 1], where each row's begin, and t.

        Raises:
            EmbedcacheError: the file was cut short or cannot be read.
            IndexError: there is no such row.
        """
        rows = np.asarray(rows, np.int64).reshape(-1)
        begins, lengths = self.begins[rows], self.lengths[rows]
        return self._files.read(begins, lengths), row_offsets(lengths)

    def close(self) -> None:
        """Release the files; arrays that were handed out stay valid."""
        self._files.close()


def describe_states(cache: Path, encoder: dict[str, Any], hashes: np.ndarray) -> dict[str, Any] | None:
    """What `embedcache info` prints of the token states of a cache's rows; None where it has none.

    ``problem`` is a sentence where they cannot be read, else "".
    """
    if not index_path(cache).exists():
        return None
    paths = [index_path(cache), values_path(cache)]
    size = sum(path.stat().st_size for path in paths if path.exists())
    about: dict[str, Any] = {"files": list(map(str, paths)), "file_bytes": size}
    try:
        files = open_states(cache, encoder)
    except EmbedcacheError as error:
        return about | {"problem": str(error)}
    slots = find_slots(files, hashes)
    texts = np.unique(slots[slots >= 0])
    tokens = int(files.spans[texts, 1].sum())
    return about | {
        "layers": files.about.layers,
        "layer": files.about.layer,
        "dim": files.about.dim,
        "texts": len(texts),
        "tokens": tokens,
        "bytes": tokens * files.about.token_bytes,
        "missing_rows": int((slots < 0).sum()),
        "problem": "",
    }


def find_slots(files: StateFiles, hashes: np.ndarray) -> np.ndarray:
    """int64 [N]: which text of the files has each hash, uint8 [N, 16], and states; -1 for none."""
    present = np.flatnonzero(~files.absent)
    first = first_rows(files.hashes[present], hashes)[len(present) :]
    return np.append(present, -1)[np.minimum(first, len(present))]
