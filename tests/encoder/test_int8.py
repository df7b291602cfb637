"""int8: products to the bit against NumPy, the encoder on every instruction set, which products stay out of it."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from int8_reference import product, quantize

from embedcache.encoder import Encoder, int8
from embedcache.encoder.read_model import read_blueprint
from embedcache.encoder.runner_native import PRODUCTS, NativeEncoder, backend
from embedcache.errors import EmbedcacheError
from tests.sanitizers import AVX2, AVX512, COMPILER

M, VOCABULARY, LENGTHS = 64, 99, [5, 1, 17, 64, 3, 17, 2, 30, 64, 5, 5, 1]
ALL = [(pooling, layer) for layer in (3, 0, 1) for pooling in ("cls", "mean")]
WIDE = {"intermediate_size": 1030, "hidden_act": "relu", "initializer_range": 0.05}
EVERY = [f"{layer} {name}" for layer in (1, 2, 3) for name in PRODUCTS]
VNNI = "-mavx512vnni"
BUILDS = {  # the last: AVX-VNNI's instruction as AVX-512 encodes it
    "avx512 with vnni": (16, [*AVX512, VNNI]),
    "avx512": (16, AVX512),
    "avx2": (8, AVX2),
    "avx2 with vnni": (8, [*AVX512, VNNI]),
}
needs_int8 = pytest.mark.skipif(
    not backend("int8"), reason="the native encoder is not built, or not for this processor"
)


class Pieces:
    """int8_pieces.cpp, compiled."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def rows(self, x: np.ndarray) -> tuple[list[np.ndarray], int]:
        """(quads, scale, start, spill, place) of float32 [n, k]; k."""
        n, k = x.shape
        padded = np.zeros((n, -(-k // 32) * 32), np.float32)
        padded[:, :k] = x
        quads, spill = np.zeros((n, padded.shape[1] // 4), np.uint32), np.zeros((n, 4), np.uint32)
        made = [quads, np.zeros(n, np.float32), np.zeros(n, np.int32), spill, np.zeros((n, 4), np.int32)]
        size = ctypes.c_int64
        self._library.quantize_rows(at(padded), size(n), size(padded.shape[1]), size(k), *(at(one) for one in made))
        return made, k

    def multiply(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        (made, k), columns = self.rows(x), len(weight)
        padded = -(-columns // 32) * 32
        panels, scale = np.zeros(padded * -(-k // 4), np.uint32), np.zeros(padded, np.float32)
        row, out = np.zeros(-(-k // 32) * 32, np.float32), np.full((len(x), padded), 7, np.float32)
        size = ctypes.c_int64
        self._library.pack(at(weight), size(columns), size(k), at(panels), at(scale), at(row))
        self._library.multiply(
            *(at(one) for one in made), size(len(x)), size(k), at(panels), at(scale), size(columns), at(out)
        )
        assert not np.nan_to_num(out[:, columns:]).any()  # what lies beside the matrix stays zero
        return out[:, :columns]


def at(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def build(name: str, folder: Path) -> Pieces:
    lanes, flags = BUILDS[name]
    if COMPILER is None or not backend("int8"):
        pytest.skip("needs g++ and a processor with AVX2")
    needs = {"-mavx512f": "avx512", VNNI: "vnni"}
    if any(flag in flags and word not in backend("int8") for flag, word in needs.items()):
        pytest.skip("this processor does not have it")
    library = folder / "_pieces.so"
    source = Path(__file__).with_name("int8_pieces.cpp")
    command = [COMPILER, "-std=c++17", "-O1", "-fPIC", "-shared", "-fno-math-errno", "-ffp-contract=fast", "-Wno-psabi"]
    subprocess.run([*command, *flags, f"-DEC_LANES={lanes}", str(source), "-o", str(library)], check=True)
    return Pieces(library)


@pytest.fixture(
    scope="module",
    params=["avx512 with vnni", *(pytest.param(name, marks=pytest.mark.slow) for name in list(BUILDS)[1:])],
)
def pieces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    return build(request.param, tmp_path_factory.mktemp("int8"))


def some_rows(n: int, k: int) -> np.ndarray:
    """Rows as transformers hand them on: a few numbers far above the others; some of them nothing but zeros."""
    rng = np.random.default_rng(n * 1000 + k)
    x = rng.standard_normal((n, k)).astype(np.float32)
    for i in range(n):
        outliers = rng.integers(0, 6)
        x[i, rng.integers(0, k, outliers)] *= rng.choice([4.0, 8.0, 30.0, 1e6])
    x[::7] = 0
    return x


class TestPieces:
    @pytest.mark.parametrize("k", [1, 3, 4, 5, 31, 32, 33, 64, 100, 384, 1000])
    def test_a_row(self, pieces: Pieces, k: int) -> None:
        x = some_rows(30, k)
        (quads, scale, start, spill, place), _ = pieces.rows(x)
        found = quads.view(np.int8).astype(np.int64)[:, : -(-k // 32) * 32]
        for i, row in enumerate(x):
            whole, wanted = quantize(row)
            assert scale[i] == wanted
            more = spill[i].view(np.int8).reshape(4, 4).astype(np.int64)
            for term, where in zip(more, place[i], strict=True):
                found[i, where // 32 * 4 :][:4] += term
            assert (found[i, :k] == whole).all() and not found[i, k:].any()
            assert start[i] == -128 * whole.sum()

    @pytest.mark.parametrize(("k", "columns"), [(1, 1), (5, 31), (32, 32), (33, 33), (100, 70), (384, 96), (1030, 40)])
    def test_a_product(self, pieces: Pieces, k: int, columns: int) -> None:
        """Sums are exact, and the numbers made of them the same to the bit."""
        rng = np.random.default_rng(k)
        weight = rng.standard_normal((columns, k)).astype(np.float32)
        weight[columns // 2] = 0
        weight[:, k // 2] *= 20
        for n in (1, 2, 3, 4, 7, 12, 26):
            x = some_rows(n, k)
            assert pieces.multiply(x, weight).tobytes() == product(x, weight).tobytes()

    def test_outliers_cost_the_others_little(self, pieces: Pieces) -> None:
        rng = np.random.default_rng(1)
        x, weight = rng.standard_normal((20, 384)), rng.standard_normal((64, 384))
        x[:, 17] *= 12
        found = pieces.multiply(x.astype(np.float32), weight.astype(np.float32))
        error = np.linalg.norm(found - x @ weight.T) / np.linalg.norm(x @ weight.T)
        assert 0 < error < 0.012  # with 127 for the outlier: 0.03

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_shows_in_the_whole_row(self, pieces: Pieces, bad: float) -> None:
        x, weight = some_rows(5, 64), np.ones((40, 64), np.float32)
        x[3, 9] = bad
        found = pieces.multiply(x, weight)
        assert np.isnan(found[3]).all() and np.isfinite(found[[0, 1, 2, 4]]).all()
        weight[7, 5] = bad
        assert np.isnan(pieces.multiply(x, weight)[:, 7]).all()

    def test_a_limit_of_the_sum(self, pieces: Pieces) -> None:
        """The largest numbers of the longest sum do not overflow."""
        x, weight = np.full((1, 16384), -3, np.float32), np.full((3, 16384), 5, np.float32)
        weight[1] = -5
        assert pieces.multiply(x, weight).tobytes() == product(x, weight).tobytes()


def ids(lengths: list[int] = LENGTHS) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(2, VOCABULARY, size=length).tolist() for length in lengths]


def native(model: Any, dtype: str = "int8", kept: list[str] | tuple[str, ...] = ()) -> NativeEncoder:
    blueprint = read_blueprint(model, M)
    assert blueprint is not None
    return NativeEncoder(blueprint, M, dtype, kept)


def cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found: np.ndarray = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    return found


@needs_int8
class TestEncoder:
    @pytest.fixture(params=["", "avx512vnni", "avx512", "avx2"])
    def isa(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("EMBEDCACHE_ISA", request.param)
        if request.param not in backend("int8").replace("-", ""):
            pytest.skip("this processor does not have it")
        return str(request.param)

    @pytest.mark.parametrize(
        ("family", "changes"),
        [
            ("bert", {}),
            ("bert", {"hidden_size": 36, "num_attention_heads": 3, **WIDE}),
            ("mpnet", {"intermediate_size": 100, "hidden_act": "gelu_new"}),
            ("electra", {"embedding_size": 24}),
        ],
        ids=str,
    )
    def test_close_to_float32_and_alone_as_among_others(
        self, make_model: Callable[..., Any], isa: str, family: str, changes: dict[str, Any]
    ) -> None:
        model = make_model(family, **changes)
        for kept in ((), ("1 qkv", "2 down"), ("1 output", "3 up")):
            encoder = native(model, kept=kept)
            for outputs in (ALL, [("cls", 3)]):
                together = encoder.run(ids(), outputs)
                for got, want in zip(together, native(model, "float32").run(ids(), outputs), strict=True):
                    assert cosines(got, want).min() > 0.998
                alone = [encoder.run([row], outputs) for row in ids()]
                for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
                    assert whole.tobytes() == np.concatenate(parts).tobytes()

    def test_with_all_products_kept_it_is_as_attention_computes(self, make_model: Callable[..., Any], isa: str) -> None:
        model = make_model("bert")
        other = "bfloat16" if "bf16" in backend("int8") else "float32"
        for got, want in zip(
            native(model, kept=EVERY).run(ids(), ALL), native(model, other).run(ids(), ALL), strict=True
        ):
            assert got.tobytes() == want.tobytes()

    def test_each_product_is_in_int8_unless_it_is_kept(self, make_model: Callable[..., Any]) -> None:
        model = make_model("bert")
        runs = [native(model, kept=EVERY)] + [native(model, kept=[x for x in EVERY if x != one]) for one in EVERY]
        found = {encoder.run(ids(), [("mean", 3)])[0].tobytes() for encoder in runs}
        assert len(found) == 1 + len(EVERY)

    def test_emulation_has_the_same_bits(self, make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        found = []
        for isa in ("avx512vnni", "avx512"):
            monkeypatch.setenv("EMBEDCACHE_ISA", isa)
            if "avx512" not in backend("int8") or (isa == "avx512vnni" and "vnni" not in backend("int8")):
                pytest.skip("this processor does not have it")
            found.append([one.tobytes() for one in native(make_model("bert")).run(ids(), ALL)])
        assert found[0] == found[1]


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"device": "cuda"}, "int8 is computed on CPUs, not on cuda: use --device cpu, or --dtype bfloat16"),
            ({"kernel": "plain"}, "int8: the kernel 'plain' has no int8 products, only native has: use --dtype"),
        ],
    )
    def test_settings(self, tiny_bert: Path, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(EmbedcacheError, match=message):
            Encoder.load(tiny_bert, dtype="int8", **settings)

    def test_a_family_without_it(self, tmp_path: Path, bert_copy: Path) -> None:
        config = bert_copy / "config.json"
        config.write_text(config.read_text("utf-8").replace('"model_type": "bert"', '"model_type": "albert"'), "utf-8")
        with pytest.raises(EmbedcacheError, match=r"albert models have no int8 products, only .*bert.*: use --dtype"):
            Encoder.load(bert_copy, dtype="int8")

    def test_a_processor_without_it(self, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMBEDCACHE_ISA", "plain")
        with pytest.raises(EmbedcacheError, match=r"int8: .*(no AVX2|not built).*: use --dtype bfloat16 or float32"):
            Encoder.load(tiny_bert, dtype="int8")

    @needs_int8
    def test_a_model_unlike_its_family(self, bert_copy: Path) -> None:
        config = bert_copy / "config.json"
        config.write_text(config.read_text("utf-8").replace('"hidden_act": "gelu"', '"hidden_act": "silu"'), "utf-8")
        with pytest.raises(EmbedcacheError, match="bert encoder cannot be computed in int8"):
            Encoder.load(bert_copy, dtype="int8")


TEXTS = ["a good film", "bad", "the plot is thin and the end is bad", "good good good", "a", "film"]


@needs_int8
class TestChoice:
    def test_all_where_little_is_lost(self, tiny_bert: Path) -> None:
        choice = int8.choose_kept(tiny_bert, {"max_length": 32}, TEXTS)
        assert choice.kept == [] and choice.before == choice.after and choice.before[0] > 0.999
        assert choice.in_words().startswith("int8: all products of linear layers (8); cosine to float32")

    def test_the_worst_stay_in_bfloat16(self, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As few as reach what is asked for: with one fewer it would not be reached, and the worst is among them."""
        measured = int8._Measured(tiny_bert, {"max_length": 32}, TEXTS)
        nothing, everything = measured.losses(measured.products), measured.losses([])
        monkeypatch.setattr(int8, "MEDIAN", 1 - float(np.median(nothing) + np.median(everything)) / 2)
        choice = int8.choose_kept(tiny_bert, {"max_length": 32}, TEXTS)
        assert 0 < len(choice.kept) < len(measured.products)
        assert np.median(measured.losses(choice.kept)) <= 1 - int8.MEDIAN < np.median(everything)
        alone = {one: measured.losses([x for x in measured.products if x != one]).mean() for one in measured.products}
        assert max(alone, key=lambda one: alone[one]) in choice.kept
        assert choice == int8.choose_kept(tiny_bert, {"max_length": 32}, TEXTS * 2)
        assert f"but {len(choice.kept)} of 8 in bfloat16, {choice.kept[0]}" in choice.in_words()

    def test_without_a_text(self, tiny_bert: Path) -> None:
        choice = int8.choose_kept(tiny_bert, {"max_length": 32}, [])
        assert (choice.kept, choice.after) == ([], None)
