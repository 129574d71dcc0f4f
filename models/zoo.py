"""Lists the networks by their names on the command line: `MODELS`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from bnn_itrd.models.mobilenet import mobilenet_v2, mobilenet_v2_half
from bnn_itrd.models.resnet import (
    resnet8,
    resnet8x4,
    resnet14,
    resnet18,
    resnet20,
    resnet32,
    resnet32x4,
    resnet34,
    resnet44,
    resnet50,
    resnet56,
    resnet110,
)
from bnn_itrd.models.shufflenetv1 import shufflenet_v1
from bnn_itrd.models.shufflenetv2 import shufflenet_v2
from bnn_itrd.models.small_vgg import vgg_small
from bnn_itrd.models.vgg import vgg8, vgg11, vgg13, vgg16, vgg19
from bnn_itrd.models.vgg9 import vgg9
from bnn_itrd.models.wide_resnet import wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2

__all__ = ["MODELS"]

# A builder is called with the number of classes, and with the keyword arguments that its signature names, among
# in_channels, input_shape, binary and the options of `network`.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v2_half": mobilenet_v2_half,
    "resnet8": resnet8,
    "resnet8x4": resnet8x4,
    "resnet14": resnet14,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet32x4": resnet32x4,
    "resnet34": resnet34,
    "resnet44": resnet44,
    "resnet50": resnet50,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "shufflenet_v1": shufflenet_v1,
    "shufflenet_v2": shufflenet_v2,
    "vgg8": vgg8,
    "vgg9": vgg9,
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "vgg_small": vgg_small,
    "wrn_16_1": wrn_16_1,
    "wrn_16_2": wrn_16_2,
    "wrn_40_1": wrn_40_1,
    "wrn_40_2": wrn_40_2,
}
