"""Cached token states, or texts, in; a run whose head comes with tuned layers of the encoder out.

Files, in the order in which to read them:

    job          The door: finetune, the same arguments as its command
    config       What may be trained and how: the ways of --train, one configuration of a sweep
    compute      In what the layers' products are computed
    prepare      From what was asked to what is trained
    start        The head from which a configuration starts: the best one on the cached vectors
    bench        What all configurations share, and a fresh trainee for each
    inputs       What a step reads: padded batches of cached states, or of token ids
    lift         States of a lower layer, taken up to the one that is needed
    top          The top layers of a transformers model, fed with stored states
    first_row    The last layer for the first token's row alone, trained
    beside       LoRA and bottleneck adapters
    trainee      Layers, pooling and head as one torch module
    loop         The training of one configuration
    checkpoint   Its state on the disk
    head         A head together with the layers below it
    blocks       The last layers with a head, as the native engine trains them: shape, tensors, settings, outcome
    layer_tensors  A transformers layer as those tensors, and back
    engine_native  Banks of last layers in C++, on a CPU
    native_layers  What that engine can train of a run, and some trainings at a time
    trainer      The training of a run: every configuration on every side
    outcome      What becomes of it: scores, report, folder
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedcache.common.callable_module import make_callable

if TYPE_CHECKING:
    from embedcache.finetune.outcome import TuneReport

__all__ = ["TuneReport"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'embedcache.finetune' has no attribute {name!r}")
    from embedcache.finetune import outcome

    return getattr(outcome, name)


make_callable(__name__, "embedcache.finetune.job", "finetune")
