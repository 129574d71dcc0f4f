"""The names and versions of the operations in exported files (docs/reference/format.md).

An operation's name says what it computes: GroupedBinaryConvAddClipSign is a convolution of +1 and -1 with several
groups, whose result is scaled, has a residual added, is clipped, and is returned with its signs.
"""

from __future__ import annotations

__all__ = ["CONVOLUTIONS", "DOMAIN", "FLOAT_CONVOLUTIONS", "FORMAT_VERSION", "POOLINGS", "SIGNS", "VERSION"]


# The domain, which is ONNX's word for a namespace of operations.
DOMAIN = "bnn_itrd"
# Version of the domain, which a file states for each domain it uses.
VERSION = 1
# Version of the format in which this package writes files. A file with a higher one is refused, because it may have
# operations that this package does not know: each new operation raises the version.
FORMAT_VERSION = 3

# Operations that turn floats into signs: +1 where a float is at least 0, or at least a level per channel, else -1.
SIGNS = ("Sign", "RSign")

# What can follow a convolution's float result within the same operation: an activation, and signs as a second output.
_ENDS = tuple(f"{activation}{sign}" for activation in ("", "Clip", "RPReLU") for sign in ("", *SIGNS))
_FLOAT_FORMS = tuple(f"BinaryConv{add}{end}" for add in ("", "Add") for end in _ENDS)
# Every binary convolution of the format, with one group and with several. BinaryConvThreshold returns signs alone: +1
# where the sum of +1 and -1 reaches the channel's threshold.
CONVOLUTIONS = tuple(f"{group}{form}" for group in ("", "Grouped") for form in (*_FLOAT_FORMS, "BinaryConvThreshold"))

# Convolutions of floats with a small window: FloatConv is the network's first layer and reads (n, c, h, w),
# InnerFloatConv stands between binary layers and reads (n, h, w, c).
FLOAT_CONVOLUTIONS = tuple(f"{inner}FloatConv{end}" for inner in ("", "Inner") for end in _ENDS)

# Poolings whose windows tile the image. With Pad, channels of zeros are added to the result.
POOLINGS = ("AveragePool", "AveragePoolPad", "MaxPool", "MaxPoolPad")
