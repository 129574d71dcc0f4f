"""`replay` compares an exported graph with its network sign by sign.

Comparing the logits is not enough: a value very near to 0 may be rounded to either sign, and in a deep network one such
sign can change every logit. So the graph is run first and its signs are recorded. Then the network is run, and in each
binary layer the recorded signs replace the network's own. Each sign is compared where it is computed, and the logits
are compared for equal signs.
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
    """Returns how many of a layer's input signs may differ because of rounding; signs: how many it has."""
    return max(_FEW, _MOST_FLIPPED * signs)


class Replayed(NamedTuple):
    """The result of `replay`: how far an exported graph is from its network if both compute with the graph's signs.

    difference: largest difference of a logit, divided by the logits' standard deviation. margin: the largest |x| for
    which graph and network differ in sign(x), divided by the root mean square of the layer's x; layer: path of that
    layer, "" if no sign differs. flipped: path of the layer with the most differing input signs, compared with the
    number that `too_many` allows; flips: how many differ there; signs: how many that input has; operation: the
    operation that computes this input, set only if too many differ.
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
        """Returns whether in the layer `flipped` more than two signs, and more than one in a thousand, differ.

        Rounding changes a value by about a millionth, and so the sign of about one value in a million. If many more
        differ, the graph computes by another rule, such as another sign for 0, which `margin` does not show.
        """
        return self.flips > _allowed(self.signs)


class _Forced(nn.Module):
    """A module that replaces a quantiser of the network: it returns the values that were recorded from the graph.

    It compares them with the quantiser's own values: it counts those that differ, and keeps the largest distance of
    their inputs from the threshold. It is the base of the classes for signs and for integers. If nothing was recorded
    for the quantiser, because the logits do not depend on it, the module returns the quantiser's own values. Raises
    ExportError if values were recorded for only some of its calls, because it is not known for which.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.recorded: list[Tensor] = []
        self.calls = 0
        self.margin = 0.0
        self.flips = self.compared = 0

    def decide(self, x: Tensor) -> Tensor:
        """Returns the network's own result for x."""
        raise NotImplementedError

    def distance(self, x: Tensor, values: Tensor, own: Tensor) -> Tensor:
        """Returns, for each x, its distance from the threshold between `values` and `own`, and 0 where they agree.

        values: the exported graph's results for x; own: the network's results for x.
        """
        raise NotImplementedError

    def count(self, values: Tensor, own: Tensor) -> int:
        """Returns how many signs of the exported graph, `values`, differ from the network's; 0 for integers."""
        return 0

    def choose(self, x: Tensor) -> Tensor:
        """Returns what the exported graph computed in this call, after comparing it with the network's result for x."""
        own = self.decide(x)
        if not self.recorded:
            return own
        self.calls += 1
        if self.calls > len(self.recorded) or self.recorded[self.calls - 1].numel() != x.numel():
            raise ExportError(
                f"{self.path or 'the network'}: the network calls this layer more often than the logits need it "
                f"({len(self.recorded)} of its calls are in the file): remove the other calls, or use a separate layer "
                "for them; nothing was written"
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
    """A module that replaces a layer's activation binariser and returns the exported graph's signs; see `_Forced`."""

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
    """A module that replaces an integer quantiser and returns the exported graph's values; see `_Forced`."""

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
    """Replaces a network's activation binarisers and integer quantisers by modules that return given values.

    The values are those of an exported graph, which the caller puts into the modules. Returns the modules by the path
    of the layer or quantiser. The network, a copy, is changed in place.
    """
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
    """Returns a tensor of the exported graph rearranged to PyTorch's layout, (n, c, ...), as floats.

    values: the tensor's numbers; channels_last: whether they are (n, h, w, c). Numbers of type uint8 always are, and
    stand for signs, 0 for -1 and 2 for +1.
    """
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
    """Runs an exported graph, then its network with the graph's signs in place of its own; returns how they differ.

    source, images: the same images, as the graph takes them and as the network takes them; signs: (layer's path, name
    of the tensor) of each binary layer's input signs in the graph, in the order of execution; integers: (quantiser's
    path, name of the tensor, whether it is (n, h, w, c)) of each activation that is rounded to integers.
    Raises ExportError if the network calls a layer more often than the graph does.
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
    """Returns how a network differs, sign by sign, from a file that another program has run; see `replay`.

    recorded: (layer's path, values) of each layer's input signs in the file, and of each integer activation, in the
    order of execution; logits: the file's, (n, classes); images: the network's input.
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
