"""Text of the ONNX functions for binary and float convolutions, written with standard operations.

A binary convolution needs exact integer sums. ``ConvInteger`` would be 20 times slower than the two ways used here. If
the result is floats, Gather collects the windows as rows (im2col), and MatMulInteger with zero point 1 multiplies them
with the weights. If the sum is compared with a threshold, QLinearConv has minus the threshold as its int32 bias and a
small output scale, so that its 8-bit output saturates at the codes of the two signs. onnxruntime computes what depends
only on weights and attributes, such as the unpacked weights, once when it loads the file. `input_size` is an attribute
because onnxruntime does not compute the shape of a tensor with an unknown batch size in advance.
"""

from __future__ import annotations

from bnn_itrd.export.ort.sign_bodies import SIGN_STEPS, ZERO_STEPS

__all__ = ["binary_convolution_function", "float_convolution_function"]

_WINDOW = "input_size, channels, kernel_shape, strides, pads, dilations"
_ATTRIBUTES = f"{_WINDOW}, group, padding_value"

_CLIP = """
  low = Constant <value_float: float = @low> ()
  high = Constant <value_float: float = @high> ()
  y = Clip ({0}, low, high)
"""

# This expression is used because the operation PRelu takes onnxruntime twice as long.
_RPRELU = """
  moved = Add ({0}, before)
  origin = Constant <value = float {{0.}}> ()
  above = Relu (moved)
  below = Min (moved, origin)
  sloped = Mul (below, slope)
  bent = Add (above, sloped)
  y = Add (bent, after)
"""

_PADS = """
  i0 = Constant <value_ints = [0]> ()
  i1 = Constant <value_ints = [1]> ()
  i2 = Constant <value_ints = [2]> ()
  i3 = Constant <value_ints = [3]> ()
  i4 = Constant <value_ints = [4]> ()
  rest = Constant <value_ints = [-1]> ()
  kernel = Constant <value_ints: ints = @kernel_shape> ()
  pads = Constant <value_ints: ints = @pads> ()
  top_left = Slice (pads, i0, i2)
  bottom_right = Slice (pads, i2, i4)
  pad_sizes = Concat <axis = 0> (i0, top_left, i0, i0, bottom_right, i0)
  u = Constant <value_int = 1> ()
"""

_COMMON = (
    _PADS
    + """
  zero_point = Constant <value = uint8 {1}> ()
  padding_value = Constant <value_int: int = @padding_value> ()
  padding_code = Add (padding_value, u)
  padding = Cast <to = 2> (padding_code)
  padded = Pad (s, pad_sizes, padding)
"""
)

# Steps from packed weights (kh, kw, bytes, o), lowest bit first, to signs (kh * kw, i, o), int32. Shifts are not used,
# because runtimes disagree on a bit that is shifted out of its byte.
_UNPACK = """
  masks = Constant <value = uint8[8, 1] {1, 2, 4, 8, 16, 32, 64, 128}> ()
  apart = Unsqueeze (w, i3)
  masked = BitwiseAnd (apart, masks)
  bits = Cast <to = 9> (masked)
  outputs = Shape <start = 3, end = 4> (w)
  taps = ReduceProd <keepdims = 1> (kernel)
  channels_number = Constant <value_int: int = @channels> ()
  groups = Constant <value_int: int = @group> ()
  all_channels = Unsqueeze (channels_number, i0)
  channels = Div (all_channels, groups)
  planes = Concat <axis = 0> (taps, rest, outputs)
  by_tap = Reshape (bits, planes)
  kept = Slice (by_tap, i0, channels, i1)
  whole = Cast <to = 6> (kept)
  two = Constant <value = int32 {2}> ()
  one = Constant <value = int32 {1}> ()
  doubled = Mul (whole, two)
  signs = Sub (doubled, one)
"""

# Steps that compute, for each window and kernel position (oh, ow, kh * kw), the index of the pixel that it reads in the
# padded image.
_INDEX = """
  z = Constant <value_int = 0> ()
  input_size = Constant <value_ints: ints = @input_size> ()
  border = Add (top_left, bottom_right)
  size = Add (input_size, border)
  stride = Constant <value_ints: ints = @strides> ()
  dilation = Constant <value_ints: ints = @dilations> ()
  steps = Sub (kernel, i1)
  reach = Mul (steps, dilation)
  free = Sub (size, reach)
  free_less = Sub (free, i1)
  moves = Div (free_less, stride)
  out_size = Add (moves, i1)
  oh = Gather (out_size, z)
  ow = Gather (out_size, u)
  kh = Gather (kernel, z)
  kw = Gather (kernel, u)
  sh = Gather (stride, z)
  sw = Gather (stride, u)
  dh = Gather (dilation, z)
  dw = Gather (dilation, u)
  row_length = Gather (size, u)
  window_y = Range (z, oh, u)
  window_x = Range (z, ow, u)
  tap_y = Range (z, kh, u)
  tap_x = Range (z, kw, u)
  from_y = Mul (window_y, sh)
  from_x = Mul (window_x, sw)
  by_y = Mul (tap_y, dh)
  by_x = Mul (tap_x, dw)
  axes_oh = Constant <value_ints = [1, 2, 3]> ()
  axes_ow = Constant <value_ints = [0, 2, 3]> ()
  axes_kh = Constant <value_ints = [0, 1, 3]> ()
  axes_kw = Constant <value_ints = [0, 1, 2]> ()
  at_oh = Unsqueeze (from_y, axes_oh)
  at_ow = Unsqueeze (from_x, axes_ow)
  at_kh = Unsqueeze (by_y, axes_kh)
  at_kw = Unsqueeze (by_x, axes_kw)
  row = Add (at_oh, at_kh)
  row_start = Mul (row, row_length)
  column = Add (at_ow, at_kw)
  offset = Add (row_start, column)
  index_shape = Concat <axis = 0> (out_size, taps)
  index = Reshape (offset, index_shape)
"""

# Steps that collect each window as a row, (n, oh, ow, kh * kw * c). The number of pixels is computed instead of -1,
# because Reshape cannot infer a -1 for an empty batch.
_ROWS = """
  area = ReduceProd <keepdims = 1> (size)
  flat = Concat <axis = 0> (i0, area, all_channels)
  pixels = Reshape (padded, flat)
  gathered = Gather <axis = 1> (pixels, index)
  depth = Mul (taps, all_channels)
  rows = Concat <axis = 0> (rest, out_size, depth)
  a = Reshape (gathered, rows)
  b_shape = Concat <axis = 0> (depth, outputs)
"""

_MATMUL_SUM = (
    _ROWS
    + """
  b_whole = Reshape (signs, b_shape)
  b = Cast <to = 3> (b_whole)
  dot = MatMulInteger (a, b, zero_point)
  acc = Cast <to = 1> (dot)
"""
)

# Steps of a float convolution. It is a matrix product instead of a Conv because the order in which the product adds is
# known (docs/reference/format.md), so the native operator can compute the same bits.
_FLOAT_CONV = (
    _PADS
    + """
  padded = Pad (nhwc, pad_sizes)
  taps = ReduceProd <keepdims = 1> (kernel)
  channels_number = Constant <value_int: int = @channels> ()
  all_channels = Unsqueeze (channels_number, i0)
  outputs = Shape <start = 3, end = 4> (w)
"""
    + _INDEX
    + _ROWS
    + """
  b = Reshape (w, b_shape)
  dot = MatMul (a, b)
"""
)

_OIHW = """
  hwio = Concat <axis = 0> (kernel, channels, outputs)
  by_position = Reshape (signs, hwio)
  oihw = Transpose <perm = [3, 2, 0, 1]> (by_position)
"""

# Steps of a binary convolution with groups. A Conv in floats computes the sums, which are exact too. Round does not
# change them, but it keeps onnxruntime's optimiser from multiplying the Conv's weights by the scale, after which every
# product in a sum would be rounded.
_GROUPED_SUM = (
    _OIHW
    + """
  codes = Cast <to = 1> (padded)
  zero_code = Constant <value = float {1.}> ()
  values = Sub (codes, zero_code)
  nchw = Transpose <perm = [0, 3, 1, 2]> (values)
  float_weights = Cast <to = 1> (oihw)
  sums = Conv <strides: ints = @strides, dilations: ints = @dilations, group: int = @group> (nchw, float_weights)
  whole_sums = Round (sums)
  acc = Transpose <perm = [0, 2, 3, 1]> (whole_sums)
"""
)

_THRESHOLD = (
    _OIHW
    + """
  weights = Cast <to = 3> (oihw)
  nchw = Transpose <perm = [0, 3, 1, 2]> (padded)
  unit = Constant <value = float {1.}> ()
  steep = Constant <value = float {0.00390625}> ()
  plus = Constant <value = uint8 {2}> ()
  centred = Constant <value = int8 {0}> ()
  bias = Neg (threshold)
  saturated = QLinearConv <strides: ints = @strides, dilations: ints = @dilations, group: int = @group>
    (nchw, unit, zero_point, weights, unit, centred, steep, plus, bias)
  codes = Transpose <perm = [0, 2, 3, 1]> (saturated)
  none = Constant <value = uint8 {0}> ()
  t = Clip (codes, none, plus)
"""
)


def _float_body(name: str, grouped: bool) -> tuple[str, str, str, str]:
    """Returns the text of a binary convolution with a float result, as (inputs, outputs, more attributes, steps).

    name: of the operation; grouped: whether the convolution has groups.
    """
    add = "Add" in name
    body = _COMMON + _UNPACK + (_GROUPED_SUM if grouped else _INDEX + _MATMUL_SUM)
    body += "  scaled = Mul (acc, scale)\n"
    inputs, outputs, more, end = _end(name, "scaled", ["bias", *(["residual"] if add else [])])
    return f"s, w, scale, {inputs}", outputs, more, body + end


def float_convolution_function(name: str) -> str:
    """Returns the ONNX function for a float convolution in ONNX's text syntax.

    Its input is (n, c, h, w), or (n, h, w, c) if the operation's name begins with ``Inner``.
    """
    inputs, outputs, more, end = _end(name, "dot", ["bias"])
    inner = name.startswith("Inner")
    to_nhwc = "" if inner else "  nhwc = Transpose <perm = [0, 2, 3, 1]> (x)"
    body = f"{to_nhwc}{_FLOAT_CONV}{end}"
    return f"{name} <{_WINDOW}{more}> ({'nhwc' if inner else 'x'}, w, {inputs}) => ({outputs}) {{{body}}}"


def _end(name: str, value: str, added: list[str]) -> tuple[str, str, str, str]:
    """Returns the text of the operations behind a convolution's sum, as (inputs, outputs, more attributes, steps).

    name: the convolution's name, such as ``BinaryConvAddClipSign``, which tells the operations; value: name of the sum
    in the text; added: names of tensors that are added to it first. The outputs are y (floats) and, with a sign, t.
    """
    clip, rprelu, rsign = "Clip" in name, "RPReLU" in name, name.endswith("RSign")
    body, inputs = "", list(added)
    for i, other in enumerate(added):
        last = i == len(added) - 1 and not clip and not rprelu
        body += f"  {'y' if last else f'v{i}'} = Add ({value}, {other})\n"
        value = f"v{i}"
    if clip:
        body += _CLIP.format(value)
    if rprelu:
        body += _RPRELU.format(value)
        inputs += ["before", "slope", "after"]
    if rsign:
        body += SIGN_STEPS.format("y", "t", "level")
        inputs.append("level")
    elif name.endswith("Sign"):
        body += ZERO_STEPS.format("y") + SIGN_STEPS.format("y", "t", "y_zero")
    outputs = "y, t" if name.endswith("Sign") else "y"
    return ", ".join(inputs), outputs, ", low, high" if clip else "", body


def binary_convolution_function(name: str) -> str:
    """Returns the ONNX function for a binary convolution, such as ``BinaryConvThreshold``, in ONNX's text syntax."""
    if name.endswith("Threshold"):
        inputs, outputs, more, body = "s, w, threshold", "t", "", _COMMON + _UNPACK + _THRESHOLD
    else:
        inputs, outputs, more, body = _float_body(name, name.startswith("Grouped"))
    return f"{name} <{_ATTRIBUTES}{more}> ({inputs}) => ({outputs}) {{{body}}}"
