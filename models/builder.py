"""Checks the arguments that all network builders share, and notes in each network how it was built."""

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
# Arguments whose values the data set determines.
_OF_DATA = ("num_classes", "in_channels", "input_shape")


class Definition(NamedTuple):
    """How a network was built: its builder, and the arguments given, without those that the data set determines."""

    builder: Any
    options: dict[str, Any]


def remembered(make: Callable[P, N]) -> Callable[P, N]:
    """Decorates a builder (a function or `__call__`) so that its networks have a `Definition` in ``.definition``."""
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
    """Returns a network's input shape (c, h, w), by default (in_channels, 32, 32), and its `Style`, after checks.

    binary: the scheme, or None for full precision; usual_shortcut: the shortcut where `shortcut` is None. `Style`
    describes the others. Each builder calls it first. Raises ValueError on arguments that do not fit together.

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
