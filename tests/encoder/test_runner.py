"""Every runner gives the vectors of plain transformers, for every family, layer and pooling, in any batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from embedcache.encoder import gpu_parts, runner_packed
from embedcache.encoder.blueprint import Blueprint
from embedcache.encoder.families import FAMILIES
from embedcache.encoder.poolings import POOLINGS
from embedcache.encoder.runner import Runner, choose_runner, count_threads
from embedcache.encoder.runner_plain import Plain
from embedcache.errors import EmbedcacheError
from tests.encoder.conftest import VOCABULARY, attend_by_rows

M = 64
LENGTHS = [5, 1, 17, 64, 3, 17, 2, 30, 64, 5, 5, 1]
LAST = [("cls", 3)]
ALL = [(pooling, layer) for layer in (3, 0, 1, 2) for pooling in POOLINGS]
# How the families and their configurations vary: heads, widths, activations, embedding sizes, positions.
MODELS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"embedding_size": 24} if family.projection else {}) for name, family in FAMILIES.items()),
    ("bert", {"num_attention_heads": 1, "hidden_act": "relu", "num_hidden_layers": 3}),
    ("bert", {"num_attention_heads": 16, "intermediate_size": 40, "hidden_act": "gelu_new", "type_vocab_size": 1}),
    ("bert", {"hidden_size": 36, "num_attention_heads": 3, "max_position_embeddings": 64, "layer_norm_eps": 1e-5}),
    ("roberta", {"pad_token_id": 0, "max_position_embeddings": 65, "type_vocab_size": 1}),
    ("xlm-roberta", {"num_attention_heads": 2}),
    ("camembert", {"intermediate_size": 100}),
    ("mpnet", {"num_attention_heads": 2, "hidden_act": "relu", "max_position_embeddings": 514}),
    ("distilbert", {"num_attention_heads": 8, "hidden_act": "relu"}),
    ("electra", {"embedding_size": 32}),
    ("electra", {"embedding_size": 20, "num_attention_heads": 2}),
    ("electra", {"embedding_size": 48, "hidden_act": "gelu_fast"}),
    ("ernie", {"use_task_id": True}),
    ("albert", {"embedding_size": 32, "num_hidden_groups": 2}),
    ("deberta-v2", {"position_buckets": 16, "type_vocab_size": 2}),
    ("deberta-v2", {"position_buckets": 256, "num_attention_heads": 2, "hidden_act": "relu"}),
    ("deberta-v2", {"position_buckets": 60, "max_relative_positions": 36, "num_attention_heads": 1}),
]


def plain(model: Any) -> Plain:
    return Plain(model, model.config.pad_token_id, "cpu")


def make_runner(model: Any, kernel: str) -> Runner:
    if kernel == "packed" and FAMILIES[model.config.model_type].distances:
        pytest.skip("only native code computes disentangled attention")
    try:
        runner, _ = choose_runner(model, plain(model), M, "cpu", kernel, str(model.dtype).removeprefix("torch."))
    except EmbedcacheError:
        if kernel != "native":
            raise
        pytest.skip("the native encoder is not built, or not for this processor")
    assert runner.kernel == kernel
    return runner


def some_ids(lengths: list[int] = LENGTHS) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(2, VOCABULARY, size=length).tolist() for length in lengths]  # no pad id, 0 or 1


def close(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for got, want in zip(found, wanted, strict=True):
        assert (got.dtype, got.shape) == (np.float32, want.shape)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("kernel", ["packed", "native"])
class TestRunner:
    @pytest.mark.parametrize(("family", "changes"), MODELS, ids=str)
    def test_all_layers_and_poolings(
        self, make_model: Callable[..., Any], kernel: str, family: str, changes: dict[str, Any]
    ) -> None:
        model = make_model(family, **changes)
        close(make_runner(model, kernel).run(some_ids(), ALL), plain(model).run(some_ids(), ALL))

    @pytest.mark.parametrize(("family", "changes"), MODELS, ids=str)
    def test_the_last_layer_for_cls_alone(
        self, make_model: Callable[..., Any], kernel: str, family: str, changes: dict[str, Any]
    ) -> None:
        model = make_model(family, **changes)
        runner = make_runner(model, kernel)
        for outputs in (LAST, [("mean", 1), *LAST, ("cls", 0)], [("cls", 2), ("cls", 1)], [("cls", 0)], LAST * 2):
            close(runner.run(some_ids(), outputs), plain(model).run(some_ids(), outputs))

    @pytest.mark.parametrize("family", ["bert", "mpnet", "deberta-v2"])
    def test_a_row_alone_and_among_others(self, make_model: Callable[..., Any], kernel: str, family: str) -> None:
        runner, ids = make_runner(make_model(family), kernel), some_ids()
        for outputs in (LAST, ALL):
            together = runner.run(ids, outputs)
            alone = [runner.run([row], outputs) for row in ids]
            close([np.concatenate(parts) for parts in zip(*alone, strict=True)], together)
            if runner.invariant:
                for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
                    assert whole.tobytes() == np.concatenate(parts).tobytes()

    @pytest.mark.parametrize("length", [1, 2, 3])
    def test_short_rows(self, make_model: Callable[..., Any], kernel: str, length: int) -> None:
        for family in ("bert", "mpnet", "distilbert", "deberta-v2"):
            if kernel == "packed" and FAMILIES[family].distances:
                continue
            model, ids = make_model(family), some_ids([length])
            close(make_runner(model, kernel).run(ids, ALL), plain(model).run(ids, ALL))

    def test_rows_of_one_length_and_of_all(self, make_model: Callable[..., Any], kernel: str) -> None:
        model = make_model("mpnet")
        for lengths in ([9] * 20, list(range(1, M + 1))):
            ids = some_ids(lengths)
            close(make_runner(model, kernel).run(ids, LAST), plain(model).run(ids, LAST))

    def test_bfloat16(self, make_model: Callable[..., Any], kernel: str) -> None:
        """Not farther from the float32 vectors than transformers in bfloat16, with some room for luck."""
        exact = plain(make_model("bert")).run(some_ids(), ALL)
        rounded = make_model("bert").bfloat16()
        runs = [make_runner(rounded, kernel).run(some_ids(), ALL), plain(rounded).run(some_ids(), ALL)]
        ours, theirs = ([np.abs(got - want).max() for got, want in zip(run, exact, strict=True)] for run in runs)
        assert all(a <= 1.5 * b for a, b in zip(ours, theirs, strict=True)), (ours, theirs)
        last = make_runner(rounded, kernel).run(some_ids(), LAST)[0]
        assert np.abs(last - exact[0]).max() <= 1.5 * theirs[0]


@pytest.mark.parametrize("isa", ["avx2", "plain"])
@pytest.mark.parametrize(("family", "changes"), MODELS, ids=str)
def test_native_with_fewer_instructions(
    make_model: Callable[..., Any], family: str, changes: dict[str, Any], isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCACHE_ISA", isa)
    model, ids = make_model(family, **changes), some_ids()
    close(make_runner(model, "native").run(ids, ALL), plain(model).run(ids, ALL))
    close(make_runner(model, "native").run(ids, LAST), plain(model).run(ids, LAST))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("albert", {"inner_group_num": 2}),
        ("deberta", {}),
        ("prelayernorm", {"pad_token_id": 0}),
        ("bert", {"hidden_act": "silu"}),
    ],
)
def test_other_architectures_stay_plain(make_model: Callable[..., Any], family: str, changes: dict[str, Any]) -> None:
    model = make_model(family, **changes)
    runner, _ = choose_runner(model, plain(model), M, "cpu", None, "float32")
    assert (runner.kernel, runner.invariant) == ("plain", False)
    (got,) = runner.run(some_ids(), LAST)
    for row, want in zip(some_ids(), got, strict=True):
        hidden = model(input_ids=torch.tensor([row])).last_hidden_state
        np.testing.assert_allclose(hidden[0, 0].numpy(), want, atol=1e-5)
    with pytest.raises(EmbedcacheError, match=f"kernel 'packed' cannot run this {model.config.model_type} encoder"):
        choose_runner(model, plain(model), M, "cpu", "packed", "float32")


def test_unknown_kernel(make_model: Callable[..., Any]) -> None:
    model = make_model("bert")
    with pytest.raises(EmbedcacheError, match="unknown kernel 'fast': use native, packed, plain"):
        choose_runner(model, plain(model), M, "cpu", "fast", "float32")


@pytest.mark.parametrize("family", ["bert", "mpnet", "electra"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_without_its_instructions(
    make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, family: str, dtype: torch.dtype
) -> None:
    """On a processor that multiplies float32 only, the vectors are as close as on the others."""
    exact = plain(make_model(family)).run(some_ids(), ALL)
    rounded = make_model(family).to(dtype)
    theirs = plain(rounded).run(some_ids(), ALL)
    monkeypatch.setattr(runner_packed, "cpu_computes_bfloat16", lambda: False)
    dtypes = set()
    linear = runner_packed.functional.linear
    monkeypatch.setattr(runner_packed.functional, "linear", lambda x, *rest: dtypes.add(x.dtype) or linear(x, *rest))
    ours = make_runner(rounded, "packed").run(some_ids(), ALL)
    assert dtypes == {torch.float32}
    for got, other, want in zip(ours, theirs, exact, strict=True):
        assert 0 < np.abs(got - want).max() <= 1.5 * np.abs(other - want).max()


def fused(blueprint: Blueprint) -> Fused:
    return Fused(blueprint.activation, blueprint.epsilon)


class Fused:
    """What ``fused_triton.Fused`` computes, in torch."""

    def __init__(self, activation: str, epsilon: float) -> None:
        self._activate, self._epsilon = gpu_parts.ACTIVATIONS[activation], epsilon

    def add_norm(self, x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        assert x.is_contiguous() and y.is_contiguous() and x.shape == y.shape
        return torch.nn.functional.layer_norm(x + y, scale.shape, scale, shift, self._epsilon)

    def activate(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        assert x.is_contiguous()
        return x.copy_(self._activate(x + bias))


@pytest.mark.parametrize(("family", "changes"), MODELS, ids=str)
def test_as_on_a_gpu(
    make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, family: str, changes: dict[str, Any]
) -> None:
    """All that is done on a GPU alone, with stand-ins: vectors of plain transformers, no loop over lengths."""
    calls: list[tuple[list[int], list[int], int, int]] = []

    def stand_in(query: Any, key: Any, value: Any, starts: Any, starts_k: Any, longest: int, longest_k: int) -> Any:
        assert key.shape == value.shape and query.shape[1:] == key.shape[1:]
        assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
        calls.append((starts.tolist(), starts_k.tolist(), longest, longest_k))
        return attend_by_rows(query, key, value, starts, starts_k, longest, longest_k)

    relative = family == "mpnet"  # its bias by distance, which the attention does not take
    monkeypatch.setattr(runner_packed, "flash_attention", lambda _: None if relative else stand_in)
    monkeypatch.setattr(runner_packed, "fused_parts", fused)
    monkeypatch.setattr(runner_packed, "_all_at_once", lambda _: True)
    model = make_model(family, **changes)
    runner = make_runner(model, "packed")
    assert runner.parts == {"attention": "groups" if relative else "varlen", "between": "triton"}  # type: ignore[attr-defined]
    assert (runner.batch_tokens is None) == relative
    close(runner.run(some_ids(), ALL), plain(model).run(some_ids(), ALL))
    every = [0, *np.cumsum(sorted(LENGTHS, reverse=True)).tolist()]
    whole = (every, every, max(LENGTHS), max(LENGTHS))
    assert calls == [whole] * (0 if relative else 3)
    for outputs in (LAST, [("mean", 1), *LAST], [("cls", 2), ("cls", 1)]):
        close(runner.run(some_ids(), outputs), plain(model).run(some_ids(), outputs))
    alone = (list(range(len(LENGTHS) + 1)), every, 1, max(LENGTHS))
    assert calls[3:] == ([] if relative else [whole, whole, alone, whole, whole, alone, whole, alone])


def test_bfloat16_as_on_a_gpu(make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With every row between the products in bfloat16, too, not farther from float32 than transformers."""
    exact, rounded = plain(make_model("bert")).run(some_ids(), ALL), make_model("bert").bfloat16()
    theirs = plain(rounded).run(some_ids(), ALL)
    monkeypatch.setattr(runner_packed, "cpu_computes_bfloat16", lambda: True)
    monkeypatch.setattr(runner_packed, "flash_attention", lambda _: attend_by_rows)
    monkeypatch.setattr(runner_packed, "fused_parts", fused)
    monkeypatch.setattr(runner_packed, "_all_at_once", lambda _: True)
    runner = make_runner(rounded, "packed")
    runner._between = torch.bfloat16  # type: ignore[attr-defined]
    for got, other, want in zip(runner.run(some_ids(), ALL), theirs, exact, strict=True):
        assert np.abs(got - want).max() <= 1.5 * np.abs(other - want).max()


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    class Native:
        kernel, invariant, run = "native", True, None

    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert count_threads(Native(), "cpu") == 3  # type: ignore[arg-type]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert count_threads(Native(), "cpu") == 4  # type: ignore[arg-type]
