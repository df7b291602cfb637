"""What a kind of index says of itself, for the plan, the help, the docs and the tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple


class Cost(NamedTuple):
    """What an index of so many rows takes.

    Attributes:
        parameters: of the kind, such as lists, code_bits (per row), links, rerank ("memory" or "stored").
        work: floating-point operations of building it, without measuring it.
        bytes: of memory.
    """

    parameters: dict[str, Any]
    work: float
    bytes: int


@dataclass(frozen=True)
class IndexPlan:
    """What will be built.

    Attributes:
        parameters: lists, code_bits (per row), links, rerank ("memory" or "stored") ... of the kind.
        seconds: predicted, of building and measuring.
        bytes: predicted, of memory that the index takes.
        why: in a few words.
    """

    kind: str
    rows: int
    dim: int
    parameters: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    bytes: int = 0
    why: str = ""


class IndexKind(ABC):
    """One kind of index.

    Attributes:
        kind: its name.
        what: what it is, and ``when``: when ``auto`` takes it, for the table in the docs.
        auto_on: devices ("cpu", "cuda") on which ``auto`` takes it first where exact search is too slow.
    """

    kind: ClassVar[str] = ""
    what: ClassVar[str] = ""
    when: ClassVar[str] = ""
    auto_on: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def cost(cls, rows: int, dim: int) -> Cost:
        """What an index of N rows of D numbers takes."""

    @classmethod
    def cost_without_copies(cls, rows: int, dim: int) -> Cost | None:
        """The same where the memory has no room for copies of the vectors; None: it needs them."""
        return None


def copies(rows: int, dim: int) -> int:
    """Bytes of the vectors in float16."""
    return 2 * rows * dim
