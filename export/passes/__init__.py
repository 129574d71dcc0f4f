"""Passes over graphs, and for each target the list of those that bring the canonical graph to what its file holds.

A pass changes the model in place and returns how often. A list is read by the target's writer and by what judges a
network for that target, so both see one graph: a new pass is its own file and one line here. The entries name module
and function; the modules import onnx-ir, so whatever has to start light imports this package where it uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from bnn_itrd.export.passes import (
    batchnorm,
    clips,
    fuse,
    global_pooling,
    integers,
    lower_binary,
    pack_bits,
    prelu,
    reshapes,
)
from bnn_itrd.export.passes.channels_last import nhwc

__all__ = ["LCE", "ONNX", "PORTABLE", "QONNX", "UNPACKED", "Pass", "apply"]

Pass = Callable[[ir.Model], int]

_FOLDS: tuple[Pass, ...] = (
    integers.lower_quantizers,
    batchnorm.fold_batchnorm,
    batchnorm.fold_batchnorm_into_next,
    clips.drop_clips,
)

# The operations of format.md. Chains are made of the written file: the replay has to see every sign before.
ONNX: tuple[Pass, ...] = (
    *_FOLDS,
    prelu.merge_prelu,
    nhwc.channels_last,
    fuse.fuse,
    prelu.split_prelu,
)

# Standard operations alone, with 32 bits and with 1 bit for a binary weight.
UNPACKED: tuple[Pass, ...] = (*_FOLDS, lower_binary.lower_binary)
PORTABLE: tuple[Pass, ...] = (*UNPACKED, pack_bits.pack_signs)

# What is translated to a .tflite file, node by node.
LCE: tuple[Pass, ...] = _FOLDS

# What is written as QONNX, node by node, and what `check_fpga` judges: scale, BatchNorm and signs stay apart. The
# writing itself is not among the passes: it refuses networks of which the check has to say all that is wrong.
QONNX: tuple[Pass, ...] = (
    batchnorm.fold_batchnorm_into_next,
    clips.drop_clips,
    reshapes.quantise_before_reshapes,
    global_pooling.write_global_pooling,
    reshapes.write_flattenings,
)


def apply(model: ir.Model, passes: Sequence[Pass]) -> ir.Model:
    """Applies the passes in their order, in place; returns the model."""
    for step in passes:
        step(model)
    return model
