"""int8: products to the bit against NumPy, the encoder on every instruction set, which products stay out of it."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from int8_reference import Shifted, Spilled, product

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


class Rows(ctypes.Structure):
    """AnyRows of int8_pieces.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("quads", "scale", "start", "spill", "place")),
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
    ]


@dataclass
class Quantized:
    quads: np.ndarray
    scale: np.ndarray
    start: np.ndarray
    spill: np.ndarray | None
    place: np.ndarray  # of shifted rows their shifts
    k: int

    def pointer(self) -> Any:
        spill = None if self.spill is None else at(self.spill)
        parts = (at(self.quads), at(self.scale), at(self.start), spill, at(self.place))
        return ctypes.byref(Rows(*parts, len(self.quads), self.k))


class Pieces:
    """int8_pieces.cpp, compiled."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self.lanes = int(self._library.lanes())

    def kinds(self) -> list[Spilled | Shifted]:
        return [Spilled(self.lanes), Shifted(-0.17), Shifted(0.0), Shifted(None)]

    def rows(self, kind: Spilled | Shifted, x: np.ndarray) -> Quantized:
        n, k = x.shape
        padded = np.zeros((n, -(-k // 32) * 32), np.float32)
        padded[:, :k] = x
        spilled = isinstance(kind, Spilled)
        made = Quantized(
            np.zeros((n, padded.shape[1] // 4), np.uint32),
            np.zeros(n, np.float32),
            np.zeros(n, np.int32),
            np.zeros((n, 4), np.uint32) if spilled else None,
            np.zeros((n, 4) if spilled else n, np.int32),
            k,
        )
        low = 1.0 if isinstance(kind, Spilled) or kind.low is None else kind.low
        self._library.quantize_rows(at(padded), made.pointer(), ctypes.c_float(low))
        return made

    def multiply(self, kind: Spilled | Shifted, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        made, columns = self.rows(kind, x), len(weight)
        padded, k = -(-columns // 32) * 32, made.k
        panels, scale = np.zeros(padded * -(-k // 4), np.uint32), np.zeros(padded, np.float32)
        row, out = np.zeros(-(-k // 32) * 32, np.float32), np.full((len(x), padded), 7, np.float32)
        total, size = np.zeros((-(-k // 512), padded), np.int32), ctypes.c_int64
        self._library.pack(at(weight), size(columns), size(k), at(panels), at(scale), at(total), at(row))
        self._library.multiply(made.pointer(), at(panels), at(scale), at(total), size(columns), at(out))
        assert not np.nan_to_num(out[:, columns:]).any()  # what lies beside the matrix stays zero
        return out[:, :columns]

    def near(self, which: int, x: np.ndarray) -> np.ndarray:
        out = np.zeros_like(x)
        self._library.near_of(which, at(x), ctypes.c_int64(len(x)), at(out))
        return out


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
    command = [COMPILER, "-std=c++17", "-O2", "-fPIC", "-shared", "-fno-math-errno", "-ffp-contract=fast", "-Wno-psabi"]
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


def rows_for(kind: Spilled | Shifted, n: int, k: int) -> np.ndarray:
    x = some_rows(n, k)
    return x if isinstance(kind, Spilled) or kind.low is None else np.maximum(x, np.float32(kind.low))


class TestPieces:
    @pytest.mark.parametrize("k", [1, 3, 4, 5, 31, 32, 33, 64, 100, 384, 1000])
    def test_a_row(self, pieces: Pieces, k: int) -> None:
        for kind in pieces.kinds():
            x = rows_for(kind, 30, k)
            made = pieces.rows(kind, x)
            found = made.quads.view(np.int8).astype(np.int64)
            for i, row in enumerate(x):
                whole, scale, shift = kind.quantize(row)
                assert made.scale[i] == scale or np.isnan(scale)
                if made.spill is not None:
                    more = made.spill[i].view(np.int8).reshape(4, 4).astype(np.int64)
                    for term, where in zip(more, made.place[i], strict=True):
                        found[i, where // 32 * 4 :][:4] += term
                else:
                    assert made.place[i] == shift
                assert (found[i, :k] == whole + shift).all() and not found[i, k:].any()
                assert made.start[i] == -128 * found[i].sum()

    @pytest.mark.parametrize(("k", "columns"), [(1, 1), (5, 31), (32, 32), (33, 33), (100, 70), (384, 96), (1030, 40)])
    def test_a_product(self, pieces: Pieces, k: int, columns: int) -> None:
        """Sums are exact, and the numbers made of them the same to the bit."""
        rng = np.random.default_rng(k)
        weight = rng.standard_normal((columns, k)).astype(np.float32)
        weight[columns // 2] = 0
        weight[:, k // 2] *= 20
        for kind in pieces.kinds():
            if isinstance(kind, Shifted) and kind.low is not None and k > 512:
                continue  # such sums are taken in parts
            for n in (1, 2, 3, 4, 7, 12, 26):
                x = rows_for(kind, n, k)
                assert pieces.multiply(kind, x, weight).tobytes() == product(kind, x, weight).tobytes()

    def test_outliers_cost_the_others_little(self, pieces: Pieces) -> None:
        rng = np.random.default_rng(1)
        x, weight = rng.standard_normal((20, 384)), rng.standard_normal((64, 384))
        x[:, 17] *= 12
        found = pieces.multiply(Spilled(pieces.lanes), x.astype(np.float32), weight.astype(np.float32))
        error = np.linalg.norm(found - x @ weight.T) / np.linalg.norm(x @ weight.T)
        assert 0 < error < 0.012  # with 127 for the outlier: 0.03

    def test_a_known_least_number_halves_the_steps(self, pieces: Pieces) -> None:
        rng = np.random.default_rng(2)
        x, weight = (f(size=(n, 384)).astype(np.float32) for f, n in ((rng.exponential, 20), (rng.standard_normal, 64)))
        errors = [np.abs(pieces.multiply(Shifted(low), x, weight) - x @ weight.T).mean() for low in (0.0, None)]
        assert errors[0] < 0.8 * errors[1]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_shows_in_the_whole_row(self, pieces: Pieces, bad: float) -> None:
        for kind in (Spilled(pieces.lanes), Shifted(None)):
            x, weight = some_rows(5, 64), np.ones((40, 64), np.float32)
            x[3, 9] = bad
            found = pieces.multiply(kind, x, weight)
            assert np.isnan(found[3]).all() and np.isfinite(found[[0, 1, 2, 4]]).all()
            weight[7, 5] = bad
            assert np.isnan(pieces.multiply(kind, x, weight)[:, 7]).all()

    def test_a_limit_of_the_sum(self, pieces: Pieces) -> None:
        """The largest numbers of the longest sum do not overflow."""
        x, weight = np.full((1, 16384), -3, np.float32), np.full((3, 16384), 5, np.float32)
        weight[1] = -5
        for kind in (Spilled(pieces.lanes), Shifted(None)):
            assert pieces.multiply(kind, x, weight).tobytes() == product(kind, x, weight).tobytes()

    def test_functions_that_are_near(self, pieces: Pieces) -> None:
        x = np.linspace(-12, 12, 48000, dtype=np.float32)
        exact = x * scipy.stats.norm.cdf(x.astype(np.float64))
        found = pieces.near(1, x)
        assert np.abs(found - exact).max() < 9e-5 and found.min() > -0.1705
        x = np.linspace(-125, 0, 48000, dtype=np.float32)
        assert np.abs(pieces.near(0, x) / np.exp2(x.astype(np.float64)) - 1).max() < 4e-6
        ends = np.array([-np.inf, -1e30, -151, np.nan] * 4, np.float32)
        assert (pieces.near(0, ends).reshape(4, 4)[:, :3] < 1e-37).all() and np.isnan(pieces.near(0, ends)[3])
        assert np.isnan(pieces.near(1, ends)[3])


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
            ("albert", {"embedding_size": 24, "num_hidden_groups": 2}),
            ("deberta-v2", {"position_buckets": 16}),
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
        config.write_text(
            config.read_text("utf-8").replace('"model_type": "bert"', '"model_type": "roformer"'), "utf-8"
        )
        with pytest.raises(EmbedcacheError, match=r"roformer models have no int8 products, only .*bert.*: use --dtype"):
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
