"""Normalisation of images for a network that was trained with another mean and standard deviation than the data's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bnn_itrd.data.splits import ImageData

__all__ = ["TrainedOn", "remember_images", "renormalisation", "seen_as_trained", "shown_as_trained"]


@dataclass(frozen=True)
class TrainedOn:
    """The classes, and the mean and std (per channel, on the 0..1 scale), of the images a network was trained on.

    classes is None if they are not known.
    """

    classes: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


def remember_images(
    model: nn.Module, *, mean: Sequence[float], std: Sequence[float], classes: Sequence[str] | None = None
) -> None:
    """Records in ``model.trained_on`` which images a network was trained on.

    Copies of the network keep the attribute; it is not part of the state dict.

    >>> network = nn.Linear(2, 2)
    >>> remember_images(network, mean=[0.5], std=[0.25])
    >>> network.trained_on
    TrainedOn(classes=None, mean=(0.5,), std=(0.25,))
    """
    known = TrainedOn(None if classes is None else tuple(classes), tuple(mean), tuple(std))
    model.trained_on = known  # type: ignore[assignment]


def _known(model: nn.Module, channels: int) -> TrainedOn | None:
    """Returns what ``model.trained_on`` records; None if nothing, or if the images had another number of channels."""
    known: Any = getattr(model, "trained_on", None)
    return known if isinstance(known, TrainedOn) and len(known.mean) == channels else None


def shown_as_trained(model: nn.Module, data: ImageData) -> ImageData:
    """Returns the data normalised as in the network's own training, or unchanged if that is not known."""
    known = _known(model, data.input_shape[0])
    if known is None or (known.mean, known.std) == (data.mean, data.std):
        return data
    return data.normalised_with(known.mean, known.std)


def renormalisation(model: nn.Module, data: ImageData) -> tuple[Tensor, Tensor] | None:
    """Returns scale and offset, each (c, 1, 1), that renormalise the data's images x for a network.

    ``scale * x + offset`` is normalised as in the network's own training. None if that had the same classes and
    normalisation, or nothing is known of it.
    """
    known = _known(model, data.input_shape[0])
    if known is None or known == TrainedOn(known.classes and data.classes, data.mean, data.std):
        return None
    have_mean, have_std, want_mean, want_std = (
        torch.tensor(v, dtype=torch.float32).reshape(-1, 1, 1) for v in (data.mean, data.std, known.mean, known.std)
    )
    return have_std / want_std, (have_mean - want_mean) / want_std


@contextlib.contextmanager
def seen_as_trained(model: nn.Module | None, data: ImageData) -> Iterator[None]:
    """Lets a network get batches of the data normalised as in its own training, inside a ``with`` block.

    See `renormalisation`. The network's state dict does not change, and after the block the network is as before.
    """
    found = None if model is None else renormalisation(model, data)
    if model is None or found is None:
        yield
        return
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    # Buffers follow the network to another device; a submodule would become a layer of a Sequential.
    for name, value in zip(_BUFFERS, found, strict=True):
        model.register_buffer(name, value.to(device), persistent=False)
    handle = model.register_forward_pre_hook(_renormalise)
    try:
        yield
    finally:
        handle.remove()
        for name in _BUFFERS:
            delattr(model, name)


_BUFFERS = ("_renormalise_scale", "_renormalise_offset")


def _renormalise(model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    scale, offset = (getattr(model, name) for name in _BUFFERS)
    return given[0] * scale + offset, *given[1:]
