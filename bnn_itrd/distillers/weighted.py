"""`Weighted`, the options that every distillation loss has: its weight and the weight's schedule; loads no torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, get_args, get_type_hints

from bnn_itrd.errors import require

__all__ = ["Weighted"]


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """The weight of one term of the loss, and how it changes during the training.

    A subclass adds options, which are checked when it is made: a number must be finite and at least 0, or above 0 if
    its name is in `positive`; an option with a `Literal` type must be one of its values. Options in `signed` are not
    checked. Raises UserError on another value.

    Args:
        weight: weight of the term
        warmup_epochs: epochs in which the weight rises linearly from 0
        final: factor on the weight at the end; after the warm-up the factor changes linearly from 1 to this

    >>> Weighted(weight=2.0, warmup_epochs=4).factor(1.0, epochs=10)
    0.25
    """

    positive: ClassVar[tuple[str, ...]] = ()
    signed: ClassVar[tuple[str, ...]] = ()

    weight: float = 1.0
    warmup_epochs: float = 0.0
    final: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name in self.signed:
                continue
            value, above = getattr(self, field.name), field.name in self.positive
            kind = str(field.type)
            if kind.startswith("Literal"):
                values = get_args(get_type_hints(type(self))[field.name])
                self._require(value in values, field.name, f"one of {', '.join(values)}")
            elif kind == "int":
                self._require(isinstance(value, int) and value >= above, field.name, f"an integer >= {int(above)}")
            elif kind == "float":
                self._require(math.isfinite(value), field.name, "finite")
                self._require(value > 0 if above else value >= 0, field.name, "> 0" if above else ">= 0")

    @property
    def name(self) -> str:
        """The method's name in recipes, messages and metrics.csv: the class's without Config, in lower case."""
        return type(self).__name__.removesuffix("Config").lower()

    def _require(self, condition: bool, name: str, rule: str) -> None:
        require(condition, f"{self.name}.{name}", rule, getattr(self, name))

    def factor(self, epoch: float, epochs: int) -> float:
        """Returns the factor on the weight at an epoch in [0, epochs), which may be a fraction within an epoch."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        left = epochs - self.warmup_epochs
        return 1.0 + (self.final - 1.0) * ((epoch - self.warmup_epochs) / left if left > 0 else 1.0)

    @property
    def scheduled(self) -> bool:
        """Whether the weight changes during the training; it does if there is a warm-up or a final factor."""
        return self.warmup_epochs > 0 or self.final != 1.0

    @property
    def only_prepares(self) -> bool:
        """Whether the term is used only in the preparation, the epochs before the training, and not afterwards."""
        return False
