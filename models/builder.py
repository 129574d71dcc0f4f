"""The first steps of every network builder: it checks the arguments and makes the style of teacher or student."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

from torch import nn

from bnn_itrd.models.blocks import Style
from bnn_itrd.quant.scheme import AnyScheme, as_scheme

__all__ = ["Definition", "prelude", "remembered", "scaled"]

P = ParamSpec("P")
N = TypeVar("N", bound=nn.Module)
# Arguments that follow from the data set.
_OF_DATA = ("num_classes", "in_channels", "input_shape")


class Definition(NamedTuple):
    """The builder that made a network, and its arguments, without those that follow from the data set."""

    builder: Any
    options: dict[str, Any]


def remembered(make: Callable[P, N]) -> Callable[P, N]:
    """Wraps a builder (a function or `__call__`) so that each network has its `Definition`, ``network.definition``."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def build(*args: P.args, **kwargs: P.kwargs) -> N:
        network = make(*args, **kwargs)
        given = dict(signature.bind(*args, **kwargs).arguments)
        builder = given.pop("self", build)
        options = {name: value for name, value in given.items() if name not in _OF_DATA}
        network.definition = Definition(builder, options)  # type: ignore[assignment]
        return network

    return cast("Callable[P, N]", build)


def prelude(
    num_classes: int,
    *,
    binary: AnyScheme | None,
    in_channels: int,
    input_shape: Sequence[int] | None,
    width: float = 1.0,
    shortcut: str | None = None,
    usual_shortcut: str = "pad",
    per_conv: bool = False,
    float_downsample: bool = False,
    padding_value: int = 0,
    residual_bits: int | None = None,
    first_last_bits: int | None = None,
) -> tuple[tuple[int, int, int], Style]:
    """Returns the full input shape (c, h, w), by default (in_channels, 32, 32), and the style of a network.

    binary: None for the teacher; usual_shortcut: the shortcut where `shortcut` is None; see the builders and `Style`
    for the other arguments. Raises ValueError on arguments that do not fit together.

    >>> prelude(10, binary=None, in_channels=1, input_shape=None)[0]
    (1, 32, 32)
    """
    if not width > 0:
        raise ValueError(f"width must be > 0, got {width}")
    if shortcut is not None and float_downsample:
        raise ValueError(f"shortcut={shortcut!r} and float_downsample=True exclude each other: leave one of them out")
    style = Style(
        scheme=None if binary is None else as_scheme(binary),
        shortcut=shortcut or usual_shortcut,
        per_conv=per_conv,
        float_downsample=float_downsample,
        padding_value=padding_value,
        residual_bits=residual_bits,
        first_last_bits=first_last_bits,
    )
    return _full_shape(in_channels, input_shape, num_classes), style


def _full_shape(in_channels: int, input_shape: Sequence[int] | None, num_classes: int) -> tuple[int, int, int]:
    if num_classes < 1:
        raise ValueError(f"num_classes must be >= 1, got {num_classes}")
    shape = (in_channels, 32, 32) if input_shape is None else tuple(input_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"input_shape must be (channels, height, width), got {shape}")
    if shape[0] != in_channels:
        raise ValueError(f"input_shape {shape} has {shape[0]} channels but in_channels is {in_channels}")
    return shape[0], shape[1], shape[2]


def scaled(channels: int, width: float) -> int:
    """Returns the number of channels times a factor, rounded, at least 1.

    >>> scaled(64, 0.25), scaled(2, 0.1)
    (16, 1)
    """
    return max(1, round(channels * width))
