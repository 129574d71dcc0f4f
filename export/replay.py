"""Replay: a lowered graph against its network, sign by sign, so that one flipped bit does not spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.export.copies import copy_for_export, first_output
from bnn_itrd.export.errors import ExportError
from bnn_itrd.quant import ActivationBinarizer, BinaryConv2d, BinaryLinear
from bnn_itrd.quant import sign as quant_sign

if TYPE_CHECKING:
    import onnx

__all__ = ["Replayed", "replay"]


class Replayed(NamedTuple):
    """How far a graph is from its network when both go on from the graph's own signs.

    difference: the largest of the logits, over their standard deviation; margin: the largest |x| whose sign
    differs, over the root mean square of x, and the `layer` it stands in front of (empty where none differs).
    """

    difference: float
    margin: float
    layer: str


class _Forced(nn.Module):
    """Gives the recorded signs, whatever x is, and notes how far from 0 the x were that disagree.

    A layer the first output does not depend on has no sign in the graph: it takes those of its own x. Raises
    ExportError where that holds for some of a layer's calls only: nothing says which of them was recorded.
    """

    def __init__(self, binarizer: ActivationBinarizer, path: str) -> None:
        super().__init__()
        self.binarizer, self.path = binarizer, path
        self.recorded: list[Tensor] = []
        self.calls = 0
        self.margin = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.binarizer.presign(x)
        if not self.recorded:
            return quant_sign(x)
        self.calls += 1
        if self.calls > len(self.recorded) or self.recorded[self.calls - 1].shape != x.shape:
            raise ExportError(
                f"{self.path or 'the network'}: called more often than the first output needs it "
                f"({len(self.recorded)} of its calls are in the file): drop the other calls, or give them a layer "
                "of their own; nothing was written"
            )
        signs = self.recorded[self.calls - 1]
        wrong = quant_sign(x) != signs
        if bool(wrong.any()):
            scale = float(x.square().mean().sqrt())
            self.margin = max(self.margin, float(x[wrong].abs().max()) / max(scale, 1e-12))
        return signs


@torch.no_grad()
def replay(
    model: nn.Module,
    proto: onnx.ModelProto,
    signs: list[tuple[str, str]],
    *,
    source: np.ndarray,
    images: Tensor,
) -> Replayed:
    """Runs the graph on `source` and the network on `images` (the same, as each takes them).

    signs: (path of the layer, name of the value) of each sign in the graph, in the order of execution. A sum
    within rounding of a threshold may fall on either side, and in a deep network one such bit can change
    every logit: so the network is given the graph's signs, and each sign is compared where it arises.
    Raises ExportError on a layer of whose calls the graph holds some only.
    """
    import onnx
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    present = {output.name for output in proto.graph.output}
    for _, name in signs:
        if name not in present:
            output = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            watched.graph.output.append(output)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [proto.graph.output[0].name, *(name for _, name in signs)]
    logits, *recorded = opened.run(names, {opened.get_inputs()[0].name: source})

    twin = copy_for_export(model)
    forced: dict[str, _Forced] = {}
    for path, module in list(twin.named_modules()):
        if isinstance(module, (BinaryConv2d, BinaryLinear)):
            forced[path] = _Forced(module.activation_binarizer, path)
            module.activation_binarizer = forced[path]  # type: ignore[assignment]
    for (path, _), values in zip(signs, recorded, strict=True):
        forced[path].recorded.append(torch.from_numpy(values))
    expected = first_output(twin(images)).numpy()
    spread = max(float(expected.std()), 1e-6)
    layer = max(forced, key=lambda path: forced[path].margin, default="")
    margin = forced[layer].margin if forced else 0.0
    return Replayed(float(np.abs(logits - expected).max()) / spread, margin, layer if margin else "")
