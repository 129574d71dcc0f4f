"""The portable artefact: one .onnx file of standard operations, 1 bit per binary weight."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.export.checks.file_metadata import file_metadata
from bnn_itrd.export.checks.replay import replay
from bnn_itrd.export.checks.writing import (
    CHECKED_IMAGES,
    Normalization,
    check_folder,
    check_function,
    check_normalization,
    replacing,
)
from bnn_itrd.export.ort.functions import function_bodies
from bnn_itrd.export.runtime.checksum import seal
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.format import DOMAIN
from bnn_itrd.export.runtime.predict import predict_file
from bnn_itrd.export.runtime.sessions import FORMAT_VERSION, session
from bnn_itrd.export.tracing.network_copy import unwrap
from bnn_itrd.export.tracing.trace import canonical, check_input_shape, random_images

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["native", "portable", "texts", "to_onnx", "to_proto"]


def _bake(model: ir.Model, mean: Sequence[float], std: Sequence[float]) -> None:
    """uint8 images in: cast, / 255, - mean, / std, one by one as the data pipeline does it."""
    import onnx_ir as ir

    from bnn_itrd.export.graph import add_initializer, insert

    images = model.graph.inputs[0]
    first = next(iter(model.graph))
    readers = list(images.uses())
    y = insert(model, first, "Cast", [images], {"to": ir.DataType.FLOAT.value})
    for op, name, values in (("Div", "white", [255.0]), ("Sub", "mean", mean), ("Div", "std", std)):
        array = np.array(values, np.float32).reshape(-1, 1, 1)
        y = insert(model, first, op, [y, add_initializer(model, f"normalization.{name}", array)])
    for node, index in readers:
        node.replace_input_with(index, y)
    images.type = ir.TensorType(ir.DataType.UINT8)


def native(model: ir.Model, *, normalization: Normalization | None = None) -> ir.Model:
    """The canonical graph in the operations of docs/reference/format.md, in place; `normalization` is baked in."""
    from bnn_itrd.export import passes

    passes.apply(model, passes.ONNX)
    if normalization is not None:
        _bake(model, *normalization)
    return model


def portable(model: ir.Model, *, packed: bool = True, normalization: Normalization | None = None) -> ir.Model:
    """The canonical graph as standard ONNX alone, in place: folds, lowers, packs, and bakes `normalization` in."""
    from bnn_itrd.export import passes

    passes.apply(model, passes.PORTABLE if packed else passes.UNPACKED)
    if normalization is not None:
        _bake(model, *normalization)
    return model


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as strings: text as it is, everything else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def to_proto(model: ir.Model, metadata: dict[str, str]) -> onnx.ModelProto:
    """The graph as it is written: without notes on nodes, with the functions it calls; checked by onnx."""
    import onnx
    import onnx_ir as ir

    for node in model.graph:
        node.metadata_props.clear()
        for output in node.outputs:
            # Sizes in between follow from the operations; onnxruntime works them out, if not behind our own.
            if not output.is_graph_output() and node.domain != DOMAIN:
                output.shape = output.type = None
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    proto = ir.to_proto(model)
    proto.functions.extend(function_bodies(node.op_type for node in model.graph if node.domain == DOMAIN))
    onnx.checker.check_model(proto)
    return proto


def _inputs(shape: tuple[int, ...], baked: Normalization | None) -> tuple[np.ndarray, Tensor]:
    """A few random images as the file takes them, and as the network does."""
    if baked is None:
        images = random_images(CHECKED_IMAGES, shape)
        return images.numpy(), images
    source = np.random.default_rng(0).integers(0, 256, (CHECKED_IMAGES, *shape), np.uint8)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in baked)
    return source, (torch.from_numpy(source).float() / 255 - mean) / std


def _check_file(path: Path, source: np.ndarray, classes: Sequence[str] | None) -> None:
    """Opens and runs the file as a user would. Raises ExportError, or ValueError on the number of classes."""
    logits = predict_file(session(path), source)
    if not np.isfinite(logits).all():
        raise ExportError("the network gives logits that are not finite: its weights are broken")
    if classes is not None and logits.shape[-1] != len(classes):
        raise ValueError(f"classes has {len(classes)} names, and the network gives {logits.shape[-1]} logits")


def _lower(
    graph: ir.Model, *, functions: bool, packed: bool, normalization: Normalization | None
) -> list[tuple[str, str]]:
    """Brings the canonical graph to what the file holds; (path of the layer, name of the value) of each sign in it."""
    from bnn_itrd.export.passes.channels_last.binary import layer_signs
    from bnn_itrd.export.passes.lower_binary import lowered_signs

    if functions:
        return layer_signs(native(graph, normalization=normalization))
    return lowered_signs(portable(graph, packed=packed, normalization=normalization))


def _with_chains(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which operations in a row are chains."""
    from bnn_itrd.export.passes.chains import chain

    copy = type(proto)()
    copy.CopyFrom(proto)
    chain(copy)
    return copy


def to_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    normalization: Normalization | None = None,
    bake_normalization: bool = False,
    classes: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    functions: bool = True,
    chains: bool = True,
    packed: bool = True,
) -> Path:
    """Writes the network as one ONNX file (opset 18, IR 8) that a stock onnxruntime runs; returns its path.

    Binary layers are model-local functions of standard operations, which the native library replaces where it is
    registered (format.md); `chains` False leaves out the functions around several of them. `functions` False:
    standard operations alone, binary layers as float convolutions, for tools that know no functions; there `packed`
    False stores 32 bits per binary weight, same results bit for bit.
    Input ``images`` (batch, c, h, w), float32, normalised; with `bake_normalization` uint8, and the file
    itself divides by 255 and applies `normalization` = (mean, std), one value per channel. Output
    ``logits``. Metadata: classes, mean, std, input_shape, format_version, versions, a checksum, and what `metadata`
    adds (text as it is, else JSON).
    The file is checked beside its place (onnx's checker, a session, a few images sign by sign against the
    network, see `replay`), then moved there: a file that was there before is replaced whole or not at all.
    Raises ValueError on arguments that do not fit, FileNotFoundError where the folder does not exist, OSError
    where it cannot be written, ExportError on a network that cannot be exported.
    """
    import onnx

    from bnn_itrd.export.passes.integers import quantized_values

    file = Path(path)
    shape = check_input_shape(unwrap(model), input_shape)
    if bake_normalization and normalization is None:
        raise ValueError("bake_normalization=True needs normalization=(mean, std)")
    mean_std = check_normalization(normalization, shape)
    check_folder(file)
    values = file_metadata(
        {"format_version": FORMAT_VERSION},
        input_shape=shape,
        classes=classes,
        mean_std=mean_std,
        own={"normalization_baked": bake_normalization if mean_std else None, "onnx_version": onnx.__version__},
        added=metadata,
    )
    baked = mean_std if bake_normalization else None
    graph = canonical(model, input_shape=shape)
    signs = _lower(graph, functions=functions, packed=packed, normalization=baked)
    integers = quantized_values(graph)
    proto = to_proto(graph, texts(values))
    # The replay looks at every sign, and inside a chain there are none to see.
    written_proto = _with_chains(proto) if functions and chains else proto

    source, images = _inputs(shape, baked)
    with replacing(file, seal(written_proto.SerializeToString())) as written:
        _check_file(written, source, classes)
        check_function(replay(model, proto, signs, source=source, images=images, integers=integers))
    return file
