"""The base class of CRD and WCoRD, with the options of their memory bank of all training samples."""

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
    """Contrasts each sample's representations with those of other samples in a memory bank.

    Several processes: each scores the global batch, against negatives of its own, and writes all its rows: so the banks
    stay the same everywhere. ln Z, from the first batch's negatives, becomes the first process's.
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
        """Returns the options of the bank by the losses' argument names."""
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
