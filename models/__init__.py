"""Networks. One builder makes a teacher or its binary student; `MODELS` maps the names of the command line."""

from collections.abc import Callable

from torch import nn

from bnn_itrd.models.blocks import BasicBlock, PadShortcut
from bnn_itrd.models.outputs import Observed, Outputs, find_head, observe
from bnn_itrd.models.resnet import ResNet, resnet18, resnet20, resnet32, resnet34, resnet56, resnet110
from bnn_itrd.models.summary import LayerSummary, Summary, summary
from bnn_itrd.models.vgg import VGGSmall, vgg_small

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet34": resnet34,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "vgg_small": vgg_small,
}

__all__ = [
    "MODELS",
    "BasicBlock",
    "LayerSummary",
    "Observed",
    "Outputs",
    "PadShortcut",
    "ResNet",
    "Summary",
    "VGGSmall",
    "find_head",
    "observe",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet56",
    "resnet110",
    "summary",
    "vgg_small",
]
