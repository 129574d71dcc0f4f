"""Text of the ONNX functions for poolings, written with standard operations."""

from __future__ import annotations

__all__ = ["pooling_function"]


def _pooling_body(name: str) -> str:
    """Returns the steps of a pooling in ONNX's text syntax: they reduce the rows of each window, then its columns.

    Each step reduces one axis in the middle of a reshaped tensor, which onnxruntime does fast. onnxruntime adds up to
    four numbers in a fixed order, but eight in an order that depends on the batch size. So a mean over eight numbers is
    written as two poolings (passes/channels_last/nhwc.py).
    """
    reduce = "ReduceMean" if name.startswith("Average") else "ReduceMax"
    body = f"""
  i0 = Constant <value_ints = [0]> ()
  i1 = Constant <value_ints = [1]> ()
  i2 = Constant <value_ints = [2]> ()
  rest = Constant <value_ints = [-1]> ()
  size = Constant <value_ints: ints = @input_size> ()
  kernel = Constant <value_ints: ints = @kernel_shape> ()
  channels_number = Constant <value_int: int = @channels> ()
  channels = Unsqueeze (channels_number, i0)
  kh = Slice (kernel, i0, i1)
  kw = Slice (kernel, i1, i2)
  width = Slice (size, i1, i2)
  row = Mul (width, channels)
  by_row = Concat <axis = 0> (rest, kh, row)
  by_column = Concat <axis = 0> (rest, kw, channels)
  out_size = Div (size, kernel)
  out_shape = Concat <axis = 0> (rest, out_size, channels)
  rows = Reshape (x, by_row)
  row_result = {reduce} <keepdims = 0> (rows, i1)
  columns = Reshape (row_result, by_column)
  result = {reduce} <keepdims = 0> (columns, i1)
"""
    if not name.endswith("Pad"):
        return body + "  y = Reshape (result, out_shape)\n"
    return (
        body
        + """
  pooled = Reshape (result, out_shape)
  zeros = Constant <value_ints: ints = @zeros> ()
  zeros_before = Slice (zeros, i0, i1)
  zeros_after = Slice (zeros, i1, i2)
  pads = Concat <axis = 0> (i0, i0, i0, zeros_before, i0, i0, i0, zeros_after)
  y = Pad (pooled, pads)
"""
    )


def pooling_function(name: str) -> str:
    """Returns the ONNX function for a pooling, such as ``AveragePool`` or ``MaxPoolPad``, in ONNX's text syntax."""
    more = ", zeros" if name.endswith("Pad") else ""
    return f"{name} <input_size, channels, kernel_shape{more}> (x) => (y) {{{_pooling_body(name)}}}"
