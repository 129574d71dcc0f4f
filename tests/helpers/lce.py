"""Functions that read a .tflite file for Larq Compute Engine, and compare its results with the network's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.export import agreement, predict_model
from bnn_itrd.export.lce import run_lce
from bnn_itrd.export.lce.reader import read_lce_model
from bnn_itrd.export.lce.schema import load_schema
from helpers.exported import WithOffset, images


def operations(file: Path) -> list[tuple[str, Any]]:
    """Returns (name, operator) for each operation in a file, in order."""
    model, _ = read_lce_model(file)
    schema = load_schema()
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = [
        code.customCode.decode() if code.customCode else names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    ]
    return [(codes[operator.opcodeIndex], operator) for operator in model.subgraphs[0].operators]


def count(file: Path) -> Counter[str]:
    return Counter(name for name, _ in operations(file))


def stored(file: Path, operator: Any, index: int, dtype: Any = np.float32) -> np.ndarray:
    """Returns the constant that an operator has as its input number `index`."""
    model, _ = read_lce_model(file)
    tensor = model.subgraphs[0].tensors[operator.inputs[index]]
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    return data.view(dtype).reshape(tensor.shape)


def assert_same_function(model: nn.Module, file: Path, shape: tuple[int, ...], n: int = 20, tol: float = 2e-5) -> None:
    """Asserts that a file computes what its network does, up to rounding.

    One image or 1 % of them may get another class: rounding can change a sign, and that can change all logits.
    """
    x = images(n, shape)
    result = agreement(predict_model(model, x), run_lce(file, x))
    assert len(result.disagreements) <= max(1, 0.01 * n)
    assert result.median_difference < tol


def with_offset(layer: Any) -> Any:
    layer.weight_binarizer = WithOffset(layer.weight.shape[0])
    return layer


class Side(nn.Module):
    """A network that applies several layers to the same images and joins the flattened results.

    So one exported file tests many layers.
    """

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x).flatten(1) for layer in self.layers.values()], dim=1)


def assert_equal_logits(model: nn.Module, file: Path, x: Tensor, sizes: dict[str, int]) -> None:
    expected, got = predict_model(model, x), run_lce(file, x)
    start = 0
    for name, size in sizes.items():
        part = slice(start, start + size)
        np.testing.assert_allclose(got[:, part], expected[:, part], rtol=1e-5, atol=3e-5, err_msg=name)
        start += size
    assert start == expected.shape[1]
