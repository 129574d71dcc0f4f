"""What a network costs, layer by layer: shapes, bits, multiply-accumulates, bytes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnn_itrd.quant import BinaryConv2d, BinaryLinear

__all__ = ["LayerSummary", "Summary", "summary"]


@dataclass(frozen=True)
class LayerSummary:
    """One layer at batch 1. bits: of a weight and of an input value; macs: products of +-1 (binary) or of floats.

    bytes: as deployed: 1 bit per binary weight, 4 bytes per other parameter, and a normalisation as the two numbers
    per channel (scale, shift) it becomes. parameters: trainable ones, a binary layer's learned scale included.
    """

    path: str
    kind: str
    output_shape: tuple[int, ...]
    weight_bits: int
    activation_bits: int
    parameters: int
    binary_macs: int
    float_macs: int
    bytes: int


@dataclass(frozen=True)
class Summary:
    """A network's layers and totals; ``str()`` gives the table."""

    layers: tuple[LayerSummary, ...]
    input_shape: tuple[int, ...]
    parameters: int

    @property
    def binary_macs(self) -> int:
        return sum(layer.binary_macs for layer in self.layers)

    @property
    def float_macs(self) -> int:
        return sum(layer.float_macs for layer in self.layers)

    @property
    def bytes(self) -> int:
        return sum(layer.bytes for layer in self.layers)

    @property
    def fp32_bytes(self) -> int:
        """The same parameters at 4 bytes each."""
        return 4 * self.parameters

    @property
    def compression(self) -> float:
        """fp32_bytes / bytes."""
        return self.fp32_bytes / self.bytes

    @property
    def kept_float(self) -> tuple[str, ...]:
        """Paths of the layers that multiply floats."""
        return tuple(layer.path for layer in self.layers if layer.float_macs)

    def __str__(self) -> str:
        header = ("layer", "kind", "output", "bits W/A", "parameters", "binary MACs", "float MACs", "bytes")
        rows = [
            (
                layer.path,
                layer.kind,
                "x".join(map(str, layer.output_shape)),
                f"{layer.weight_bits}/{layer.activation_bits}",
                f"{layer.parameters:,}",
                f"{layer.binary_macs:,}",
                f"{layer.float_macs:,}",
                f"{layer.bytes:,}",
            )
            for layer in self.layers
        ]
        total = ("total", "", "", "", f"{self.parameters:,}", f"{self.binary_macs:,}", f"{self.float_macs:,}")
        rows.append((*total, f"{self.bytes:,}"))
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

        def line(row: Sequence[str]) -> str:
            cells = (c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            return "  ".join(cells).rstrip()

        rule = "  ".join("-" * w for w in widths)
        kept = ", ".join(self.kept_float) or "nothing"
        return "\n".join(
            [
                line(header),
                rule,
                *map(line, rows[:-1]),
                rule,
                line(rows[-1]),
                f"fp32 {self.fp32_bytes:,} bytes; deployed {self.bytes:,} bytes: {self.compression:.1f}x smaller",
                f"in full precision: {kept}",
            ]
        )


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _describe(path: str, module: nn.Module, output: Tensor) -> LayerSummary | None:
    shape = tuple(output.shape[1:])
    parameters = sum(p.numel() for p in module.parameters())
    if isinstance(module, (BinaryConv2d, BinaryLinear)):
        signs, scale, offset = module.binary_weight()
        positions = math.prod(shape) // signs.shape[0]
        macs = signs.numel() * positions
        others = scale.numel() + (0 if offset is None else offset.numel())
        others += 0 if module.bias is None else module.bias.numel()
        size = math.ceil(signs.numel() / 8) + 4 * others
        # An offset is a second, float sum over the window: one addition per tap, not per output channel.
        extra = 0 if offset is None else signs[0].numel() * positions
        return LayerSummary(path, type(module).__name__, shape, 1, 1, parameters, macs, extra, size)
    if any(True for _ in module.children()) or parameters == 0:
        return None
    size = 4 * parameters
    macs = 0
    if isinstance(module, _NORMS):
        size = 8 * module.num_features
    elif isinstance(module, nn.modules.conv._ConvNd):
        if module.transposed:
            macs = module.weight.numel() * math.prod(output.shape[2:]) // math.prod(module.stride)
        else:
            macs = module.weight.numel() * math.prod(output.shape[2:])
    elif isinstance(module, nn.Linear):
        macs = module.weight.numel() * (output[0].numel() // module.out_features)
    return LayerSummary(path, type(module).__name__, shape, 32, 32, parameters, 0, macs, size)


@torch.no_grad()
def summary(model: nn.Module, input_shape: Sequence[int] | None = None) -> Summary:
    """Walks one image (c, h, w) through the network. input_shape: by default ``model.input_shape``.

    Counts convolutions, linear layers and normalisations, and the bytes of every other module that owns parameters;
    activations, pooling and additions are not counted as MACs. The network is copied and left as it was.
    Raises ValueError where there is no input_shape.
    """
    shape = input_shape if input_shape is not None else getattr(model, "input_shape", None)
    if shape is None:
        raise ValueError(f"{type(model).__name__} has no input_shape: give input_shape=(channels, height, width)")
    twin = copy.deepcopy(model).cpu().float().eval()
    layers: dict[str, LayerSummary] = {}
    handles = []
    for path, module in twin.named_modules():

        def hook(module: nn.Module, args: object, output: object, path: str = path) -> None:
            described = _describe(path, module, output) if isinstance(output, Tensor) else None
            if described is not None:
                before = layers.get(path)
                if before is not None:  # called again: the work adds up, the parameters do not
                    described = LayerSummary(
                        **{
                            **described.__dict__,
                            "binary_macs": before.binary_macs + described.binary_macs,
                            "float_macs": before.float_macs + described.float_macs,
                        }
                    )
                layers[path] = described

        handles.append(module.register_forward_hook(hook))
    twin(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    # A binary layer is counted whole; what lies inside it (its binarisers) is not a layer of its own.
    inside = tuple(f"{path}." for path, m in twin.named_modules() if isinstance(m, (BinaryConv2d, BinaryLinear)))
    kept = tuple(layer for path, layer in layers.items() if not (inside and path.startswith(inside)))
    return Summary(kept, tuple(shape), sum(p.numel() for p in twin.parameters()))
