"""Networks. One builder makes a teacher or its binary student; `MODELS` maps the names of the command line."""

from collections.abc import Callable

from torch import nn

from bnn_itrd.models.blocks import BasicBlock, PadShortcut
from bnn_itrd.models.bottleneck import Bottleneck
from bnn_itrd.models.cost import LayerSummary, Summary, summary
from bnn_itrd.models.mobilenet import InvertedResidual, MobileNetV2, mobilenet_v2, mobilenet_v2_half
from bnn_itrd.models.outputs import Observed, Outputs, find_head, observe
from bnn_itrd.models.resnet import (
    ResNet,
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
from bnn_itrd.models.shufflenetv1 import ShuffleNetV1, ShuffleUnit, shufflenet_v1
from bnn_itrd.models.shufflenetv2 import ShuffleNetV2, SplitUnit, shufflenet_v2
from bnn_itrd.models.small_vgg import VGGSmall, vgg_small
from bnn_itrd.models.vgg import VGG, vgg8, vgg11, vgg13, vgg16, vgg19
from bnn_itrd.models.wide_resnet import PreActivationBlock, WideResNet, wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2

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

__all__ = [
    "MODELS",
    "VGG",
    "BasicBlock",
    "Bottleneck",
    "InvertedResidual",
    "LayerSummary",
    "MobileNetV2",
    "Observed",
    "Outputs",
    "PadShortcut",
    "PreActivationBlock",
    "ResNet",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "ShuffleUnit",
    "SplitUnit",
    "Summary",
    "VGGSmall",
    "WideResNet",
    "find_head",
    "mobilenet_v2",
    "mobilenet_v2_half",
    "observe",
    "resnet8",
    "resnet8x4",
    "resnet14",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet32x4",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet110",
    "shufflenet_v1",
    "shufflenet_v2",
    "summary",
    "vgg8",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg_small",
    "wrn_16_1",
    "wrn_16_2",
    "wrn_40_1",
    "wrn_40_2",
]
