"""`to_onnx` writes a network as one .onnx file, with 1 bit per binary weight, which a stock onnxruntime runs."""

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
    """Puts the normalisation of uint8 images into the graph: cast, / 255, - mean, / std, as for training."""
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
    """Rewrites the canonical graph, in place, with the operations of docs/reference/format.md; returns it.

    normalization: (mean, std), which the graph then applies to uint8 images itself.
    """
    from bnn_itrd.export import passes

    passes.apply(model, passes.ONNX)
    if normalization is not None:
        _bake(model, *normalization)
    return model


def portable(model: ir.Model, *, packed: bool = True, normalization: Normalization | None = None) -> ir.Model:
    """Rewrites the canonical graph, in place, with standard ONNX operations alone; returns it.

    packed: stores a binary weight as 1 bit and not as a float. normalization: (mean, std), which the graph then applies
    to uint8 images itself. Raises ExportError where the signs of a layer are not constants.

    >>> graph = portable(canonical(network), packed=False).graph
    >>> [node.op_type for node in graph]
    ['GreaterOrEqual', 'Where', 'Conv', 'Round', 'Mul', 'Reshape', 'Gemm']
    """
    from bnn_itrd.export import passes

    passes.apply(model, passes.PORTABLE if packed else passes.UNPACKED)
    if normalization is not None:
        _bake(model, *normalization)
    return model


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the metadata as strings: a string as it is, everything else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def to_proto(model: ir.Model, metadata: dict[str, str]) -> onnx.ModelProto:
    """Returns the graph, without its nodes' metadata, as an ONNX model with functions; onnx's checker accepts it."""
    import onnx
    import onnx_ir as ir

    for node in model.graph:
        node.metadata_props.clear()
        for output in node.outputs:
            # onnxruntime infers the sizes behind standard operations, but not behind those of the format.
            if not output.is_graph_output() and node.domain != DOMAIN:
                output.shape = output.type = None
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    proto = ir.to_proto(model)
    proto.functions.extend(function_bodies(node.op_type for node in model.graph if node.domain == DOMAIN))
    onnx.checker.check_model(proto)
    return proto


def _inputs(shape: tuple[int, ...], baked: Normalization | None) -> tuple[np.ndarray, Tensor]:
    """Returns a few random images, as the file takes them and as the network takes them."""
    if baked is None:
        images = random_images(CHECKED_IMAGES, shape)
        return images.numpy(), images
    source = np.random.default_rng(0).integers(0, 256, (CHECKED_IMAGES, *shape), np.uint8)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in baked)
    return source, (torch.from_numpy(source).float() / 255 - mean) / std


def _check_file(path: Path, source: np.ndarray, classes: Sequence[str] | None) -> None:
    """Opens and runs the file. Raises ExportError where that fails, ValueError on another number of classes."""
    logits = predict_file(session(path), source)
    if not np.isfinite(logits).all():
        raise ExportError("the network gives logits that are not finite: train it again; nothing was written")
    if classes is not None and logits.shape[-1] != len(classes):
        raise ValueError(f"classes has {len(classes)} names, and the network gives {logits.shape[-1]} logits")


def _lower(
    graph: ir.Model, *, functions: bool, packed: bool, normalization: Normalization | None
) -> list[tuple[str, str]]:
    """Rewrites the canonical graph as the file's; returns (path of the layer, name of the value) of each sign."""
    from bnn_itrd.export.passes.channels_last.binary import layer_signs
    from bnn_itrd.export.passes.lower_binary import lowered_signs

    if functions:
        return layer_signs(native(graph, normalization=normalization))
    return lowered_signs(portable(graph, packed=packed, normalization=normalization))


def _with_chains(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy in which binary layers in a row are chains."""
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

    functions: binary layers are model-local functions, which the native library replaces (format.md), and with `chains`
    those in a row are one function; False writes standard operations alone, for tools that do not know functions.
    packed: without functions, a binary weight takes 1 bit and not 32; the results are the same bit for bit.
    The input ``images`` is (batch, c, h, w), float32, normalised. With `bake_normalization` it is uint8, and the file
    itself divides by 255 and applies `normalization` = (mean, std), one value per channel. The output is ``logits``
    (batch, classes). metadata: entries besides classes, mean, std, input_shape, versions and a checksum, as JSON.
    A temporary file is checked, a few images sign by sign against the network (see `replay`), and then takes its
    place, so that an older file is replaced whole or not at all.
    Raises ValueError on arguments that do not fit, FileNotFoundError without the folder, OSError where the file cannot
    be written, ExportError on a network that cannot be exported.

    >>> session(to_onnx(network, "plain.onnx", functions=False)).get_inputs()[0].shape
    ['batch', 3, 4, 4]
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
    # The replay compares every sign, and the signs inside a chain are not values of the graph.
    written_proto = _with_chains(proto) if functions and chains else proto

    source, images = _inputs(shape, baked)
    with replacing(file, seal(written_proto.SerializeToString())) as written:
        _check_file(written, source, classes)
        check_function(replay(model, proto, signs, source=source, images=images, integers=integers))
    return file
