"""Passes, which are functions that rewrite a network's graph, and the list of passes for each kind of exported file.

A pass changes the graph in place and returns the number of changes. Applied to the canonical graph in order, a list
gives the graph that is written to the file. A new pass is a file in this folder and an entry in the lists below. The
passes import onnx-ir, which is slow, so a program that must start fast imports this package inside a function.
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

# For files with the operations of docs/reference/format.md. Chains are made later, in the finished ONNX file, because
# the check against the network must see every sign, and the signs inside a chain cannot be seen.
ONNX: tuple[Pass, ...] = (
    *_FOLDS,
    prelu.merge_prelu,
    nhwc.channels_last,
    fuse.fuse,
    prelu.split_prelu,
)

# For files with standard ONNX operations only. UNPACKED stores a binary weight in 32 bits, PORTABLE in 1.
UNPACKED: tuple[Pass, ...] = (*_FOLDS, lower_binary.lower_binary)
PORTABLE: tuple[Pass, ...] = (*UNPACKED, pack_bits.pack_signs)

# For .tflite files: each node of the resulting graph is then translated to operations of TFLite and LCE.
LCE: tuple[Pass, ...] = _FOLDS

# For QONNX files and for `check_fpga`: scale, BatchNorm and signs stay separate nodes. The translation to QONNX that
# follows is not a pass because it stops at the first error, and `check_fpga` has to report all of them.
QONNX: tuple[Pass, ...] = (
    batchnorm.fold_batchnorm_into_next,
    clips.drop_clips,
    reshapes.quantise_before_reshapes,
    global_pooling.write_global_pooling,
    reshapes.write_flattenings,
)


def apply(model: ir.Model, passes: Sequence[Pass]) -> ir.Model:
    """Applies the passes to the graph one after the other, in place; returns the same `model`."""
    for step in passes:
        step(model)
    return model
