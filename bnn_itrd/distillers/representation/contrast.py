"""The base class of the methods CRD and WCoRD, which share a memory bank with features of every training sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from bnn_itrd.distillers.views import OfRepresentations

if TYPE_CHECKING:
    from torch import Tensor

    from bnn_itrd.models import Outputs

__all__ = ["Contrast"]


@dataclass(frozen=True, kw_only=True)
class Contrast(OfRepresentations):
    """Base class of a method that contrasts a sample's features with those of other samples in a memory bank.

    The bank has one row of features for each training sample. In a training with several processes, each process
    computes the loss of the global batch, with negatives that it draws itself, and writes all rows of the batch, so
    the banks stay equal. All use the first process's normalising constant, which it estimates from its first batch.
    """

    reads_labels = True
    replicated = ("loss.memory.bank_s", "loss.memory.bank_t", "loss.memory.labels", "loss.memory.order")
    renamed = MappingProxyType({"num_negatives": "negatives"})
    positive: ClassVar[tuple[str, ...]] = ("embed_dim", "negatives", "temperature")

    if TYPE_CHECKING:  # fields of the subclasses, which declare them in different orders
        embed_dim: int
        negatives: int
        temperature: float
        momentum: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.momentum < 1, "momentum", "in [0, 1)")

    @property
    def gathers(self) -> bool:
        return True

    def bank(self) -> dict[str, Any]:
        """Returns the options of the memory bank as keyword arguments of the loss."""
        return {
            "embed_dim": self.embed_dim,
            "num_negatives": self.negatives,
            "temperature": self.temperature,
            "momentum": self.momentum,
        }

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        result: Tensor = loss(student.representation, teacher.representation, indices)
        return result
