"""Which encoder a pass uses, and where it runs. It is loaded, or connected to, only when there is work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache.fill import Filler
from embedcache.common.devices import read_device
from embedcache.common.progress import Progress
from embedcache.encoder import identify
from embedcache.encoder.folder import find_folder, positions_of
from embedcache.encoder.poolings import MODEL
from embedcache.errors import EmbedcacheError
from embedcache.extraction.local import LocalEncoders
from embedcache.extraction.ray_cluster import Cluster
from embedcache.extraction.ray_workers import RayEncoders

if TYPE_CHECKING:
    from embedcache.encoder.int8 import Int8Choice

BYTES_PER_TOKEN = 4
COPY_BLOCKS = 8  # blocks of a window in which nothing is encoded


@dataclass(frozen=True)
class Place:
    """Where to encode.

    Attributes:
        device: "auto", "cpu", "cuda[:N]", "cuda:0,cuda:1" or "cuda:all".
        workers: the number of Ray actors; None: the cluster's default.
        ray: "local" or the address of a cluster; None: this process, or "local" if ``workers`` is set.
    """

    device: str = "auto"
    workers: int | None = None
    ray: str | None = None

    @property
    def cluster(self) -> str | None:
        return "local" if self.ray is None and self.workers else self.ray

    def devices(self) -> list[str]:
        """The devices that this process uses.

        Raises:
            EmbedcacheError: a list of anything other than different GPUs.
        """
        if self.device == "cuda:all":
            import torch

            return [f"cuda:{k}" for k in range(torch.cuda.device_count())] or ["cuda"]
        names = self.device.split(",")
        if names[1:] and (len(set(names)) < len(names) or not all(map(_is_one_gpu, names))):
            raise EmbedcacheError(f"device '{self.device}': name several GPUs as cuda:0,cuda:1, or all as cuda:all")
        return names


def _is_one_gpu(device: str) -> bool:
    try:
        return read_device(device)[1] is not None
    except EmbedcacheError:
        return False


class EncodingPass:
    """The encoder's side of one extract: its identity, and the encoding itself.

    Attributes:
        encoder: its description, as the cache records it.
        positions: the most tokens of a text that the model can read; None: no limit.
        tokens: encoded so far.
        seconds: spent encoding so far.
    """

    def __init__(
        self,
        model: str,
        settings: dict[str, Any],
        place: Place,
        store: str,
        batch_tokens: int | None,
        progress: Progress | None,
    ) -> None:
        """Identify the encoder, without loading it.

        Args:
            model: folder or hub name.
            settings: max_length, dtype, trust_remote_code, prompt, lower_case, chunk, task, kept and model of
                ``Encoder.load``.
            place: where to encode.
            store: the dtype of stored vectors.
            batch_tokens: the budget of a batch, in padded tokens; None: what suits the device.
            progress: see ``extract``.

        Raises:
            EmbedcacheError: the model is not found or incomplete, or a setting is invalid.
        """
        self._model, self._place, self._batch_tokens = model, place, batch_tokens
        self._progress = progress
        self._settings = self._settle({**settings, "device": place.device})
        about = self._settings[MODEL]
        identity, source = identify(model, **{key: value for key, value in self._settings.items() if key != MODEL})
        self.encoder: dict[str, Any] = {"source": source, "identity": identity, "store": store}
        self.encoder |= {} if about is None else {MODEL: about}
        self.positions = positions_of(find_folder(source, self._settings["trust_remote_code"])[0])
        self._settings["dtype"] = identity["compute_dtype"]
        self.tokens, self.seconds = 0, 0.0
        self._choice: Int8Choice | None = None

    def measure_int8(self, texts: Sequence[str]) -> None:
        """In int8, choose by the table's first texts which products stay in bfloat16; part of the identity."""
        if self.encoder["identity"]["compute_dtype"] != "int8":
            return
        from embedcache.encoder.int8 import choose_kept

        settings = {name: value for name, value in self._settings.items() if name not in ("dtype", "device", "kept")}
        self._choice = choose_kept(self._model, settings, texts)
        self._settings["kept"] = self.encoder["identity"]["kept"] = self._choice.kept

    def _settle(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Choose dtype and device to identify the encoder with. A cluster's devices are not those of this machine."""
        if self._place.cluster is None:
            return {**settings, "device": self._place.devices()[0]}
        if settings["device"] not in ("auto", "cpu", "cuda"):
            raise EmbedcacheError(f"device '{settings['device']}': with --ray or --workers use auto, cpu or cuda")
        if settings["dtype"] == "auto" and (settings["device"] == "cuda" or self._on_gpus(settings["device"])):
            settings["dtype"] = "bfloat16"
        return settings if settings["dtype"] == "int8" else {**settings, "device": "cpu"}

    def _on_gpus(self, device: str) -> bool:
        return device == "cuda" or (device == "auto" and self._cluster.gpus > 0)

    @cached_property
    def _cluster(self) -> Cluster:
        assert self._place.cluster is not None
        return Cluster(self._place.cluster, self._place.workers)

    @cached_property
    def encoders(self) -> LocalEncoders | RayEncoders:
        if self._place.cluster is not None:
            on_gpus = self._settings["dtype"] != "int8" and self._on_gpus(self._place.device)
            settings = {**self._settings, "device": "cuda" if on_gpus else "cpu"}
            source = self.encoder["source"]
            return RayEncoders(self._cluster, source, settings, self.encoder, self._place.workers, self._batch_tokens)
        from embedcache.encoder import Encoder

        loaded = [Encoder.load(self._model, **{**self._settings, "device": one}) for one in self._place.devices()]
        if any(one.identity != self.encoder["identity"] for one in loaded):
            raise EmbedcacheError(f"the files of {self._model} changed while they were read; run extract again")
        return LocalEncoders(loaded, self._batch_tokens)

    def fill(self, filler: Filler) -> None:
        """Encode the texts that have no vectors or token states in ``filler``, and write them."""
        if not filler.encoded.any():
            for window in filler.windows(COPY_BLOCKS):
                filler.finish(window)
            return
        offsets = filler.writer.cache.texts.offsets
        # Progress needs a total before anything is tokenized, so it is estimated from the bytes of each text. A text
        # that will be truncated counts at most the bytes of max_length tokens.
        most = np.inf if self._settings["chunk"] else self._settings["max_length"] * BYTES_PER_TOKEN
        size = np.minimum(np.diff(offsets), most) + BYTES_PER_TOKEN
        all_bytes, done_bytes, done_texts = int(size[filler.encoded].sum()), 0, 0

        def tell(tokens: int, rows: np.ndarray) -> None:
            nonlocal done_bytes, done_texts
            self.tokens += tokens
            done_bytes, done_texts = done_bytes + int(size[rows].sum()), done_texts + len(rows)
            if self._progress:
                self._progress(self.tokens, round(self.tokens * all_bytes / done_bytes), done_texts)

        encoders, begun = self.encoders, time.perf_counter()
        encoders.fill(filler, tell)
        self.seconds = time.perf_counter() - begun

    def notes(self) -> list[str]:
        """Notes for the user on how the texts were encoded."""
        chosen = [] if self._choice is None else [self._choice.in_words()]
        return [*chosen, *self._padding_notes()]

    def _padding_notes(self) -> list[str]:
        if "encoders" not in self.__dict__ or not self.encoders.sees_padding:
            return []
        kind = self.encoder["identity"]["architecture"]
        return [f"padding would change the vectors of {kind} models: only texts of equal length are encoded together"]

    @property
    def tokenized_by(self) -> str:
        """Which code tokenized here, see ``Encoder.tokenized_by``; "" where nothing was encoded, or on a cluster."""
        done = "encoders" in self.__dict__ and self.tokens
        return self.encoders.tokenized_by if done else ""

    def close(self) -> None:
        """End the actors, and a cluster that was started here."""
        if "encoders" in self.__dict__:
            self.encoders.close()
        elif "_cluster" in self.__dict__:
            self._cluster.close()
