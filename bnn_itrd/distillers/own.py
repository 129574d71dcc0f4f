"""Makes a distiller from a user's own object, class, factory or function, and tries it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from bnn_itrd.distillers.base import Distiller
from bnn_itrd.distillers.calling import OUTPUTS, call_of, is_term, parameters_of, shown
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.trial import try_out
from bnn_itrd.distillers.weighted import Weighted
from bnn_itrd.errors import UserError
from bnn_itrd.models import Outputs

__all__ = ["Own", "make_own"]

_EXPECTED = (
    "expected a Distiller, its class, a factory of (setting, config, weight, options of its own) that returns one, or "
    "a function (student, teacher, labels) -> loss"
)


class Own(Distiller):
    """A user's own term times its weight; a checkpoint has its parameters and buffers below `inner`.

    inner: a module or function, called with (student outputs, teacher outputs, labels), and with the sample indices
    where its signature has a fourth parameter for them. The attributes of a `Distiller` are taken over.
    Raises UserError where it takes other arguments, and where its result is no scalar.
    """

    def __init__(self, name: str, inner: Callable[..., Tensor], *, weight: float) -> None:
        super().__init__()
        self.name, self.inner, self.weight = name, inner, weight
        self.shown = _shown(name, inner)
        if isinstance(inner, Distiller):
            self.preparation_epochs = int(inner.preparation_epochs)
            self.preparation_lr = inner.preparation_lr
            self.prepares_student, self.only_prepares = inner.prepares_student, inner.only_prepares
            self.reads_labels, self.watches = inner.reads_labels, inner.watches
            self.replicated = tuple(f"inner.{buffer}" for buffer in inner.replicated)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        value = self.inner(*(student, teacher, labels, indices)[: self.shown])
        return self.weight * self._scalar(value)

    def prepare(self, student: Outputs | None, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        assert isinstance(self.inner, Distiller)
        return self._scalar(self.inner.prepare(student, teacher, labels, indices))

    def prepared(self) -> None:
        assert isinstance(self.inner, Distiller)
        self.inner.prepared()

    def watch(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return self.inner.watch(student, teacher) if isinstance(self.inner, Distiller) else {}

    def _scalar(self, value: object) -> Tensor:
        if isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point():
            return value
        got = f"a tensor of {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else repr(value)
        raise UserError(f"{self.name} must give a scalar, a floating-point tensor of shape (), got {got}")


def _shown(name: str, inner: Callable[..., Tensor]) -> int:
    """Returns how many of OUTPUTS it is called with. Raises UserError where its signature takes too few or too many."""
    parameters = parameters_of(inner.forward if isinstance(inner, nn.Module) else inner)
    count = shown(parameters)
    try:
        inspect.Signature(list(parameters.values())).bind(*OUTPUTS[:count])
    except TypeError as error:
        raise UserError(
            f"{name} must take (student, teacher, labels), or (student, teacher, labels, indices), and takes "
            f"({', '.join(parameters)}): {error}"
        ) from error
    return count


def make_own(thing: Any, config: Weighted, setting: Setting, options: Mapping[str, Any]) -> Own:
    """Returns the distiller made from a user's object, class, factory or function, after a trial on random outputs.

    config: its name, weight and schedule; options: the keyword arguments that the user gave.

    >>> import torch
    >>> from bnn_itrd.distillers import Sizes, Weighted
    >>> sizes = Sizes(logits=10, representation=64, stages=())
    >>> def mean(student, teacher, labels, *, power):
    ...     return student.logits.pow(power).mean()
    >>> make_own(mean, Weighted(weight=2.0), Setting(sizes, sizes, torch.zeros(0)), {"power": 2}).weight
    2.0

    Raises UserError on any other object, on options that it does not take, and where the trial fails (`try_out`).
    """
    name = config.name
    if isinstance(thing, nn.Module):
        if options:
            raise UserError(
                f"{name} is an object and takes no options, got {', '.join(options)}: give its class instead"
            )
        made = Own(name, thing, weight=config.weight)
    elif isinstance(thing, type) and not issubclass(thing, nn.Module):
        raise UserError(f"{name} is a class, but neither a Distiller nor another torch.nn.Module: {_EXPECTED}")
    elif callable(thing):
        inner, weighs = _called(thing, config, setting, options)
        made = Own(name, inner, weight=1.0 if weighs else config.weight)
    else:
        raise UserError(f"{name} is no distiller: {_EXPECTED}, got {thing!r}")
    try_out(name, made, setting)
    return made


def _called(
    thing: Callable[..., Any], config: Weighted, setting: Setting, options: Mapping[str, Any]
) -> tuple[Callable[..., Tensor], bool]:
    """Returns the term that a class, factory or function gives, and whether it applies its weight itself."""
    name, parameters = config.name, parameters_of(thing)
    if not isinstance(thing, type):
        if is_term(parameters):
            call = call_of(thing, parameters, config, setting, options, skip=shown(parameters))
            return (partial(thing, **call.arguments) if call.arguments else thing), call.weighs
        if {*OUTPUTS} & {*parameters}:
            raise UserError(f"{name} takes ({', '.join(parameters)}): {_EXPECTED}")
    call = call_of(thing, parameters, config, setting, options)
    try:
        made = thing(**call.arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} could not be made: {type(error).__name__}: {error}") from error
    if not callable(made):
        raise UserError(f"{name} returned {made!r}: {_EXPECTED}")
    return made, call.weighs
