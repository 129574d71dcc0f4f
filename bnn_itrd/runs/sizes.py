"""Functions that find the sizes of a network's logits, representation and maps before it is trained."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from bnn_itrd.config.addresses import LIBRARIES, named_addresses
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.trees import to_dict
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers.base import measure
from bnn_itrd.distillers.setting import Sizes
from bnn_itrd.errors import UserError
from bnn_itrd.models import Summary, summary
from bnn_itrd.runs.given.first_weights import check_first_weights
from bnn_itrd.runs.networks import build, remarks

__all__ = ["first_look", "output_sizes", "sizes_of_definition"]


Found = TypeVar("Found")


def first_look(
    network: NetworkConfig, scheme: SchemeConfig | None, data: ImageData
) -> tuple[Summary | None, list[str]]:
    """Builds a network on the meta device; returns (its parameters and MACs, what `binarize` reported on it).

    A run prints both before the training. The first is None if they cannot be counted; the second is an empty list
    unless `binarize` made the network binary.
    """
    model: list[nn.Module] = []

    def count(made: nn.Module) -> Summary:
        """Counts a network's parameters and MACs, and keeps the network for `remarks`."""
        model.append(made)
        return summary(made, data.input_shape)

    cost = None
    with contextlib.suppress(Exception):
        cost = _found_of_definition(count, network, scheme, data)
    return cost, remarks(model[-1]) if model else []


def sizes_of_definition(network: NetworkConfig, scheme: SchemeConfig | None, data: ImageData) -> Sizes:
    """Returns the sizes of logits, representation and maps of a network that a configuration describes.

    The images have the data's shape. scheme: None for a full-precision network. Raises UserError as `build` and
    `output_sizes` do, and if the file in ``network.weights`` is missing or does not fit the network.
    """

    def sizes(model: nn.Module) -> Sizes:
        check_first_weights(model, network)
        return output_sizes(model, data)

    return _found_of_definition(sizes, network, scheme, data)


def _found_of_definition(
    find: Callable[[nn.Module], Found], network: NetworkConfig, scheme: SchemeConfig | None, data: ImageData
) -> Found:
    """Builds a network on the meta device, where tensors have no memory, and returns `find` of it.

    The code of a user or of another library may fail on that device, because it computes with tensors' values; such a
    network is built in memory instead.
    """
    make = functools.partial(build, network, scheme, num_classes=len(data.classes), input_shape=data.input_shape)
    theirs = network.name.partition(":")[0] in LIBRARIES or named_addresses(
        {"network": to_dict(network), "scheme": to_dict(scheme) if scheme else {}}
    )
    if theirs:
        with contextlib.suppress(Exception), torch.device("meta"):
            return find(make())
        return find(make())
    with torch.device("meta"):
        return find(make())


def output_sizes(model: nn.Module, data: ImageData) -> Sizes:
    """Returns the sizes of a network's logits, representation and maps for images of the data's shape.

    Raises UserError if the network cannot take such images.
    """
    try:
        return measure(model, data.input_shape)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        shape = "x".join(map(str, data.input_shape))
        raise UserError(
            f"the network cannot be used on images of {shape}: {first}; if their size is the cause, set data.image_size"
        ) from error
