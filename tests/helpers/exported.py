"""Parts of networks for the tests of exported files, and functions that compare a file or graph with its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn

from bnn_itrd.export import validate
from bnn_itrd.export.passes.lower_binary import lower_binary
from bnn_itrd.export.runtime.checksum import NO_DIGEST, seal
from bnn_itrd.quant import ActivationBinarizer, BinaryWeight, ReCUWeight, WeightBinarizer, sign

SMALL = (3, 16, 16)


def randomised(model: Any, seed: int = 0) -> Any:
    """Gives BatchNorms and scales random values, some negative and one 0 in each; returns the network in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                if module.weight is not None:
                    module.weight.normal_(generator=generator)
                    module.bias.normal_(generator=generator)
                    module.weight[0] = 0
            if isinstance(module, ReCUWeight):
                module.alpha.normal_(generator=generator)
                module.alpha[-1] = 0
    return model.eval()


def images(n: int, shape: tuple[int, ...] = SMALL, seed: int = 0) -> Tensor:
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed))


def run_graph(model: ir.Model, x: Tensor) -> np.ndarray:
    """Returns the output of a graph in onnxruntime, without onnxruntime's own optimisations.

    The graph's binary layers are replaced by standard operations, in a copy.
    """
    clone = ir.from_proto(ir.to_proto(model))
    lower_binary(clone)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    data = ir.to_proto(clone).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(
        None, {"images": x.numpy()}
    )[0]


@torch.no_grad()
def assert_same_function(model: nn.Module, file: Path, shape: tuple[int, ...]) -> None:
    """Asserts that a file computes what its network does, up to rounding.

    Some images may get another class: rounding can move a sum across a threshold, and that sign can change all logits.
    """
    result = validate(model, file, images(40, shape))
    assert result.images == 40
    assert result.argmax_agreement >= 0.9
    assert result.median_difference < 1e-5
    assert len(result.disagreements) == round(40 * (1 - result.argmax_agreement))


class WithOffset(WeightBinarizer):
    """A weight binariser with the result scale * sign(w) + shift, both learned for each channel."""

    def __init__(self, out_channels: int) -> None:
        super().__init__(out_channels)
        self.scale = nn.Parameter(torch.linspace(-1, 2, out_channels))
        self.shift = nn.Parameter(torch.linspace(1, -2, out_channels))

    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(sign(weight), self.scale, self.shift)


class Threshold(ActivationBinarizer):
    """An activation binariser that computes sign(x + b) with a number b for each channel, as RSign does."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.b = nn.Parameter(torch.linspace(-0.4, 0.6, channels))

    def presign(self, x: Tensor) -> Tensor:
        return x + self.b.reshape(-1, *([1] * (x.dim() - 2)))

    def forward(self, x: Tensor) -> Tensor:
        return sign(self.presign(x))


def with_parts(layer: Any, *, offset: bool = False, threshold: bool = False) -> Any:
    channels = layer.activation_binarizer.channels
    if offset:
        layer.weight_binarizer = WithOffset(layer.weight.shape[0])
    if threshold:
        layer.activation_binarizer = Threshold(channels)
    return layer


def save_sealed(model: onnx.ModelProto, path: Path) -> None:
    """Writes a changed ONNX model with a new checksum, so that it is not refused as damaged."""
    next(entry for entry in model.metadata_props if entry.key == "sha256").value = NO_DIGEST
    path.write_bytes(seal(model.SerializeToString()))
