"""Makes a distiller from a user's own object, class or function, and calls it once to see that it works."""

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
    "expected a Distiller, a subclass of it, a function (student, teacher, labels) -> loss, or a function of setting, "
    "config, weight and its own options that returns one of these"
)


class Own(Distiller):
    """Wraps a user's own loss as a `Distiller`, and multiplies it by its weight.

    `inner` is the user's module or function. It is called with (student outputs, teacher outputs, labels), and with
    the sample indices if it has a fourth parameter ``indices``. If it is itself a `Distiller`, its attributes, such as
    `preparation_epochs`, are copied. In a checkpoint, its parameters and buffers stand under the prefix ``inner.``.
    Raises UserError if `inner` takes other arguments, or if a call returns anything but a scalar tensor.
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
        raise UserError(f"{self.name} must return a scalar, a floating-point tensor of shape (), got {got}")


def _shown(name: str, inner: Callable[..., Tensor]) -> int:
    """Returns with how many positional arguments a user's loss is called: 3, or 4 with the sample indices.

    Raises UserError if it cannot be called with that many.
    """
    parameters = parameters_of(inner.forward if isinstance(inner, nn.Module) else inner)
    count = shown(parameters)
    try:
        inspect.Signature(list(parameters.values())).bind(*OUTPUTS[:count])
    except TypeError as error:
        raise UserError(
            f"{name} takes ({', '.join(parameters)}), but it is called with (student, teacher, labels) or (student, "
            f"teacher, labels, indices): {error}"
        ) from error
    return count


def make_own(thing: Any, config: Weighted, setting: Setting, options: Mapping[str, Any]) -> Own:
    """Returns the distiller made from a user's own loss, after one call of it on random outputs.

    `thing` is a module, a subclass of `Distiller` or another module, a loss function, or a function that returns a
    loss. `config` has its name, weight and schedule, `options` the keyword arguments that the user gave for it.

    >>> import torch
    >>> from bnn_itrd.distillers import Sizes, Weighted
    >>> sizes = Sizes(logits=10, representation=64, stages=())
    >>> def mean(student, teacher, labels, *, power):
    ...     return student.logits.pow(power).mean()
    >>> make_own(mean, Weighted(weight=2.0), Setting(sizes, sizes, torch.zeros(0)), {"power": 2}).weight
    2.0

    Raises UserError if `thing` is none of these, if it does not take an option, or if the call fails (`try_out`).
    """
    name = config.name
    if isinstance(thing, nn.Module):
        if options:
            raise UserError(
                f"{name} is a module that is already made, so it takes no options (got {', '.join(options)}): give its "
                "class instead"
            )
        made = Own(name, thing, weight=config.weight)
    elif isinstance(thing, type) and not issubclass(thing, nn.Module):
        raise UserError(f"{name} is a class, but not a subclass of Distiller or torch.nn.Module: {_EXPECTED}")
    elif callable(thing):
        inner, weighs = _called(thing, config, setting, options)
        made = Own(name, inner, weight=1.0 if weighs else config.weight)
    else:
        raise UserError(f"{name} is {thing!r}, which is not a distiller: {_EXPECTED}")
    try_out(name, made, setting)
    return made


def _called(
    thing: Callable[..., Any], config: Weighted, setting: Setting, options: Mapping[str, Any]
) -> tuple[Callable[..., Tensor], bool]:
    """Returns the loss of a user's distiller, and whether the loss applies its weight itself.

    thing: a function (student, teacher, labels), which is the loss, or a class or another function, which makes it.
    """
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
        raise UserError(f"the call that makes {name} failed with {type(error).__name__}: {error}") from error
    if not callable(made):
        raise UserError(f"{name} returned {made!r}, which is not a loss: {_EXPECTED}")
    return made, call.weighs
