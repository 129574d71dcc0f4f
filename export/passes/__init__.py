"""Passes, which rewrite a graph, and for each target the list that turns the canonical graph into that of its file.

A pass changes the model in place and returns the number of changes. The target's writer and its checks apply the same
list. A new pass is a file of its own and one line here. The modules import onnx-ir: code that must start fast imports
this package inside a function.
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

# The operations of format.md. Chains are made later, of the ONNX model: the replay has to see every sign before that.
ONNX: tuple[Pass, ...] = (
    *_FOLDS,
    prelu.merge_prelu,
    nhwc.channels_last,
    fuse.fuse,
    prelu.split_prelu,
)

# Standard operations alone: UNPACKED stores a binary weight in 32 bits, PORTABLE in 1.
UNPACKED: tuple[Pass, ...] = (*_FOLDS, lower_binary.lower_binary)
PORTABLE: tuple[Pass, ...] = (*UNPACKED, pack_bits.pack_signs)

# The graph that is translated to a .tflite file, node by node.
LCE: tuple[Pass, ...] = _FOLDS

# The graph that is written as QONNX, node by node, and that `check_fpga` checks: scale, BatchNorm and signs stay
# separate nodes. The writing is not a pass: it stops at the first fault, and the check has to report all of them.
QONNX: tuple[Pass, ...] = (
    batchnorm.fold_batchnorm_into_next,
    clips.drop_clips,
    reshapes.quantise_before_reshapes,
    global_pooling.write_global_pooling,
    reshapes.write_flattenings,
)


def apply(model: ir.Model, passes: Sequence[Pass]) -> ir.Model:
    """Applies the passes to the model in their order, in place; returns the model."""
    for step in passes:
        step(model)
    return model
