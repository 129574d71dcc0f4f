"""`Method`, the base class of the distillation methods: a method's options, and how its loss is made and called.

The module loads without torch, so that a command can list the options quickly.
"""

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
    """Facts about a distillation method, from which the tables of docs/reference/distillers.md are written.

    Args:
        matches: what the method compares
        reduction: how the loss sums and averages, on which the right size of the default weight depends
        source: authors and year of the paper
        owns: layers that are trained with the student and dropped after the training
        global_batch: text for the table of several processes: with which options statistics are over the global batch
        own_part: the same, for statistics over each process's part of the batch; if both are empty, the loss is a mean
            over samples and needs no statistics; ``{name}`` stands for the method's name
        found: option -> what the paper found about it, and where
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
    """Base class of the distillation methods: a subclass, such as `KDConfig`, is one, and its fields are its options.

    A subclass defines some of these functions. `check` raises an error if it cannot compare the two networks. `loss`
    makes the loss, a module or a function, and `term` calls that with the networks' outputs. Some methods have a
    preparation: epochs before the training, in which helper layers or the student's stages are trained. For these
    epochs `prepare` returns the loss, and after them `prepared` freezes what is not trained further.

    `Term` turns a method into a `Distiller`, which the training calls. Torch is imported inside the functions, so that
    a command can list the options quickly.
    """

    facts: ClassVar[Facts]
    # Whether the loss needs the label of every image.
    reads_labels: ClassVar[bool] = False
    # Whether the teacher must have the student's classes.
    compares_logits: ClassVar[bool] = False
    # Whether the preparation trains the student.
    prepares_student: ClassVar[bool] = False
    # Names of buffers that are equal in all processes, because each process computes them from the global batch.
    replicated: ClassVar[tuple[str, ...]] = ()
    # The option's name for an argument of the loss, where the two names differ.
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @property
    def kept_as(self) -> tuple[str, ...]:
        """The attributes of `Term` that hold the loss, and so the prefixes of its parameters in a checkpoint."""
        return ("loss",)

    @property
    def gathers(self) -> bool:
        """Whether the loss gets the representations and sample indices of all processes, joined by `gather`."""
        return False

    def check(self, setting: Setting) -> None:
        """Raises UserError if the method cannot compare these two networks; it is called before the loss is made."""

    def loss(self, setting: Setting) -> Any:
        """Returns the method's loss for networks of these sizes: a module, or a function if it has no parameters."""
        raise NotImplementedError

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        """Returns the unweighted loss of a batch, (), or several losses to be added, such as one for each stage.

        loss: the result of `loss`; labels, indices: (n,), the images' labels and their places in the data set.
        """
        raise NotImplementedError

    def prepare(self, loss: Any, student: Outputs | None, teacher: Outputs) -> Tensor:
        """Returns the loss of a batch, (), in the preparation, the epochs before the training."""
        raise NotImplementedError

    def prepared(self, loss: Any) -> None:
        """Called once between the preparation (see `prepare`) and the training; by default it does nothing.

        A subclass freezes here the parameters that only the preparation trains.
        """

    @property
    def watches(self) -> bool:
        """Whether `watch` returns any columns."""
        return False

    def watch(self, loss: Any, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Returns statistics of a batch for metrics.csv, column name -> scalar; called at the end of each epoch."""
        return {}

    def _require_preparation_lr(self, lr: float | None) -> None:
        """Raises UserError unless the option `preparation_lr` is None, or finite and above 0."""
        self._require(lr is None or (math.isfinite(lr) and lr > 0), "preparation_lr", "> 0 and finite")

    def _require_no_schedule(self) -> None:
        """Raises UserError if the weight has a schedule, which a loss used only before the training cannot follow."""
        for name, value in (("warmup_epochs", 0.0), ("final", 1.0)):
            self._require(getattr(self, name) == value, name, f"{value}: the term ends before the training begins")
