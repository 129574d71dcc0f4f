"""The base class of methods: options, loss, the loss's inputs, and facts for the docs. Loads without torch."""

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
    """Facts about a method, from which the tables of docs/reference/distillers.md are made.

    matches: the outputs that it compares; owns: the layers trained with the student and dropped afterwards; reduction:
    the reduction that the default weight belongs to; source: authors and year; global_batch, own_part: options with
    which, in several processes, its statistics are over the global batch or over each process's part of it (over single
    samples where both are empty), with ``{name}`` for the method's name; found: option -> the paper's result, and
    where.
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
    """A distillation method, defined completely by its subclass.

    The fields are the options, with their defaults and rules. `loss` makes the loss, `term` calls it with the outputs
    of the two networks, `check` refuses networks that do not fit, and `prepare` and `prepared` are the preparation
    before the training. `Term` is the distiller that runs a method. Torch is imported inside the functions only, so
    that the options load without it.
    """

    facts: ClassVar[Facts]
    # Whether it needs the label of every image.
    reads_labels: ClassVar[bool] = False
    # Whether the teacher must have the student's classes.
    compares_logits: ClassVar[bool] = False
    # Whether the student is trained in the preparation.
    prepares_student: ClassVar[bool] = False
    # Names of buffers that every process computes from the global batch, so that they need no synchronisation.
    replicated: ClassVar[tuple[str, ...]] = ()
    # Argument of the loss -> option, where their names differ.
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @property
    def kept_as(self) -> tuple[str, ...]:
        """The names of the loss in a checkpoint."""
        return ("loss",)

    @property
    def gathers(self) -> bool:
        """Whether the loss gets the representations and sample indices of all processes, not each process's own."""
        return False

    def check(self, setting: Setting) -> None:
        """Raises UserError where the two networks do not fit, before the loss is made."""

    def loss(self, setting: Setting) -> Any:
        """Returns the loss: a module with its parameters, or a function."""
        raise NotImplementedError

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        """Returns the loss of a batch without its weight, (); or one loss per stage, which are added."""
        raise NotImplementedError

    def prepare(self, loss: Any, student: Outputs | None, teacher: Outputs) -> Tensor:
        """Returns the loss, (), of a batch of the preparation, which are epochs before the training."""
        raise NotImplementedError

    def prepared(self, loss: Any) -> None:
        """Freezes parameters that are not trained after the preparation."""

    @property
    def watches(self) -> bool:
        """Whether `watch` returns any columns."""
        return False

    def watch(self, loss: Any, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Returns columns of metrics.csv for a batch at the end of an epoch, name -> (); it changes nothing."""
        return {}

    def _require_preparation_lr(self, lr: float | None) -> None:
        """Raises UserError unless the learning rate of the preparation is None or > 0 and finite."""
        self._require(lr is None or (math.isfinite(lr) and lr > 0), "preparation_lr", "> 0 and finite")

    def _require_no_schedule(self) -> None:
        """Raises UserError on a schedule of the weight, for a term that is used only in the preparation."""
        for name, value in (("warmup_epochs", 0.0), ("final", 1.0)):
            self._require(getattr(self, name) == value, name, f"{value}: the term ends before the training begins")
