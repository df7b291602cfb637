"""Contenders of speed.py. Each takes [N, D] unit vectors and answers batches on all threads."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import ROOT

AUTOFAISS = "autofaiss==2.18.0"
AUTOFAISS_CODE = """
import json, sys
import numpy as np
from autofaiss import build_index
X = np.load(sys.argv[1])
build_index(X, index_path=sys.argv[2], index_infos_path=sys.argv[3], metric_type="ip", save_on_disk=True,
            nb_cores=int(sys.argv[4]), verbose=30)
"""


class Contender:
    """``knobs``: values of the one parameter that trades recall for speed, ascending."""

    name, settings = "", ""
    knobs: tuple[int, ...] = ()

    def build(self, X: np.ndarray, threads: int) -> None:
        raise NotImplementedError

    def search(self, Q: np.ndarray, knob: int) -> np.ndarray:
        """Rows [q, 10]."""
        raise NotImplementedError

    def size(self) -> int:
        """Bytes of the index."""
        raise NotImplementedError


class Ours(Contender):
    """The index that `embedcache index` chooses; the knob is the recall asked, in ten thousandths."""

    name = "embedcache"
    knobs = (9000, 9500, 9800, 9900, 9950, 9990)

    def build(self, X: np.ndarray, threads: int) -> None:
        from embedcache.index import SearchIndex

        self.index = SearchIndex.from_vectors(X)
        self.tuned: dict[int, tuple[int, int]] = {}
        found = self.index.about
        self.build_seconds, self.settings = found.seconds, json.dumps(found.parameters).strip("{}").replace('"', "")
        self.settings = f"auto: {found.kind} {self.settings}"
        if found.kind != "exact":
            self.tuned[9900] = self.index._engine.effort, self.index._engine.factor

    def search(self, Q: np.ndarray, knob: int) -> np.ndarray:
        from embedcache.index.tune import held_out, truth_of, tune

        if self.index.kind != "exact":
            engine = self.index._engine
            if knob not in self.tuned:  # as --recall does it, without building again
                tune(engine, truth_of(engine.rows, held_out(engine.rows), None), knob / 1e4, lambda _: None)
                self.tuned[knob] = engine.effort, engine.factor
            engine.effort, engine.factor = self.tuned[knob]
        return self.index.search(Q, 10).rows

    def size(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            self.index._own_vectors = False
            written = self.index.save(Path(folder, "index"))
            self.index._own_vectors = True
        return written + (2 * self.index.rows * self.index.dim)  # and the float16 copies


class Faiss(Contender):
    """A FAISS index by its factory string; the knob is efSearch or nprobe."""

    def __init__(self, factory: str, knobs: tuple[int, ...], name: str = "", factor: int = 0) -> None:
        self.factory, self.knobs, self.factor = factory, knobs, factor
        self.name, self.settings = name or f"FAISS {factory}", factory

    def build(self, X: np.ndarray, threads: int) -> None:
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index = faiss.index_factory(X.shape[1], self.factory, faiss.METRIC_INNER_PRODUCT)
        self.index.train(X)
        self.index.add(X)

    def search(self, Q: np.ndarray, knob: int) -> np.ndarray:
        import faiss

        base = self.index
        if self.factor:
            base, base_of = faiss.downcast_index(base.base_index), base
            base_of.k_factor = self.factor
        with_knob = {"nprobe": knob} if hasattr(base, "nprobe") else {"efSearch": knob}
        if "nprobe" in with_knob:
            base.nprobe = knob
        elif hasattr(base, "hnsw"):
            base.hnsw.efSearch = knob
        return self.index.search(Q, 10)[1]

    def size(self) -> int:
        import faiss

        return int(faiss.serialize_index(self.index).nbytes)


class AutoFaiss(Faiss):
    """What autofaiss builds, in an environment of its own (it needs NumPy 1), read here by the same FAISS."""

    def __init__(self) -> None:
        super().__init__("", (), "autofaiss")

    def build(self, X: np.ndarray, threads: int) -> None:
        import faiss

        python = autofaiss_python()
        with tempfile.TemporaryDirectory() as folder:
            paths = [str(Path(folder, name)) for name in ("x.npy", "knn.index", "infos.json")]
            np.save(paths[0], X)
            command = [str(python), "-c", AUTOFAISS_CODE, *paths, str(threads)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            infos = json.loads(Path(paths[2]).read_text())
            self.index = faiss.read_index(paths[1])
        self.settings = f"{infos['index_key']}, {infos['index_param']}"
        faiss.omp_set_num_threads(threads)
        if hasattr(self.index, "hnsw"):
            self.knobs = HNSW_KNOBS
        elif faiss.try_extract_index_ivf(self.index) is not None:
            self.knobs = IVF_KNOBS
        else:
            self.knobs = (1,)

    def search(self, Q: np.ndarray, knob: int) -> np.ndarray:
        import faiss

        ivf = faiss.try_extract_index_ivf(self.index)
        if ivf is not None:
            ivf.nprobe = knob
        elif hasattr(self.index, "hnsw"):
            self.index.hnsw.efSearch = knob
        return self.index.search(Q, 10)[1]


def autofaiss_python() -> Path:
    """The Python of demo/data/autofaiss, made at the first call."""
    folder = ROOT / "demo" / "data" / "autofaiss"
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        packages = [AUTOFAISS, "numpy<2", "pyarrow<21", "faiss-cpu==1.15.1"]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True, stdout=sys.stderr)
        (folder / "done").touch()
    return python


class Hnswlib(Contender):
    name, settings = "hnswlib", "M 16, ef_construction 200"

    def build(self, X: np.ndarray, threads: int) -> None:
        import hnswlib

        self.knobs = HNSW_KNOBS
        self.index: Any = hnswlib.Index(space="ip", dim=X.shape[1])
        self.index.init_index(max_elements=len(X), M=16, ef_construction=200)
        self.index.set_num_threads(threads)
        self.index.add_items(X)

    def search(self, Q: np.ndarray, knob: int) -> np.ndarray:
        self.index.set_ef(knob)
        return self.index.knn_query(Q, 10)[0].astype(np.int64)

    def size(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            self.index.save_index(str(Path(folder, "index")))
            return Path(folder, "index").stat().st_size


class Usearch(Contender):
    name, settings = "usearch", "connectivity 16, expansion_add 128, f32"

    def build(self, X: np.ndarray, threads: int) -> None:
        from usearch.index import Index

        self.knobs, self.threads = HNSW_KNOBS, threads
        self.index: Any = Index(ndim=X.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=128)
        self.index.add(np.arange(len(X)), X, threads=threads)

    def search(self, Q: np.ndarray, knob: int) -> np.ndarray:
        self.index.expansion_search = knob
        return self.index.search(Q, 10, threads=self.threads).keys.astype(np.int64)

    def size(self) -> int:
        return int(self.index.serialized_length)


HNSW_KNOBS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1536, 3072)
IVF_KNOBS = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512)


def contenders(name: str) -> list[Contender]:
    lists = 2048 if name == "glove" else 256
    fast = f"IVF{lists},PQ{25 if name == 'glove' else 96}x4fs,RFlat"
    return [
        Ours(),
        Faiss("Flat", (1,), "FAISS exact"),
        Faiss("HNSW32", HNSW_KNOBS),
        Faiss(f"IVF{lists},Flat", IVF_KNOBS),
        Faiss(fast, IVF_KNOBS, factor=100),
        AutoFaiss(),
        Hnswlib(),
        Usearch(),
    ]
