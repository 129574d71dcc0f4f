"""What a method is: options, a loss, what that loss is shown, and what the documentation says. Loads without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from bnn_itrd.distillers.weighted import Weighted

if TYPE_CHECKING:
    from torch import Tensor

    from bnn_itrd.distillers.setting import Setting
    from bnn_itrd.models import Outputs

__all__ = ["Facts", "Method"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What docs/reference/distillers.md says of a method; the tables there are made of it.

    matches: what of the two networks it compares; owns: what is trained with the student and dropped afterwards;
    reduction: the reduction that the default weight belongs to; source: authors and year. With several processes its
    statistics are over the global batch, over each process's `own_part` of it, or over single samples, where nothing
    is said; `global_batch` and `own_part` say for which of its options, and ``{name}`` stands for its name.
    found: option -> what its paper found of it, and where.
    """

    matches: str
    reduction: str
    source: str
    owns: str = ""
    global_batch: str = ""
    own_part: str = ""
    found: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method(Weighted):
    """A way to learn from a teacher. A subclass is one method, all of it:

    its fields are the options, with their defaults and rules; `loss` makes the loss, `term` shows it the two networks'
    outputs, `check` refuses networks that do not fit, `prepare` and `prepared` are its phase before the training.
    A `Term` is the distiller of it. What needs torch is imported in these functions: the options load without it.
    """

    facts: ClassVar[Facts]
    # It cannot be used where some images have no label.
    reads_labels: ClassVar[bool] = False
    # The teacher must know the student's classes.
    compares_logits: ClassVar[bool] = False
    # The student takes part in the phase before the training.
    prepares_student: ClassVar[bool] = False
    # Buffers that every process computes from the global batch, so that they are not sent around at every step.
    replicated: ClassVar[tuple[str, ...]] = ()
    # Argument of the loss -> option, where their names differ.
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @property
    def kept_as(self) -> tuple[str, ...]:
        """The names of the loss in a checkpoint."""
        return ("loss",)

    @property
    def gathers(self) -> bool:
        """Whether the representations and sample indices of all processes are shown, not each process's own."""
        return False

    def check(self, setting: Setting) -> None:
        """Raises UserError where the two networks do not fit, before the loss is made."""

    def loss(self, setting: Setting) -> Any:
        """Returns the loss: a module with what it owns, or a function."""
        raise NotImplementedError

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        """Returns the loss of a batch without its weight, (); or those of the stages, which are added."""
        raise NotImplementedError

    def prepare(self, loss: Any, student: Outputs | None, teacher: Outputs) -> Tensor:
        """Returns what is minimised in the phase before the training, ()."""
        raise NotImplementedError

    def prepared(self, loss: Any) -> None:
        """Freezes what is not trained any more after the phase."""

    @property
    def watches(self) -> bool:
        """Whether `watch` tells anything."""
        return False

    def watch(self, loss: Any, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Returns what metrics.csv tells of a batch at the end of an epoch, name -> (); it changes nothing."""
        return {}

    def _require_preparation_lr(self, lr: float | None) -> None:
        """Refuses a learning rate of the preparation that is none."""
        self._require(lr is None or (math.isfinite(lr) and lr > 0), "preparation_lr", "> 0 and finite")

    def _require_no_schedule(self) -> None:
        """Refuses a schedule of a term that takes part in its preparation alone."""
        for name, value in (("warmup_epochs", 0.0), ("final", 1.0)):
            self._require(getattr(self, name) == value, name, f"{value}: the term ends before the training begins")
