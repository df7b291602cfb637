"""The ways to label by what labels are called: a class each, and one line here.

Files, in the order in which to read them:

    similarity  The nearest description, by vectors
    masked      The word that a masked language model puts into a template
    entailment  The hypothesis that the text entails, by a model of natural language inference
    causal      The label that a causal language model finds likeliest
"""

from __future__ import annotations

from embedcache.encoder.folder import find_root
from embedcache.prompting.method import Method
from embedcache.prompting.methods.causal import Causal
from embedcache.prompting.methods.entailment import Entailment
from embedcache.prompting.methods.masked import Masked
from embedcache.prompting.methods.similarity import Similarity

AUTO = "auto"
METHODS: dict[str, type[Method]] = {one.name: one for one in (Similarity, Masked, Entailment, Causal)}


def automatic(model: str, trust_remote_code: bool = False) -> type[Method]:
    """The method that a model is made for, by its files; similarity where they name none.

    Raises:
        EmbedcacheError: The model is not found.
    """
    root = find_root(model, trust_remote_code)[0]
    return next((one for one in METHODS.values() if one.suits(root)), Similarity)
