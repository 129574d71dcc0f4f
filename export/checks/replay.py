"""Replay: an exported graph is compared with its network sign by sign, so that one different sign does not spread.

A sum within rounding of a threshold may give either sign, and in a deep network one such sign can change every logit.
So the graph is run first, and the network is then run with the graph's signs in the place of its own: each sign is
compared where it arises, and the logits are those of equal signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from bnn_itrd.export.checks.operations import operation_in_front
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.tracing.network_copy import copy_for_export, logits_of
from bnn_itrd.quant import ActivationBinarizer, BinaryConv2d, BinaryLinear, IntegerQuantizer
from bnn_itrd.quant import sign as quant_sign

if TYPE_CHECKING:
    import onnx

__all__ = ["Replayed", "replay", "replay_recorded"]

# See `Replayed.too_many`.
_MOST_FLIPPED, _FEW = 1e-3, 2


def _allowed(signs: int) -> float:
    return max(_FEW, _MOST_FLIPPED * signs)


class Replayed(NamedTuple):
    """How far a graph is from its network when both compute with the graph's signs.

    difference: largest difference of the logits, divided by their standard deviation; margin: largest |x| whose sign
    differs, divided by the root mean square of x; layer: the layer that reads this sign, empty where none differs;
    flipped: the layer whose input has the most differing signs above the allowed number; flips, signs: how many of
    its signs differ, and how many it has; operation: the operation that computes its input, where they are too many.
    """

    difference: float
    margin: float
    layer: str
    flips: int = 0
    signs: int = 0
    flipped: str = ""
    operation: str = ""

    @property
    def too_many(self) -> bool:
        """Whether more signs of a layer differ than rounding explains.

        Rounding moves a value by about a millionth of its size, so about one in a million of a layer's values changes
        its sign. A thousand times as many (and more than two, in a small layer) is no coincidence: the graph computes
        by another rule, such as another sign for a value of exactly 0, which no margin shows.
        """
        return self.flips > _allowed(self.signs)


class _Forced(nn.Module):
    """Returns the graph's recorded values in the place of its own, and keeps how far x was from the threshold.

    A layer on which the logits do not depend has no values in the graph: it returns its own. Raises ExportError where
    that is so for some calls of a layer only, because the recorded values cannot be assigned to its calls.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.recorded: list[Tensor] = []
        self.calls = 0
        self.margin = 0.0
        self.flips = self.compared = 0

    def decide(self, x: Tensor) -> Tensor:
        """Returns the network's own values for x."""
        raise NotImplementedError

    def distance(self, x: Tensor, values: Tensor, own: Tensor) -> Tensor:
        """Returns how far each x is from the threshold between the recorded value and the network's own."""
        raise NotImplementedError

    def count(self, values: Tensor, own: Tensor) -> int:
        """Returns how many recorded values count as differing signs."""
        return 0

    def choose(self, x: Tensor) -> Tensor:
        own = self.decide(x)
        if not self.recorded:
            return own
        self.calls += 1
        if self.calls > len(self.recorded) or self.recorded[self.calls - 1].numel() != x.numel():
            raise ExportError(
                f"{self.path or 'the network'}: called more often than the logits need it "
                f"({len(self.recorded)} of its calls are in the file): remove the other calls, or use a layer of its "
                "own for them; nothing was written"
            )
        values = self.recorded[self.calls - 1].reshape(x.shape)
        far = self.distance(x, values, own)
        if bool(far.any()):
            scale = float(x.square().mean().sqrt())
            self.margin = max(self.margin, float(far.max()) / max(scale, 1e-12))
        self.flips += self.count(values, own)
        self.compared += values.numel()
        return values


class _ForcedSigns(_Forced):
    def __init__(self, binarizer: ActivationBinarizer, path: str) -> None:
        super().__init__(path)
        self.binarizer = binarizer

    def decide(self, x: Tensor) -> Tensor:
        return quant_sign(x)

    def distance(self, x: Tensor, values: Tensor, own: Tensor) -> Tensor:
        return torch.where(values != own, x.abs(), 0.0)

    def levels(self) -> tuple[Tensor, Tensor] | None:
        return self.binarizer.levels()

    def count(self, values: Tensor, own: Tensor) -> int:
        return int((values != own).sum())

    def forward(self, x: Tensor) -> Tensor:
        return self.choose(self.binarizer.presign(x))


class _ForcedIntegers(_Forced):
    def __init__(self, quantizer: IntegerQuantizer, path: str) -> None:
        super().__init__(path)
        self.quantizer = quantizer
        self.half_step = float(quantizer.scale()) / 2

    def decide(self, x: Tensor) -> Tensor:
        own: Tensor = self.quantizer(x)
        return own

    def distance(self, x: Tensor, values: Tensor, own: Tensor) -> Tensor:
        differs = (values - own).abs() > self.half_step
        return torch.where(differs, (x - (values + own) / 2).abs(), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.choose(x)


def _force(network: nn.Module) -> dict[str, _Forced]:
    """Replaces the (copied) network's activation binarisers and integer quantisers; returns the new ones by path."""
    forced: dict[str, _Forced] = {}
    for path, module in list(network.named_modules()):
        if isinstance(module, (BinaryConv2d, BinaryLinear)):
            forced[path] = module.activation_binarizer = _ForcedSigns(  # type: ignore[assignment]
                module.activation_binarizer, path
            )
        elif isinstance(module, IntegerQuantizer) and path:
            forced[path] = _ForcedIntegers(module, path)
            network.set_submodule(path, forced[path])
    return forced


def _as_network(values: np.ndarray, *, channels_last: bool) -> Tensor:
    """Returns a recorded value as (n, c, ...); one of uint8 holds signs (n, h, w, c), 0 for -1 and 2 for +1."""
    if values.dtype == np.uint8:
        values, channels_last = values.astype(np.float32) - 1, True
    return torch.from_numpy(rearrange(values, "n h w c -> n c h w") if channels_last and values.ndim == 4 else values)


@torch.no_grad()
def replay(
    model: nn.Module,
    proto: onnx.ModelProto,
    signs: list[tuple[str, str]],
    *,
    source: np.ndarray,
    images: Tensor,
    integers: Sequence[tuple[str, str, bool]] = (),
) -> Replayed:
    """Runs the graph on `source` and then the network on `images`, with the graph's signs, and compares them.

    source, images: the same images, in the graph's input type and in the network's; signs: (path of the layer, name of
    the value) of each sign in the graph, in the order of execution; integers: (path of the quantiser, name of the
    value, whether it is (n, h, w, c)) of each integer activation.
    Raises ExportError where a layer has more calls than recorded values.
    """
    import onnx
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    types = {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
    present = {output.name for output in proto.graph.output}
    watch = [*((path, name, False) for path, name in signs), *integers]
    for _, name, _ in watch:
        if name not in present:
            kind = types.get(name, onnx.TensorProto.FLOAT)
            output = onnx.helper.make_tensor_value_info(name, kind, None)
            watched.graph.output.append(output)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [proto.graph.output[0].name, *(name for _, name, _ in watch)]
    logits, *recorded = opened.run(names, {opened.get_inputs()[0].name: source})

    values = [
        (path, _as_network(array, channels_last=last)) for (path, _, last), array in zip(watch, recorded, strict=True)
    ]
    return replay_recorded(model, values, logits, images=images)


@torch.no_grad()
def replay_recorded(
    model: nn.Module, recorded: list[tuple[str, Tensor]], logits: np.ndarray, *, images: Tensor
) -> Replayed:
    """Compares a file that was run elsewhere with its network, as `replay` does.

    recorded: (path, values) of each sign, in the order of execution; logits: the file's, (n, classes).
    """
    network = copy_for_export(model)
    forced = _force(network)
    for path, values in recorded:
        forced[path].recorded.append(values)
    expected = logits_of(network(images)).numpy()
    spread = max(float(expected.std()), 1e-6)
    layer = max(forced, key=lambda path: forced[path].margin, default="")
    margin = forced[layer].margin if forced else 0.0
    difference = float(np.abs(logits - expected).max()) / spread
    worst = max(forced.values(), key=lambda one: one.flips - _allowed(one.compared), default=None)
    if worst is None or not worst.flips:
        return Replayed(difference, margin, layer if margin else "")
    found = Replayed(difference, margin, layer if margin else "", worst.flips, worst.compared, worst.path)
    return found._replace(operation=operation_in_front(model, worst.path, images)) if found.too_many else found
