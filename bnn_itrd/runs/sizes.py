"""The sizes of what a network answers with, found before anything is trained."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from bnn_itrd.config.addresses import named_addresses
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.trees import to_dict
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers.base import measure
from bnn_itrd.distillers.setting import Sizes
from bnn_itrd.errors import UserError
from bnn_itrd.models import Summary, summary
from bnn_itrd.runs.networks import build

__all__ = ["cost_of_definition", "output_sizes", "sizes_of_definition"]


def cost_of_definition(network: NetworkConfig, scheme: SchemeConfig | None, data: ImageData) -> Summary | None:
    """Returns what the network that will be trained does for one image of the data, None where it cannot be counted
    without memory: code of a user's own need not know the meta device."""
    with contextlib.suppress(Exception), torch.device("meta"):
        model = build(network, scheme, num_classes=len(data.classes), input_shape=data.input_shape)
        return summary(model, data.input_shape)
    return None


def sizes_of_definition(network: NetworkConfig, scheme: SchemeConfig | None, data: ImageData) -> Sizes:
    """Returns the sizes of the outputs of the network that will be trained on the data.

    The network is built on the meta device, without memory or arithmetic. One with code of the user's own, which need
    not know that device, is built with memory where that fails.
    Raises UserError as `build` and `output_sizes` do.
    """
    shape, classes = data.input_shape, len(data.classes)
    if named_addresses({"network": to_dict(network), "scheme": to_dict(scheme) if scheme else {}}):
        with contextlib.suppress(Exception), torch.device("meta"):
            return measure(build(network, scheme, num_classes=classes, input_shape=shape), shape)
        return output_sizes(build(network, scheme, num_classes=classes, input_shape=shape), data)
    with torch.device("meta"):
        return output_sizes(build(network, scheme, num_classes=classes, input_shape=shape), data)


def output_sizes(model: nn.Module, data: ImageData) -> Sizes:
    """Returns the sizes of a network's outputs. Raises UserError where it does not take images of the data's shape."""
    try:
        return measure(model, data.input_shape)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        shape = "x".join(map(str, data.input_shape))
        raise UserError(f"the network cannot be used on images of {shape}: {first}") from error
