"""Texts for the report of `check_fpga` that say what the user can do about a layer that FINN cannot map."""

from __future__ import annotations

__all__ = [
    "BINARY",
    "FIRST_LAST",
    "FLATTEN",
    "NORMALISE",
    "NORM_FIRST",
    "PADDING",
    "PER_CHANNEL",
    "RESIDUAL",
    "SHORTCUT",
]

FIRST_LAST = "let the first and last layer compute with integers: first_last_bits=8"
RESIDUAL = "quantise the residual stream: residual_bits=4"
PADDING = "train with a padding of -1: padding_value=-1"
SHORTCUT = "down-sample by a binary 1x1 convolution: shortcut='binary'"
BINARY = "train a binary student of this network: binary='recu'"
PER_CHANNEL = "use one value per channel"
FLATTEN = "reshape only to flatten: x.flatten(1)"
NORM_FIRST = "put the BatchNorm in front of the MaxPool (vgg_small: norm_before_pool=True) and one quantiser behind it"
NORMALISE = "normalise the images outside the network and pass to_qonnx(normalization=(mean, std))"
