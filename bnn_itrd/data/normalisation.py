"""Functions that normalise images for a network that was trained with another mean and std than the data set's.

They are for a teacher that comes from another data set: it gets its images as in its own training.
"""

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
    """A record of the images on which a network was trained, which `remember_images` attaches to the network.

    classes: their names, or None if they are not known. mean, std: the normalisation, per channel on the 0..1 scale.
    """

    classes: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


def remember_images(
    model: nn.Module, *, mean: Sequence[float], std: Sequence[float], classes: Sequence[str] | None = None
) -> None:
    """Sets ``model.trained_on`` to a record of the images on which the network was trained (see `TrainedOn`).

    Copies of the network keep the attribute, but the state dict does not have it.

    >>> network = nn.Linear(2, 2)
    >>> remember_images(network, mean=[0.5], std=[0.25])
    >>> network.trained_on
    TrainedOn(classes=None, mean=(0.5,), std=(0.25,))
    """
    known = TrainedOn(None if classes is None else tuple(classes), tuple(mean), tuple(std))
    model.trained_on = known  # type: ignore[assignment]


def _known(model: nn.Module, channels: int) -> TrainedOn | None:
    """Returns ``model.trained_on``; None if there is none, or if it is for images with another number of channels."""
    known: Any = getattr(model, "trained_on", None)
    return known if isinstance(known, TrainedOn) and len(known.mean) == channels else None


def shown_as_trained(model: nn.Module, data: ImageData) -> ImageData:
    """Returns the data set normalised as in the network's own training, or unchanged if that is not known.

    >>> from bnn_itrd.data import load_data
    >>> from bnn_itrd.config import DataConfig
    >>> network = nn.Flatten()
    >>> remember_images(network, mean=[0.5], std=[0.25])
    >>> shown_as_trained(network, load_data(DataConfig())).mean
    (0.5,)
    """
    known = _known(model, data.input_shape[0])
    if known is None or (known.mean, known.std) == (data.mean, data.std):
        return data
    return data.normalised_with(known.mean, known.std)


def renormalisation(model: nn.Module, data: ImageData) -> tuple[Tensor, Tensor] | None:
    """Returns (scale, offset), each (c, 1, 1), with which images are normalised anew for a network.

    If x is an image normalised with the data set's mean and std, then ``scale * x + offset`` is the image normalised as
    in the network's own training. Returns None if nothing is known about that training, or if it had the same classes
    and the same normalisation.
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
    """Returns a context manager in which the network normalises its input anew, as in its own training.

    In the ``with`` block the network can be called with batches of `data`, whose normalisation is another (see
    `renormalisation`). The network's state dict does not change, and after the block the network is as before.
    """
    found = None if model is None else renormalisation(model, data)
    if model is None or found is None:
        yield
        return
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    # They are buffers because these follow the network to another device. A submodule would do so too, but in a
    # Sequential it would be called as one more layer.
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
    """Returns a network's arguments with the first one, the images, normalised anew; it is a forward pre-hook."""
    scale, offset = (getattr(model, name) for name in _BUFFERS)
    return given[0] * scale + offset, *given[1:]
