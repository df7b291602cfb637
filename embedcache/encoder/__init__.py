"""A frozen pretrained encoder: texts to tokens to vectors. Importing this costs neither torch nor transformers.

Files, in the order in which to read them:

    encoder                  The encoder itself: tokenize, encode
    folder                   Where an encoder's files are, whether they are complete, and what they are
    file_hashes              Digests of large files, each made once while the file stays as it is
    hardware                 The device that a name stands for, and what this processor can do
    hub                      Models by their Hugging Face name: which files are downloaded
    families                 The encoder families whose every part is known: one record each
    kinds                    What sort of model a config.json describes: an encoder, causal, an encoder-decoder
    blueprint                A post-LayerNorm encoder as the runners compute it, the same for every family
    disentangled             What DeBERTa's scores have besides: the products with distances
    read_model               The blueprint of a model that transformers has loaded
    rotary_families          Families with rotary positions and a gated feed-forward part: one record each
    rotary_blueprint         Such an encoder as its runner computes it, the same for every family
    read_rotary              The rotary blueprint of a model that transformers has loaded
    load_again               Load the encoder of a cache, a run or an index again
    poolings                 How a text's tokens become its vector: one record each
    prescription             The vector that a model's authors prescribe, read from a sentence-transformers folder
    after_pooling            The steps after pooling in that vector: Dense, LayerNorm, unit length, a cut
    token_vectors            The vectors of all tokens, as the last layers read them, handed out batch by batch
    token_rows               Rows of token ids, one after another in one array
    tokenizer                Texts to token ids, truncated to max_length as the model's own tokenizer does it
    tokenizer_native         The same in csrc/tokenizer, and which tokenizers it understands
    tokenizer_file           Read tokenizer.json directly, where transformers would make the same tokenizer
    tokenizer_python         Tokenizers that transformers has in Python only
    chunking                 Split texts of more tokens than a row may have into chunks
    load_without_torch       An encoder read straight from its files, without torch and transformers
    load_with_transformers   An encoder as transformers loads it: model and tokenizer
    model_parts              Which part of what transformers loads is the encoder
    adapter_files            The files of PEFT adapters, and the adapters that a model has for tasks
    adapter                  A PEFT adapter, merged into its base's weights
    tuned                    What finetune trained of an encoder, laid over its base: one file of a run
    bottleneck               Bottleneck adapters, as modules
    apply_tuned              Tuned tensors, laid over a transformers model
    after_pooling_torch      The steps after the pooling as torch modules, which gradients pass
    row_check                Test whether a row's vectors depend on the other rows of its batch
    static                   Static models: a table of token vectors; a text's vector is their mean
    batching                 Token-budget batches: texts of similar length together
    at_once                  Several batches at once: each on a core of its own
    forward                  One forward pass for rows of any kind: the runner's, or a way of their own
    runner                   Which code computes an encoder's forward pass: "native", "packed" or "plain"
    runner_native            The native encoder: ctypes binding of csrc/encoder/encoder.h
    runner_rotary            The same for rotary families: csrc/encoder/rotary.h
    int8                     Which products of an int8 encoder stay in bfloat16, by measuring its vectors
    runner_packed            The forward pass without any padding, in torch
    gpu_parts                The faster operations that it uses on a GPU, each tested before use
    fused_triton             Two of these as Triton kernels: residual with LayerNorm, bias with activation
    gpu_lane                 A stream and pinned memory for each batch that is computed at the same time
    last_layer               The last layer's attention for the first token alone, exact
    runner_plain             The forward pass as transformers does it, padded: for every architecture
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedcache.encoder.encoder import Encoder, Tokens
    from embedcache.encoder.folder import identify

__all__ = ["Encoder", "Tokens", "identify"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'embedcache.encoder' has no attribute {name!r}")
    from embedcache.encoder import encoder, folder

    return getattr(folder if name == "identify" else encoder, name)
