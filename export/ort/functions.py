"""ONNX functions that define the operations of docs/reference/format.md by standard operations.

They are written into each file, so that an onnxruntime without the native library can run it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bnn_itrd.export.ort.convolution_bodies import binary_convolution_function, float_convolution_function
from bnn_itrd.export.ort.pooling_bodies import pooling_function
from bnn_itrd.export.ort.sign_bodies import sign_function
from bnn_itrd.export.runtime.format import CONVOLUTIONS, DOMAIN, FLOAT_CONVOLUTIONS, POOLINGS, SIGNS

if TYPE_CHECKING:
    import onnx

__all__ = ["function_bodies"]

# Name of an operation -> the Python function that returns its ONNX function as text.
_FUNCTIONS = {
    **dict.fromkeys(SIGNS, sign_function),
    **dict.fromkeys(POOLINGS, pooling_function),
    **dict.fromkeys(FLOAT_CONVOLUTIONS, float_convolution_function),
    **dict.fromkeys(CONVOLUTIONS, binary_convolution_function),
}


def function_bodies(names: Iterable[str]) -> list[onnx.FunctionProto]:
    """Returns the ONNX functions that define operations of this package (domain bnn_itrd) by standard operations.

    They are added to a model's ``functions``. names: of the operations, such as ``BinaryConv``. Raises ValueError on
    an unknown name.
    """
    import onnx.parser

    wanted = sorted(set(names))
    unknown = [name for name in wanted if name not in _FUNCTIONS]
    if unknown:
        raise ValueError(f"the domain {DOMAIN} has no operation {', '.join(unknown)}")
    header = f'<opset_import: ["" : 18], domain: "{DOMAIN}"> '
    return [onnx.parser.parse_function(header + _FUNCTIONS[name](name)) for name in wanted]
