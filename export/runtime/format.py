"""The names of the file format (docs/reference/format.md): its domain, versions and operations."""

from __future__ import annotations

__all__ = ["CONVOLUTIONS", "DOMAIN", "FLOAT_CONVOLUTIONS", "FORMAT_VERSION", "POOLINGS", "SIGNS", "VERSION"]


DOMAIN = "bnn_itrd"
# Version of the domain.
VERSION = 1
# Version of the files that this package writes; a file with a higher one is refused. Each new operation raises it.
FORMAT_VERSION = 3

# Signs of floats: +1 from 0 on, or from a level per channel on.
SIGNS = ("Sign", "RSign")

# Operations that may be fused behind a convolution's float result.
_ENDS = tuple(f"{activation}{sign}" for activation in ("", "Clip", "RPReLU") for sign in ("", *SIGNS))
_FLOAT_FORMS = tuple(f"BinaryConv{add}{end}" for add in ("", "Add") for end in _ENDS)
# Every convolution of the format, in both forms.
CONVOLUTIONS = tuple(f"{group}{form}" for group in ("", "Grouped") for form in (*_FLOAT_FORMS, "BinaryConvThreshold"))

# Float convolutions with a small window: of the first layer, on (n, c, h, w), and between binary layers, (n, h, w, c).
FLOAT_CONVOLUTIONS = tuple(f"{inner}FloatConv{end}" for inner in ("", "Inner") for end in _ENDS)

# Poolings whose windows tile the image, without and with channels of zeros added to the result.
POOLINGS = ("AveragePool", "AveragePoolPad", "MaxPool", "MaxPoolPad")
