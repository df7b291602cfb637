"""The native engine of last layers: gradients and trainings against autograd through the whole layer, and bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.encoder.families import FAMILIES, with_own_layers
from embedcache.finetune import engine_native
from embedcache.finetune.blocks import ACTIVATIONS, QUERIES, Block, Ragged, Shape, TunedBlock
from embedcache.finetune.first_row import distances
from embedcache.finetune.layer_tensors import parameters_of, shape_of, tensors_of
from embedcache.heads import random_streams
from embedcache.heads.engine import NativeUnavailableError
from embedcache.heads.kinds import KINDS
from embedcache.heads.losses import LOSSES
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, View, training_weight
from tests.encoder.conftest import VOCABULARY, _make_model
from tests.finetune.sample import LENGTHS, RELATIVE, make_weights, problem
from tests.finetune.whole_layer import Dropped, logits, loss_of, texts_of

try:
    engine_native.library()
except NativeUnavailableError as missing:
    pytest.skip(str(missing), allow_module_level=True)

ISA = ("avx512", "avx2", "neon", "plain")
LR, EPS = 1e5, 0.5  # one step of AdamW that can be turned round: w0 - w1 = LR g / (|g| + EPS)
Arrays = Mapping[str, np.ndarray]


@pytest.fixture(params=ISA)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EMBEDCACHE_ISA", request.param)
    if engine_native.backend() != f"cpu-{request.param}":
        pytest.skip(f"this machine has no {request.param}")
    return str(request.param)


def gradients(states: Ragged, shape: Shape, task: Task, block: Block, **options: Any) -> tuple[TunedBlock, Arrays]:
    """Of the first step, all rows in one batch, from what it does to the weights."""
    spec = replace(block.spec, lr=LR, betas=(0.0, 0.0), eps=EPS, weight_decay=0.0, schedule="constant", warmup=0.0)
    block = replace(block, spec=spec, head_lr=LR, batch_size=len(task.train.rows), epochs=1)
    outcome = engine_native.train(states, shape, [replace(task, val=None)], [block], **options)[0]
    assert outcome.status == "ok"
    moved = {name: (block.start[name].astype(np.float64) - outcome.weights[name]) / LR for name in outcome.weights}
    return outcome, {name: EPS * way / (1.0 - np.abs(way)) for name, way in moved.items()}


def autograd(
    states: Ragged, shape: Shape, task: Task, block: Block, dtype: torch.dtype = torch.float64
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the first step through the whole layer; clipped, where the block says so."""
    w = {name: torch.tensor(array, dtype=dtype, requires_grad=True) for name, array in block.start.items()}
    rows = task.train.rows[random_streams.shuffle(block.spec.seed, 0, len(task.train.rows))]
    dropped = Dropped(block, 0, states.lengths[rows], shape, int(states.lengths.max()))
    z = logits(w, shape, texts_of(states, rows, dtype), dropped)
    loss = loss_of(block.spec, task, training_weight(block.spec, task), z, task.train.y[rows])
    loss.backward()
    if block.clip:
        torch.nn.utils.clip_grad_norm_(list(w.values()), block.clip)
    return float(loss.detach()), {name: one.grad for name, one in w.items()}  # type: ignore[misc]


def worst(found: Arrays, expected: Mapping[str, torch.Tensor]) -> float:
    """The largest error of a tensor over its largest number."""
    assert found.keys() == expected.keys()
    errors = {}
    for name, one in expected.items():
        most = float(one.abs().max())
        errors[name] = float(np.abs(found[name] - one.numpy()).max()) / most if most else 0.0
    return max(errors.values())


def norm_of(tensors: Arrays) -> float:
    return math.sqrt(sum(float((one.astype(np.float64) ** 2).sum()) for one in tensors.values()))


CASES = {
    "as MiniLM": (Shape(64, 128, 2, 1e-12), {"clip": 0.0}),
    "clipped, no dropout": (Shape(160, 96, 5, 1e-12), {"hidden_dropout": 0.0, "attention_dropout": 0.0, "clip": 0.05}),
    "clipped, more outputs than rows": (Shape(256, 512, 4, 1e-5), {"clip": 0.05, "dtype": np.float32}),
    "distances, a hidden layer": (Shape(36, 52, 4, 1e-12, relative=RELATIVE), {"hidden": 23, "clip": 1.0}),
    "the last token, tanh": (Shape(40, 50, 2, 1e-5, "gelu_tanh", "last", RELATIVE[:2]), {"kind": "multilabel"}),
    "relu, numbers": (Shape(20, 33, 5, 1e-5, "relu", "last"), {"kind": "regression", "clip": 0.5}),
    "focal": (Shape(48, 64, 3, 1e-5), {"loss": "focal", "class_weight": "balanced"}),
    "two layers": (Shape(64, 96, 2, 1e-12, layers=2), {"clip": 0.0}),
    "three layers, the last token": (
        Shape(60, 50, 3, 1e-5, "gelu_tanh", "last", RELATIVE[:3], layers=3),
        {"hidden": 23, "dtype": np.float32},
    ),
    "long rows, heads of 40": (
        Shape(160, 200, 4, 1e-5, "relu", layers=2),
        {"lengths": [130, 3, 0, 97, 1, 49], "hidden_dropout": 0.0, "attention_dropout": 0.0, "clip": 0.05},
    ),
    "the mean": (Shape(64, 96, 2, 1e-12, query="mean"), {"clip": 0.0}),
    "the mean of two layers, unit length, distances": (
        Shape(36, 52, 4, 1e-12, "gelu", "mean", RELATIVE, 2, True),
        {"hidden": 23, "kind": "multilabel"},
    ),
    "unit length of the first token": (Shape(40, 50, 2, 1e-5, layers=2, unit=True), {"dtype": np.float32}),
    "smoothing": (Shape(48, 64, 3, 1e-5), {"label_smoothing": 0.2, "class_weight": (0.5, 2.0, 1.0), "hidden": 64}),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_autograds_through_the_whole_layer(case: str, isa: str) -> None:
    shape, settings = CASES[case]
    states, _, task, block = problem(shape, **settings)
    outcome, found = gradients(states, shape, task, block, threads=2)
    loss, expected = autograd(states, shape, task, block)
    assert outcome.train_loss[0] == pytest.approx(loss, rel=1e-6)
    assert worst(found, expected) < 1e-5


@pytest.mark.parametrize(("layers", "query"), [(1, "first"), (2, "first"), (2, "mean")])
@pytest.mark.parametrize("kernel", ["", *ISA])
def test_bfloat16_is_close_and_emulated_elsewhere(
    kernel: str, layers: int, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCACHE_ISA", kernel)
    states, shape, task, block = problem(Shape(64, 128, 2, 1e-12, query=query, layers=layers), hidden=16)
    _, found = gradients(states, shape, task, block, compute="bfloat16", threads=2)
    _, expected = autograd(states, shape, task, block)
    off = norm_of({name: found[name] - one.numpy() for name, one in expected.items()})
    assert 1e-4 < off / norm_of({name: one.numpy() for name, one in expected.items()}) < 0.02  # rounded, and no more


def test_the_norm_is_that_before_clipping() -> None:
    states, shape, task, block = problem(Shape(160, 96, 5, 1e-12), clip=0.05)
    outcome, _ = gradients(states, shape, task, block)
    _, whole = autograd(states, shape, task, replace(block, clip=0.0))
    norm = norm_of({name: one.numpy() for name, one in whole.items()})
    assert norm > 0.5 and outcome.norm[0] == pytest.approx(norm, rel=1e-6)
    assert np.isnan(gradients(states, shape, task, replace(block, clip=0.0))[0].norm[0])


@pytest.mark.parametrize("family", list(filter(with_own_layers, FAMILIES)))
def test_every_family_as_transformers_computes_it(family: str) -> None:
    """The logits are those of the whole model's first token, or of the mean; and the tensors go back."""
    model, known = _make_model(family), FAMILIES[family]
    rng = np.random.default_rng(0)
    ids = [torch.from_numpy(rng.integers(5, VOCABULARY, (1, n))) for n in (3, 11, 40)]
    passes = [model(one, output_hidden_states=True) for one in ids]
    relative = distances(model, known, -39, 40)
    one_layer = shape_of(model.config, known, None if relative is None else relative.numpy())
    layers = [dict(one.named_parameters()) for one in model.get_submodule(known.names.layers)]
    head = {"head2": np.eye(2, 32, dtype=np.float32), "head2_bias": np.zeros(2, np.float32)}
    for depth, query in ((1, "first"), (2, "first"), (1, "mean"), (3, "mean")):
        values = torch.cat([one.hidden_states[-1 - depth][0] for one in passes]).numpy()
        states, shape = Ragged(values, np.array([0, 3, 14]), np.array([3, 11, 40])), replace(one_layer, layers=depth)
        tensors = [tensors_of(one, known) for one in layers[-depth:]]
        start = {f"{k}.{name}": array for k, one in enumerate(tensors) for name, array in one.items()}
        rows = View(values, np.zeros(3, np.int32), np.arange(3))
        block = Block(HeadSpec(hidden=0), 0, start | head, epochs=0)
        outcome = engine_native.train(states, replace(shape, query=query), [Task(rows, rows, 2)], [block])[0]
        hidden = [one.last_hidden_state[0] for one in passes]
        theirs = torch.stack([one[0] if query == "first" else one.mean(0) for one in hidden])[:, :2].numpy()
        np.testing.assert_allclose(outcome.val_logits, theirs, rtol=2e-5, atol=2e-5)
    back = parameters_of(tensors[-1], known)
    assert all((back[name] == layers[-1][name].numpy()).all() for name in back)
    assert set(layers[-1]) - set(back) == {f"{known.names.attention[1]}.bias"}


def plain_loop(states: Ragged, shape: Shape, task: Task, block: Block, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The whole training in torch, with its own AdamW and clipping."""
    spec, longest = block.spec, int(states.lengths.max())
    w = {name: torch.tensor(array, dtype=dtype, requires_grad=True) for name, array in block.start.items()}
    groups = [
        {"params": [one], "lr": block.head_lr if name.startswith("head") else spec.lr,
         "weight_decay": spec.weight_decay if one.dim() > 1 else 0.0}
        for name, one in w.items()
    ]  # fmt: skip
    adamw = torch.optim.AdamW(groups, betas=spec.betas, eps=spec.eps)
    rows_of = lambda epoch: task.train.rows[random_streams.shuffle(spec.seed, epoch, len(task.train.rows))]  # noqa: E731
    steps = -(-len(task.train.rows) // block.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, lambda step: 1.0 - step / (steps * block.epochs))
    for step in range(steps * block.epochs):
        rows = rows_of(step // steps)[step % steps * block.batch_size :][: block.batch_size]
        z = logits(w, shape, texts_of(states, rows, dtype), Dropped(block, step, states.lengths[rows], shape, longest))
        adamw.zero_grad()
        loss_of(spec, task, training_weight(spec, task), z, task.train.y[rows]).backward()
        for one in w.values():  # of a batch of texts without tokens
            one.grad = torch.zeros_like(one) if one.grad is None else one.grad
        torch.nn.utils.clip_grad_norm_(list(w.values()), block.clip)
        adamw.step()
        schedule.step()
    return {name: one.detach() for name, one in w.items()}


LAYERS = {
    "last": Shape(32, 48, 2, 1e-12),
    "two": Shape(32, 48, 2, 1e-12, layers=2),
    "the mean": Shape(32, 48, 2, 1e-12, query="mean", layers=2, unit=True),
}


@pytest.mark.parametrize("epochs", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("layers", LAYERS)
def test_a_training_stays_as_close_to_float64_as_torch_does(layers: str, epochs: int) -> None:
    settings = {
        "lr": 1e-3,
        "schedule": "linear",
        "batch_size": 3,
        "epochs": epochs,
        "lengths": LENGTHS[:6] + LENGTHS[7:],
    }
    states, shape, task, block = problem(LAYERS[layers], **settings)
    exact = plain_loop(states, shape, task, block, torch.float64)
    theirs = plain_loop(states, shape, task, block, torch.float32)
    ours = engine_native.train(states, shape, [task], [block], threads=2)[0].weights

    def distance(found: Mapping[str, Any]) -> float:
        return math.sqrt(sum(float(((torch.as_tensor(found[name]) - one) ** 2).sum()) for name, one in exact.items()))

    way = math.sqrt(sum(float(((one - torch.from_numpy(block.start[n])) ** 2).sum()) for n, one in exact.items()))
    assert way > 0.1 and distance(ours) < max(2.0 * distance(theirs), 1e-6 * way)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_a_batch_without_any_token_leaves_the_layers_without_a_gradient(layers: str, compute: str) -> None:
    settings = {"lr": 1e-3, "schedule": "linear", "batch_size": 1, "epochs": 4, "lengths": [6, 0, 0, 9]}
    states, shape, task, block = problem(LAYERS[layers], **settings)
    exact = plain_loop(states, shape, task, block, torch.float64)
    ours = engine_native.train(states, shape, [task], [block], compute=compute)[0].weights
    way = norm_of({name: one.numpy() - block.start[name] for name, one in exact.items()})
    off = norm_of({name: one.numpy() - ours[name] for name, one in exact.items()})
    assert off < way * (1e-3 if compute == "float32" else 0.2)


def bits(outcome: TunedBlock) -> tuple:
    scores = (outcome.train_loss, outcome.val_loss, outcome.val_accuracy, outcome.val_macro_f1, outcome.norm)
    weights = tuple(array.tobytes() for array in outcome.weights.values())
    return (
        *weights,
        outcome.val_logits.tobytes(),
        *(one.tobytes() for one in scores),
        outcome.best_epoch,
        outcome.status,
    )


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize(("layers", "query"), [(1, "first"), (2, "first"), (2, "mean")])
def test_the_same_bits_alone_in_a_bank_and_on_any_number_of_threads(layers: int, query: str, compute: str) -> None:
    lengths, size = (LENGTHS * 8, (256, 512, 4)) if layers == 1 else (LENGTHS * 4, (136, 200, 4))
    settings = {"n_val": 10, "lengths": lengths, "batch_size": 30, "epochs": 2}
    states, shape, task, block = problem(Shape(*size, 1e-12, query=query, layers=layers), **settings)
    other = make_weights(shape, 40, 3, np.random.default_rng(9))
    blocks = [
        block,
        replace(block, spec=HeadSpec(hidden=40, seed=5, lr=3e-4), start=other, batch_size=7, clip=0.1),
        replace(block, spec=HeadSpec(hidden=0, seed=6, lr=1e30)),  # diverges
    ]
    alone = [bits(engine_native.train(states, shape, [task], [one], compute=compute, threads=1)[0]) for one in blocks]
    for threads in (1, 2, 3, 5):
        bank = engine_native.train(states, shape, [task], blocks, compute=compute, threads=threads)
        assert [bits(outcome) for outcome in bank] == alone, threads
    assert [one[-1] for one in alone] == ["ok", "ok", "diverged"]


def test_the_best_epoch_is_kept_with_its_logits() -> None:
    states, shape, task, block = problem(
        Shape(64, 64, 2, 1e-12), n_val=4, lr=3e-3, epochs=12, batch_size=4, early_stop=3
    )
    outcome = engine_native.train(states, shape, [task], [block])[0]
    best = outcome.best_epoch
    assert best == int(np.nanargmin(outcome.val_loss)) and outcome.epochs_run == best + 4 < 12
    again = replace(block, start=outcome.weights, epochs=0)
    scored = engine_native.train(states, shape, [task], [again])[0]
    assert scored.val_logits.tobytes() == outcome.val_logits.tobytes()
    nll = torch.nn.functional.cross_entropy(
        torch.from_numpy(scored.val_logits).double(), torch.from_numpy(task.val.y[task.val.rows].astype(np.int64))
    )
    assert outcome.val_loss[best] == pytest.approx(float(nll), rel=1e-6)


def test_ctrl_c_ends_it_between_two_steps() -> None:
    states, shape, task, block = problem(Shape(64, 64, 2, 1e-12), epochs=1_000_000, batch_size=4)

    def interrupt(done: int, total: int, trained: int) -> None:
        if done:
            raise KeyboardInterrupt

    outcome = engine_native.train(states, shape, [task], [block], progress=interrupt)[0]
    assert outcome.status == "cancelled" and outcome.epochs_run > 0
    assert all(np.isfinite(array).all() for array in outcome.weights.values())


@pytest.mark.parametrize("examples", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_any_shape_and_option(examples: int) -> None:
    settings(max_examples=examples, deadline=None, derandomize=True)(given(data=st.data())(one_step_of_anything))()


def one_step_of_anything(data: st.DataObject) -> None:
    draw, share = data.draw, st.sampled_from([0.0, 0.1, 0.6])
    heads, head, kind = draw(st.integers(1, 5)), draw(st.integers(4, 20)), draw(st.sampled_from(tuple(KINDS)))
    relative = RELATIVE[:1].repeat(heads, 0) if draw(st.booleans()) else None
    shape = Shape(
        *(heads * head, draw(st.integers(1, 90)), heads, 1e-5),
        *(draw(st.sampled_from(ACTIVATIONS)), draw(st.sampled_from(QUERIES)), relative),
        *(draw(st.integers(1, 3)), draw(st.booleans())),
    )
    plain = kind == "regression"
    settings = {
        "lengths": draw(st.lists(st.integers(0, 40), min_size=1, max_size=40).filter(any)),
        "label_smoothing": 0.0 if plain else draw(share),
        "loss": "nll" if plain else draw(st.sampled_from(tuple(LOSSES))),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "hidden": draw(st.sampled_from([0, 0, 1, 33])),
        "dropout": draw(share),
    }
    dropped = {
        "hidden_dropout": draw(share),
        "attention_dropout": draw(share),
        "clip": draw(st.sampled_from([0.0, 0.1])),
    }
    if settings["loss"] == "focal":
        settings["label_smoothing"] = 0.0  # whole_layer has the paper's
    kind = "classification" if settings["loss"] == "focal" else kind
    states, _, task, block = problem(shape, kind, **settings, **dropped)
    outcome, found = gradients(states, shape, task, block, threads=draw(st.integers(1, 4)))
    loss, expected = autograd(states, shape, task, block)
    assert outcome.train_loss[0] == pytest.approx(loss, rel=1e-5)
    theirs = autograd(states, shape, task, block, torch.float32)[1]
    size = norm_of({name: one.numpy() for name, one in expected.items()})
    off = norm_of({name: found[name] - one.numpy() for name, one in expected.items()})
    assert off < max(3e-6 * size, 4.0 * norm_of({name: (theirs[name] - one).numpy() for name, one in expected.items()}))
