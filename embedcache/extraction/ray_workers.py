"""The encoders of a pass as actors of a Ray cluster, on one machine or many.

Ray starts the processes, places them on nodes and notices when one dies. An actor holds one encoder and gets window
after window. If its machine sees the driver's file, it reads the texts there and writes the vectors itself; otherwise
both travel through Ray, and the driver writes. Only the driver holds the lock, writes checksums and so decides which
vectors count.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embedcache.cache.file import Cache
from embedcache.cache.fill import Filler, Window
from embedcache.cache.fingerprint import differences
from embedcache.cache.layout import Output, sibling
from embedcache.cache.remote_fill import Helper, Helpers, Order, Written
from embedcache.cache.state_writer import State, StateWriter
from embedcache.common.durable import fsync
from embedcache.encoder.poolings import MODEL
from embedcache.encoder.token_vectors import states_layer
from embedcache.errors import EmbedcacheError
from embedcache.extraction.local import COUNTED, Encoded, Work, encode, tokenize, window_blocks
from embedcache.extraction.pipeline import TRIES, Lost, Pipeline, Tell
from embedcache.extraction.ray_cluster import CORES, Cluster, cores_for

PATIENCE = 600  # seconds without any worker before it is an error
POLL = 0.5  # seconds between checks whether the pass has ended
AGAIN = "vectors already written are kept; run the same extract again to continue"


@dataclass(frozen=True)
class Shared:
    """How an actor recognizes the driver's file: by a secret next to it that the driver has just written.

    Attributes:
        path: of the cache.
        secret: the content of the file ``secret`` in the folder next to it.
        inode, created: of the cache.
        states: (the cache that the files of token states belong to, the seal of their index); None: none are kept.
    """

    path: str
    secret: str
    inode: int
    created: str
    states: tuple[str, str] | None = None


class EncodedWindow(NamedTuple):
    """An actor's result for a window: its vectors or what it wrote itself, and the number of tokens."""

    result: Encoded | Written
    tokens: int


class Actor:
    """Runs in a Ray process. Two threads call it, one to tokenize and one to compute, as in a pipeline."""

    def __init__(self, model: str, settings: dict[str, Any], encoder: dict[str, Any], threads: int) -> None:
        os.environ["RAYON_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"] = str(threads), "true"
        self._model, self._settings, self._description, self._threads = model, settings, encoder, threads
        self._ready: dict[int, Any] = {}
        self._helper: Helper | None = None
        self._states: StateWriter | None = None

    def load(self) -> dict[str, Any]:
        """Load the encoder. Returns what the driver must know about it."""
        import torch

        from embedcache.encoder import Encoder

        if self._settings["device"] == "cpu":
            torch.set_num_threads(self._threads)
        self._encoder = Encoder.load(self._model, **self._settings, check=self._check)
        blocks = window_blocks(self._encoder.device, self._encoder.invariant, self._encoder.threads)
        widths = {"dim": self._encoder.dim, MODEL: self._encoder.prescribed and self._encoder.prescribed.dim}
        widths["sees_padding"] = self._encoder.sees_padding
        return {**widths, "layers": self._encoder.layers, "blocks": blocks, "pid": os.getpid()}

    def _check(self, identity: dict[str, Any]) -> None:
        differs = differences(self._description, {**self._description, "identity": identity})
        if differs:
            raise EmbedcacheError(
                f"the encoder at {self._model} on {socket.gethostname()} differs from the one here: {differs}; "
                "copy the same model folder to every machine"
            )

    def states_layer(self, last: int) -> int:
        """See ``LocalEncoders``."""
        return states_layer(self._encoder, last)

    def lengths(self, texts: list[str]) -> np.ndarray:
        """See ``LocalEncoders``."""
        return self._encoder.tokenize(texts).lengths

    def attach(self, shared: Shared, answer: str) -> None:
        """Open the driver's file if this machine sees it, and confirm that in a file ``answer`` next to it."""
        path = Path(shared.path)
        with suppress(OSError, EmbedcacheError):
            if (sibling(path, "ray") / "secret").read_text() != shared.secret or path.stat().st_ino != shared.inode:
                return
            cache = Cache(path)
            if cache.created != shared.created:
                return
            if shared.states is not None:
                self._states = StateWriter(Path(shared.states[0]))
                if self._states.files.seal != shared.states[1]:
                    return
            with (sibling(path, "ray") / answer).open("x") as file:
                file.write(shared.secret)
                file.flush()
                fsync(file.fileno())
            self._helper = Helper(cache)

    def prepare(self, window: Window, texts: list[str] | None) -> int:
        """Tokenize the texts of a window; ``texts`` None: read them from the file."""
        if texts is None:
            assert self._helper is not None
            texts = [self._helper.cache.texts[int(row)] for row in window.texts]
        self._ready[window.start] = texts, tokenize(self._encoder, window, texts)
        return window.start

    def compute(
        self, window: Window, prepared: int, work: Work, order: Order | None, slots: np.ndarray | None
    ) -> EncodedWindow:
        """Encode a prepared window.

        With an ``order``, write the vectors to the file; with ``slots``, int64, write the token states of the texts
        ``window.states`` to these places.
        """
        texts, groups = self._ready.pop(prepared)
        tokens, writer = sum(int(group.tokens.lengths.sum()) for group in groups), self._states
        places = {} if slots is None else dict(zip(window.states.tolist(), slots.tolist(), strict=True))

        def put(row: int, values: np.ndarray) -> State:
            return writer.put(places[row], values) if writer and slots is not None else values.copy()

        found = encode(self._encoder, work, window, texts, groups, lambda *_: None, put)
        if writer and slots is not None:
            writer.sync()
        if order is None:
            return EncodedWindow(found, tokens)
        assert self._helper is not None
        written = self._helper.write(order, found.vectors, found.truncated, found.counts)
        return EncodedWindow(replace(written, states=found.states), tokens)


class RayEncoders:
    """Encoders on a cluster, with the interface of ``LocalEncoders``.

    Raises:
        EmbedcacheError: a GPU was asked for and the cluster has none, or it has no room for any worker.
    """

    tokenized_by = ""  # each worker tokenizes by itself, and does not report how

    def __init__(
        self,
        cluster: Cluster,
        model: str,
        settings: dict[str, Any],
        encoder: dict[str, Any],
        workers: int | None,
        batch_tokens: int | None,
    ) -> None:
        self.cluster, self.batch_tokens = cluster, batch_tokens
        if not cluster.cores:
            raise EmbedcacheError("the Ray cluster has no node with a CPU: add one, then run extract again")
        if settings["device"] == "cuda":
            if not cluster.gpus:
                raise EmbedcacheError("no node of the Ray cluster has a GPU: use --device cpu, or add one")
            workers = workers or cluster.gpus
            cores = max(1, min(CORES, sum(cluster.cores) // max(workers, cluster.gpus)))
        else:
            workers, cores = cores_for(cluster.cores, workers)
        groups = {"tokenize": 1, "compute": 1}
        remote = cluster.ray.remote(concurrency_groups=groups)(Actor)
        options = {"num_cpus": cores, "num_gpus": int(settings["device"] == "cuda"), "max_restarts": 0}
        self._make = lambda: remote.options(**options).remote(model, settings, encoder, cores)
        self.lock, self.alive, self.seen = threading.Lock(), 0, time.monotonic()
        self.shared: Shared | None = None
        self.helpers: Helpers | None = None
        self._workers = [RayWorker(self, self._make) for _ in range(workers)]
        self._facts = self._first_to_load()
        self.sees_padding: bool = self._facts["sees_padding"]

    def _first_to_load(self) -> dict[str, Any]:
        for _ in range(TRIES * len(self._workers)):
            loading = [worker.loading for worker in self._workers]
            ready, _ = self.cluster.ray.wait(loading, timeout=PATIENCE)
            if not ready:
                raise _no_worker()
            worker = self._workers[loading.index(ready[0])]
            try:
                return worker.facts()
            except Lost as lost:
                reason = str(lost)
        raise EmbedcacheError(
            f"all workers died while loading the encoder ({reason}): check the nodes' memory, or ray logs"
        )

    def width(self, output: Output) -> int:
        """The width of an output's vectors. Raises EmbedcacheError for a layer that the model does not have."""
        (pooling, layer), layers = output, self._facts["layers"]
        if not -layers - 1 <= layer <= layers:
            raise EmbedcacheError(f"no layer {layer}: the encoder has {layers}, and -1 is the last")
        width: int = self._facts[MODEL if pooling == MODEL else "dim"]
        return width

    def states_layer(self, last: int) -> int:
        """The layer whose output the ``last`` layers read. Raises EmbedcacheError where there are no such states."""
        return int(self._ask("states_layer", last))

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """How many tokens of each text are read, int64 [n]; the first worker counts them."""
        parts = range(0, len(texts), COUNTED)
        found = [self._ask("lengths", texts[start : start + COUNTED]) for start in parts]
        return np.concatenate([np.empty(0, np.int64), *found])

    def _ask(self, method: str, what: Any) -> Any:
        """The result of a method of the first worker, or of the one that replaces it."""
        for again in reversed(range(TRIES)):
            try:
                return self._workers[0].ask(method, what)
            except Lost as lost:
                if not again:
                    raise lost.__cause__ or lost from None

    def fill(self, filler: Filler, tell: Tell) -> None:
        """Encode the texts that have no vectors or token states in ``filler``, and write them."""
        path = filler.writer.path
        beside, secret = sibling(path, "ray"), secrets.token_hex(16)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            (beside / "secret").write_text(secret)
            cache = filler.writer.cache
            files = None if filler.states is None else filler.states.writer.files
            states = None if files is None else (str(files.cache), files.seal)
            self.shared = Shared(str(path), secret, path.stat().st_ino, cache.created, states)
            self.helpers = Helpers(filler)
            self.work = Work.of(filler, self.batch_tokens)
            Pipeline(filler.windows(self._facts["blocks"]), self._workers, self._finish, tell).run()
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _finish(self, window: Window, found: tuple[Order | None, EncodedWindow] | None) -> None:
        assert self.helpers is not None
        with self.lock:
            if found is not None and found[0] is not None and isinstance(found[1].result, Written):
                self.helpers.finish(window, found[0], found[1].result)
            else:
                encoded = found[1].result if found else ()
                assert not isinstance(encoded, Written)
                self.helpers.filler.finish(window, *encoded)

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self.cluster.close()


class RayWorker:
    """One actor as a worker of a pipeline. If it dies, another takes its place, wherever Ray finds room."""

    def __init__(self, encoders: RayEncoders, make: Any) -> None:
        self._encoders, self._make, self._ray = encoders, make, encoders.cluster.ray
        self._lock, self._sees = threading.Lock(), False
        self._start()

    def facts(self) -> dict[str, Any]:
        """What the actor reports about its encoder once it is loaded. Raises Lost after replacing a dead actor."""
        actor = self._actor
        try:
            return self.result(self.loading)
        except Lost:
            self._replace(actor)
            raise

    def ask(self, method: str, what: Any) -> Any:
        """The result of a method of the loaded actor. Raises Lost after replacing a dead actor."""
        self.facts()
        actor = self._actor
        try:
            return self.result(getattr(actor, method).remote(what))
        except Lost:
            self._replace(actor)
            raise

    @property
    def _helpers(self) -> Helpers:
        assert self._encoders.helpers is not None
        return self._encoders.helpers

    def _start(self) -> None:
        self._actor, self._joined = self._make(), False
        self.loading = self._actor.load.remote()

    def prepare(self, window: Window, tell: Tell) -> Any:
        """Send the window to the actor, which runs both steps one after the other."""
        with self._lock:
            actor, loading, joined = self._actor, self.loading, self._joined
        if not joined:
            self._join(actor, loading, tell)
        with self._encoders.lock:
            order = self._helpers.order(window) if self._sees else None
            slots = self._helpers.slots(window) if self._sees else None
        filler = self._helpers.filler
        texts = None if self._sees else [filler.writer.cache.texts[int(row)] for row in window.texts]
        small = replace(window, missing={})
        prepared = actor.prepare.options(concurrency_group="tokenize").remote(small, texts)
        compute = actor.compute.options(concurrency_group="compute")
        return actor, order, compute.remote(small, prepared, self._encoders.work, order, slots)

    def compute(self, window: Window, prepared: Any, tell: Tell) -> tuple[Order | None, EncodedWindow]:
        """Wait for the actor's result."""
        actor, order, reference = prepared
        found = self._wait(actor, reference, tell)
        tell(found.tokens, window.texts)
        return order, found

    def _join(self, actor: Any, loading: Any, tell: Tell) -> None:
        """Wait until the actor has loaded its encoder, and ask whether it sees the file."""
        self._wait(actor, loading, tell)
        shared, answer = self._encoders.shared, secrets.token_hex(8)
        assert shared is not None
        self._wait(actor, actor.attach.remote(shared, answer), tell)
        self._sees = self._answered(shared, answer)
        with self._lock, self._encoders.lock:
            if self._actor is actor:
                self._joined = True
                self._encoders.alive += 1

    def _answered(self, shared: Shared, answer: str) -> bool:
        with suppress(OSError):
            return (sibling(Path(shared.path), "ray") / answer).read_text() == shared.secret
        return False

    def _wait(self, actor: Any, reference: Any, tell: Tell) -> Any:
        while not self._ray.wait([reference], timeout=POLL)[0]:
            tell(0, np.empty(0, np.int64))
            encoders = self._encoders
            if encoders.alive:
                encoders.seen = time.monotonic()
            elif time.monotonic() > encoders.seen + PATIENCE:
                raise _no_worker()
        try:
            return self.result(reference)
        except Lost:
            self._replace(actor)
            raise

    def result(self, reference: Any) -> Any:
        """The result of a call to the actor. Raises Lost, or the error that the call raised."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise Lost(reason) from EmbedcacheError(f"workers died repeatedly on the same rows ({reason}); {AGAIN}")

    def _replace(self, lost: Any) -> None:
        """Replace a dead actor. Both threads may notice its death; only the first replaces it."""
        with self._lock:
            if self._actor is lost:
                with self._encoders.lock:
                    self._encoders.alive -= self._joined
                self.end()
                self._start()

    def end(self) -> None:
        with suppress(Exception):
            self._ray.kill(self._actor)


def _no_worker() -> EmbedcacheError:
    return EmbedcacheError(
        f"the Ray cluster had no worker for {PATIENCE // 60} minutes: check ray status, or ask for fewer "
        f"--workers; {AGAIN}"
    )
