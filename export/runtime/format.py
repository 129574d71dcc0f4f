"""The vocabulary of the file format (docs/reference/format.md): the domain, its versions and its operations."""

from __future__ import annotations

__all__ = ["CONVOLUTIONS", "DOMAIN", "FLOAT_CONVOLUTIONS", "FORMAT_VERSION", "POOLINGS", "SIGNS", "VERSION"]


DOMAIN = "bnn_itrd"
# Of the domain.
VERSION = 1
# Of the files this package writes; a file with a larger one is refused. One more with every new operation.
FORMAT_VERSION = 3

# Of a float by itself: from 0 on, or from a level of each channel on.
SIGNS = ("Sign", "RSign")

# What may follow a convolution's floats.
_ENDS = tuple(f"{activation}{sign}" for activation in ("", "Clip", "RPReLU") for sign in ("", *SIGNS))
_FLOAT_FORMS = tuple(f"BinaryConv{add}{end}" for add in ("", "Add") for end in _ENDS)
# Every convolution of the format, in both forms.
CONVOLUTIONS = tuple(f"{group}{form}" for group in ("", "Grouped") for form in (*_FLOAT_FORMS, "BinaryConvThreshold"))

# Of floats with a small window: the first layer, images (n, c, h, w), and between binary layers, (n, h, w, c).
FLOAT_CONVOLUTIONS = tuple(f"{inner}FloatConv{end}" for inner in ("", "Inner") for end in _ENDS)

# Poolings whose windows tile the image, without and with channels of zeros around the result.
POOLINGS = ("AveragePool", "AveragePoolPad", "MaxPool", "MaxPoolPad")
