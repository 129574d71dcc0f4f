"""Networks for the tests of the pass `channels_last` and those after it, and functions that run their graphs."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.export import canonical
from bnn_itrd.export.ort.functions import function_bodies
from bnn_itrd.export.passes.batchnorm import fold_batchnorm
from bnn_itrd.export.passes.channels_last.nhwc import channels_last
from bnn_itrd.export.passes.clips import drop_clips
from bnn_itrd.export.passes.fuse import fuse
from bnn_itrd.export.passes.lower_binary import lower_binary
from bnn_itrd.export.runtime.format import DOMAIN
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, BinaryWeight, WeightBinarizer, sign

SHAPE = (6, 8, 8)


def run(model: ir.Model, x: Tensor) -> np.ndarray:
    """Returns the output of a graph in onnxruntime without the native library.

    If the graph is in the canonical form, its binary layers are first replaced by standard operations, in a copy.
    """
    clone = ir.from_proto(ir.to_proto(model))
    lower_binary(clone) if any(node.op_type.endswith(("2d", "Linear")) for node in clone.graph) else None
    proto = ir.to_proto(clone)
    proto.functions.extend(function_bodies(node.op_type for node in clone.graph if node.domain == DOMAIN))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(opened.run(None, {"images": x.numpy()})[0])


def randomise(model: nn.Module) -> nn.Module:
    """Gives each BatchNorm random statistics and factors, as after a training; returns the network in eval mode."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.normal_(module.weight, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    return model.eval()


def conv(inputs: int = 6, outputs: int = 6, kernel: int = 3, **more: Any) -> BinaryConv2d:
    return BinaryConv2d(inputs, outputs, kernel, padding=kernel // 2, **more)


class Residual(nn.Module):
    """A residual block (two binary convolutions, + x, hardtanh) and a third convolution.

    twist: how it differs from this, for example what is added instead of x.
    """

    def __init__(self, twist: str = "") -> None:
        super().__init__()
        self.twist = twist
        self.first, self.second, self.third = conv(), conv(), conv()
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(6), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.stem = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.hardtanh(self.norm1(self.first(x)))
        y = self.norm2(self.second(y))
        if self.twist == "twice":
            y = y + y
        elif self.twist == "constant":
            y = y + torch.arange(6.0).reshape(6, 1, 1) / 3
        elif self.twist == "broadcast":
            y = y + x.mean((2, 3), keepdim=True)
        elif self.twist == "scalar":
            y = 2 * y - 0.5
        else:
            y = x + y
        z = F.hardtanh(y, -0.5, 1.5) if self.twist == "bounds" else F.hardtanh(y)
        if self.twist == "read_again":
            return self.norm3(self.third(z)) * z + y
        return self.norm3(self.third(z))


class Between(nn.Module):
    """A network with an operation between two binary convolutions."""

    def __init__(self, operation: Callable[[Tensor], Tensor], channels: int = 6) -> None:
        super().__init__()
        self.operation = operation
        self.first, self.second = conv(), conv(channels, 4)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.operation(self.norm(self.first(x))))


class Head(nn.Module):
    """A network with an operation after its last binary convolution."""

    def __init__(self, head: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.head = conv(), head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = conv(outputs=5)
        self.first, self.second = BinaryLinear(5 * 64, 7, bias=True), BinaryLinear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.hardtanh(self.first(torch.flatten(self.body(x), 1))))


class WithOffset(WeightBinarizer):
    """A weight binariser with the result scale * sign(w) + offset, where some scales are negative."""

    def forward(self, weight: Tensor) -> BinaryWeight:
        scale = torch.linspace(-1, 2, len(weight))
        return BinaryWeight(sign(weight), scale, scale.flip(0))


def with_offset(layer: BinaryConv2d) -> BinaryConv2d:
    layer.weight_binarizer = WithOffset(layer.out_channels)
    return layer


CASES: dict[str, Callable[[], nn.Module]] = {
    "block": Residual,
    "block_added_to_itself": lambda: Residual("twice"),
    "block_plus_constant": lambda: Residual("constant"),
    "block_plus_channel_means": lambda: Residual("broadcast"),
    "block_scalars": lambda: Residual("scalar"),
    "block_other_bounds": lambda: Residual("bounds"),
    "block_read_again": lambda: Residual("read_again"),
    "padding_value": lambda: nn.Sequential(conv(padding_value=-1), nn.Hardtanh(), conv(padding_value=1)),
    "groups": lambda: nn.Sequential(conv(groups=2), nn.BatchNorm2d(6), nn.Hardtanh(), conv(groups=3, padding_value=1)),
    "geometry": lambda: nn.Sequential(
        BinaryConv2d(6, 9, (5, 2), stride=(2, 1), padding=(1, 3), dilation=(1, 2)), BinaryConv2d(9, 3, 1, stride=2)
    ),
    "bias": lambda: nn.Sequential(conv(bias=True), conv(bias=True)),
    "avg_pool": lambda: Between(nn.AvgPool2d(2)),
    "avg_pool_overlapping": lambda: Between(nn.AvgPool2d(3, 2, 1)),
    "avg_pool_rectangular": lambda: Between(nn.AvgPool2d((4, 2))),
    "max_pool": lambda: Between(nn.MaxPool2d(2)),
    "max_pool_overlapping": lambda: Between(nn.MaxPool2d(3, 2, 1)),
    "max_pool_remainder": lambda: Between(nn.MaxPool2d(3)),
    "shortcut": lambda: Between(lambda x: F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 1, 2)), 9),
    "shortcut_not_zero": lambda: Between(lambda x: F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 1, 2), value=0.5), 9),
    "shortcut_rows": lambda: Between(lambda x: F.pad(F.avg_pool2d(x, 2), (0, 0, 1, 0, 1, 2)), 9),
    "pad_channels": lambda: Between(lambda x: F.pad(x, (0, 0, 0, 0, 1, 2), value=0.25), 9),
    "slices": lambda: Between(lambda x: x[:, 1:5, ::2, 1::3], 4),
    "concat": lambda: Between(lambda x: torch.cat([x, x.relu(), -x], 1), 18),
    "concat_rows": lambda: Between(lambda x: torch.cat([x, 2 * x], 2)),
    "stray_convolution": lambda: Between(nn.Conv2d(6, 6, 3, padding=1)),
    "softmax_over_channels": lambda: Between(lambda x: torch.softmax(x, 1) - 0.2),
    "activations": lambda: Between(lambda x: F.gelu(x) + F.silu(x) - torch.sigmoid(x) * F.leaky_relu(x, 0.1)),
    "prelu": lambda: Between(nn.PReLU(6)),
    "transposed": lambda: Between(lambda x: x.transpose(2, 3)),
    "shuffle": lambda: Between(nn.ChannelShuffle(3)),
    "mean": lambda: Head(lambda x: x.mean((2, 3))),
    "global_pool": lambda: Head(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))),
    "global_max": lambda: Head(lambda x: torch.amax(x, (2, 3))),
    "flatten": lambda: Head(nn.Sequential(nn.Flatten(), nn.Linear(6 * 64, 3))),
    "channel_mean": lambda: Head(lambda x: x.mean(1)),
    "linear": Dense,
    "offset": lambda: nn.Sequential(
        with_offset(conv(bias=True)), nn.Hardtanh(), with_offset(conv(groups=2, padding_value=1))
    ),
}


@functools.cache
def _traced(name: str) -> onnx.ModelProto:
    torch.manual_seed(4)
    return ir.to_proto(canonical(randomise(CASES[name]()), input_shape=SHAPE))


def case_graph(name: str) -> ir.Model:
    """Returns the canonical graph of a network of `CASES`; it is traced once, and each caller gets a copy to change."""
    return ir.from_proto(_traced(name))


def kinds_of(model: nn.Module | str) -> Counter[str]:
    """Returns how many operations of each kind are left after the passes; model: a network, or a name in `CASES`."""
    graph = case_graph(model) if isinstance(model, str) else canonical(randomise(model), input_shape=SHAPE)
    fold_batchnorm(graph)
    drop_clips(graph)
    channels_last(graph)
    fuse(graph)
    return Counter(node.op_type for node in graph.graph)
