"""Counts what a network costs, layer by layer: parameters, multiplications with addition (MACs), and bytes."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bnn_itrd.quant import BinaryConv2d, BinaryLinear, IntegerConv2d, IntegerLinear, IntegerQuantizer

__all__ = ["LayerSummary", "Summary", "summary"]


@dataclass(frozen=True)
class LayerSummary:
    """What one layer costs for one image.

    output_shape: without the batch; empty where the module was not called. weight_bits, activation_bits: bits of a
    weight and of an input value. binary_macs, integer_macs, float_macs: multiplications with addition of +1 or -1, of
    integers of at most 8 bits, and of floats. parameters: those of the module, with a binary layer's learned scale and
    an attention's projections, without those shared with an earlier layer. bytes: the size as exported: 1 bit per
    binary weight, the layer's bits per integer weight, 4 bytes per other parameter, and two floats per channel for a
    BatchNorm; a computed weight (weight_norm) counts as its result.
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
    integer_macs: int = 0


@dataclass(frozen=True)
class Summary:
    """What a network costs: its layers and their totals; ``str()`` gives a table."""

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
    def integer_macs(self) -> int:
        return sum(layer.integer_macs for layer in self.layers)

    @property
    def bytes(self) -> int:
        return sum(layer.bytes for layer in self.layers)

    @property
    def fp32_bytes(self) -> int:
        """Returns the size in bytes of all parameters as float32."""
        return 4 * self.parameters

    @property
    def compression(self) -> float:
        """Returns how many times smaller than in float32 the network is: fp32_bytes / bytes; 1 without parameters."""
        return self.fp32_bytes / self.bytes if self.bytes else 1.0

    @property
    def kept_float(self) -> tuple[str, ...]:
        """Returns the paths of the layers that compute with floats."""
        return tuple(layer.path for layer in self.layers if layer.float_macs)

    def rows(self) -> list[dict[str, str]]:
        """Returns the table: for each layer a dict of column name -> text, and at the end one with the totals."""
        rows = [
            {
                "layer": layer.path,
                "kind": layer.kind,
                "output": "x".join(map(str, layer.output_shape)),
                "bits W/A": f"{layer.weight_bits}/{layer.activation_bits}",
                **self._numbers(layer),
            }
            for layer in self.layers
        ]
        return [*rows, {"layer": "total", "kind": "", "output": "", "bits W/A": "", **self._numbers(self)}]

    def _numbers(self, of: Summary | LayerSummary) -> dict[str, str]:
        """Returns the numbers of a layer or of the total, column name -> text; integer MACs only if there are any."""
        integers = {"integer MACs": f"{of.integer_macs:,}"} if self.integer_macs else {}
        counts = {"parameters": f"{of.parameters:,}", "binary MACs": f"{of.binary_macs:,}", **integers}
        return {**counts, "float MACs": f"{of.float_macs:,}", "bytes": f"{of.bytes:,}"}

    def totals(self) -> str:
        """Returns the two lines below the table: how much smaller the network is, and its layers in full precision."""
        kept = ", ".join(self.kept_float) or "nothing"
        smaller = f"fp32 {self.fp32_bytes:,} bytes; deployed {self.bytes:,} bytes: {self.compression:.1f}x smaller"
        return f"{smaller}\nin full precision: {kept}"

    def __str__(self) -> str:
        rows = self.rows()
        widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}

        def line(row: Mapping[str, str]) -> str:
            cells = (row[n].ljust(w) if i < 3 else row[n].rjust(w) for i, (n, w) in enumerate(widths.items()))
            return "  ".join(cells).rstrip()

        header, rule = line({name: name for name in widths}), "  ".join("-" * w for w in widths.values())
        return "\n".join([header, rule, *map(line, rows[:-1]), rule, line(rows[-1]), self.totals()])


_BINARY = (BinaryConv2d, BinaryLinear)
_INTEGER = (IntegerConv2d, IntegerLinear)
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


class _Work(NamedTuple):
    """The output shape of one module in a forward pass, and how many MACs it computed."""

    output_shape: tuple[int, ...] = ()
    binary_macs: int = 0
    integer_macs: int = 0
    float_macs: int = 0


def _parts(module: nn.Module) -> list[nn.Module]:
    """Returns the modules that count as one layer: the module, with its binarisers, quantisers or parametrisations."""
    if isinstance(module, (*_BINARY, *_INTEGER, nn.MultiheadAttention)):
        return list(module.modules())
    if isinstance(module, _WEIGHTED) and parametrize.is_parametrized(module):
        return [module, *module.get_submodule("parametrizations").modules()]
    return [module]


def _attention_macs(module: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> int:
    """Returns the MACs of attention: the four projections, queries by keys, and attention weights by values."""
    width, batch_axis = module.embed_dim, 0 if module.batch_first else 1
    queries, keys = query.numel() // width, key.numel() // key.shape[-1]
    keys_each = keys // (1 if key.dim() == 2 else key.shape[batch_axis])
    keys_each += (module.bias_k is not None) + module.add_zero_attn
    projections = 2 * queries * width + keys * (key.shape[-1] + value.shape[-1])
    return width * (projections + 2 * queries * keys_each)


def _macs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> tuple[int, int, int]:
    """Returns how often one call of a module multiplies and adds (MACs), in (binary, integer, float) numbers."""
    if isinstance(module, _BINARY):
        signs, _, offset = module.binary_weight()
        positions = output.numel() // signs.shape[0]
        if module.weight_binarizer.not_deployable:  # its weights are floats
            return 0, 0, signs.numel() * positions
        # An offset needs a second sum over the window, in float. It is computed once for the channels of a group.
        taps = signs[0].numel() * (module.groups if isinstance(module, BinaryConv2d) else 1)
        return signs.numel() * positions, 0, 0 if offset is None else taps * positions
    if isinstance(module, nn.MultiheadAttention):
        given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        return 0, 0, _attention_macs(module, given["query"], given["key"], given["value"])
    products = 0
    if isinstance(module, nn.Linear):
        products = module.weight.numel() * (output.numel() // module.out_features)
    elif isinstance(module, nn.modules.conv._ConvNd):
        if module.transposed:  # the kernel is multiplied once per pixel of the input
            source = args[0] if args else kwargs["input"]
            products = module.weight.numel() * (source.numel() // module.in_channels)
        else:
            products = module.weight.numel() * (output.numel() // module.out_channels)
    return (0, products, 0) if isinstance(module, _INTEGER) else (0, 0, products)


def _bytes(module: nn.Module, parameters: Sequence[nn.Parameter]) -> int:
    """Returns how many bytes a layer takes in an exported file.

    parameters: the module's parameters, without those that it shares with an earlier layer, which has counted them.
    """
    if isinstance(module, _BINARY):
        (signs, scale, offset), bias = module.folded()
        others = scale.numel() + (0 if offset is None else offset.numel())
        others += 0 if bias is None else bias.numel()
        ours = any(p is module.weight for p in parameters)
        stored = 4 * signs.numel() if module.weight_binarizer.not_deployable else math.ceil(signs.numel() / 8)
        return (stored if ours else 0) + 4 * others
    if isinstance(module, _INTEGER):
        # Every other number is a float; each weight has a scale in addition, and a norm inside is part of the weight.
        weights = [p.numel() for p in parameters if p is module.weight]
        others = sum(p.numel() for p in parameters) - sum(weights)
        return sum(math.ceil(count * module.bits / 8) for count in weights) + 4 * (others + len(weights))
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return 8 * module.num_features if module.affine or module.running_mean is not None else 0
    if isinstance(module, _WEIGHTED) and "weight" not in module._parameters and parameters:
        # A weight that is computed (weight_norm, pruning) is deployed as its result.
        return 4 * (module.weight.numel() + (0 if module.bias is None else module.bias.numel()))
    return 4 * sum(p.numel() for p in parameters)


def _layer(path: str, module: nn.Module, work: _Work, counted: set[int]) -> LayerSummary | None:
    """Returns what a layer costs, or None where all counts are 0; adds its parameters' ids to `counted`."""
    parameters = []
    for p in [p for part in _parts(module) for p in part.parameters(recurse=False)]:
        if id(p) not in counted:
            counted.add(id(p))
            parameters.append(p)
    size = _bytes(module, parameters)
    if not (parameters or size or work.binary_macs or work.integer_macs or work.float_macs):
        return None
    bits = (
        module.bits if isinstance(module, (*_INTEGER, IntegerQuantizer)) else 1 if isinstance(module, _BINARY) else 32
    )
    count = sum(p.numel() for p in parameters)
    macs = (work.binary_macs, work.float_macs, size, work.integer_macs)
    real = isinstance(module, _BINARY) and module.weight_binarizer.not_deployable is not None
    return LayerSummary(path, type(module).__name__, work.output_shape, 32 if real else bits, bits, count, *macs)


@torch.no_grad()
def summary(model: nn.Module, input_shape: Sequence[int] | None = None) -> Summary:
    """Returns what a network costs for one image of shape (c, h, w), by default ``model.input_shape``.

    All parameters are counted, those of modules that are not called too. Shared ones count once, so that the layers'
    counts add up to `Summary.parameters`. MACs are counted for convolutions, linear layers and nn.MultiheadAttention
    that are called as modules. Functions, activations, pooling, normalisations and additions count 0. The network is
    copied and does not change. Raises ValueError where there is no input_shape.

    >>> from bnn_itrd.models import resnet8
    >>> costs = summary(resnet8(10, binary="recu"))
    >>> costs.parameters, costs.binary_macs > costs.float_macs
    (75642, True)
    """
    shape = input_shape if input_shape is not None else getattr(model, "input_shape", None)
    if shape is None:
        raise ValueError(f"{type(model).__name__} has no input_shape: give input_shape=(channels, height, width)")
    copied = copy.deepcopy(model)
    # On the meta device only shapes are computed, which are enough for the counts.
    device = torch.device("meta" if any(p.is_meta for p in copied.parameters()) else "cpu")
    copied = copied.to(device).float().eval()
    inside = {id(part) for module in copied.modules() for part in _parts(module) if part is not module}
    modules = {path: module for path, module in copied.named_modules() if id(module) not in inside}
    done: dict[str, _Work] = {}

    def note(path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(first, Tensor):
            # The MACs of several calls add up.
            before, new = done.get(path, _Work()), _macs(module, args, kwargs, first)
            done[path] = _Work(tuple(first.shape[1:]), *(a + b for a, b in zip(before[1:], new, strict=True)))

    for path, module in modules.items():
        module.register_forward_hook(partial(note, path), with_kwargs=True)
    copied(torch.zeros(1, *shape, device=device))
    # The modules in the order of execution, and then those that were not called.
    work = done | {path: _Work() for path in modules if path not in done}
    counted: set[int] = set()
    layers = [_layer(path, modules[path], did, counted) for path, did in work.items()]
    kept = tuple(layer for layer in layers if layer is not None)
    return Summary(kept, tuple(shape), sum(p.numel() for p in copied.parameters()))
