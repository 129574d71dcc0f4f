"""`to_onnx` writes a network as one .onnx file, with 1 bit per binary weight, which onnxruntime 1.20 or later runs."""

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
    """Adds the normalisation to the graph, which then takes uint8 images: ``(images / 255 - mean) / std``."""
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
    """Rewrites the canonical graph with the operations of docs/reference/format.md, in place; returns it.

    The native library computes these operations. normalization: (mean, std), which the graph then applies itself, to
    uint8 images.
    """
    from bnn_itrd.export import passes

    passes.apply(model, passes.ONNX)
    if normalization is not None:
        _bake(model, *normalization)
    return model


def portable(model: ir.Model, *, packed: bool = True, normalization: Normalization | None = None) -> ir.Model:
    """Rewrites the canonical graph with standard ONNX operations only, in place; returns it.

    packed: whether a binary weight is stored as 1 bit instead of a float; normalization: (mean, std), which the graph
    then applies itself, to uint8 images. Raises ExportError if a layer's binary weights are not constants.

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
    """Returns metadata as ONNX stores them, as strings: a string stays as it is, any other value becomes JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def to_proto(model: ir.Model, metadata: dict[str, str]) -> onnx.ModelProto:
    """Returns the graph as an ONNX model that can be saved, after onnx's checker has accepted it.

    The model contains a function that defines each operation of the domain bnn_itrd by standard operations, so that
    every runtime can run it. metadata: entries for the file. The metadata of nodes is removed from `model`.
    """
    import onnx
    import onnx_ir as ir

    for node in model.graph:
        node.metadata_props.clear()
        for output in node.outputs:
            # onnxruntime infers the output shapes of standard operations, but not those of the domain bnn_itrd.
            if not output.is_graph_output() and node.domain != DOMAIN:
                output.shape = output.type = None
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    proto = ir.to_proto(model)
    proto.functions.extend(function_bodies(node.op_type for node in model.graph if node.domain == DOMAIN))
    onnx.checker.check_model(proto)
    return proto


def _inputs(shape: tuple[int, ...], baked: Normalization | None) -> tuple[np.ndarray, Tensor]:
    """Returns a few random images twice: as the file takes them, and as the network takes them.

    baked: the (mean, std) that the file applies itself to uint8 images, or None.
    """
    if baked is None:
        images = random_images(CHECKED_IMAGES, shape)
        return images.numpy(), images
    source = np.random.default_rng(0).integers(0, 256, (CHECKED_IMAGES, *shape), np.uint8)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in baked)
    return source, (torch.from_numpy(source).float() / 255 - mean) / std


def _check_file(path: Path, source: np.ndarray, classes: Sequence[str] | None) -> None:
    """Opens a new file in onnxruntime and runs it on `source`.

    Raises ExportError if that fails or a logit is not finite, ValueError if there are not as many logits as classes.
    """
    logits = predict_file(session(path), source)
    if not np.isfinite(logits).all():
        raise ExportError("the network gives logits that are not finite: train it again; nothing was written")
    if classes is not None and logits.shape[-1] != len(classes):
        raise ValueError(
            f"classes must have one name per logit, got {len(classes)} names for {logits.shape[-1]} logits"
        )


def _lower(
    graph: ir.Model, *, functions: bool, packed: bool, normalization: Normalization | None
) -> list[tuple[str, str]]:
    """Rewrites the canonical graph for the file, in place; returns which tensors hold the binary layers' input signs.

    The result has (layer's path, tensor's name) for each layer. The arguments are those of `to_onnx`.
    """
    from bnn_itrd.export.passes.channels_last.binary import layer_signs
    from bnn_itrd.export.passes.lower_binary import lowered_signs

    if functions:
        return layer_signs(native(graph, normalization=normalization))
    return lowered_signs(portable(graph, packed=packed, normalization=normalization))


def _with_chains(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of the model in which consecutive binary layers are joined to chains (see `passes.chains`)."""
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
    """Writes the network as one ONNX file (opset 18, IR 8), which onnxruntime 1.20 or later runs; returns its path.

    input_shape: of one image, by default ``model.input_shape``. The input is normalised float32 (batch, c, h, w). With
    `bake_normalization` it is uint8, and the file computes ``(images / 255 - mean) / std`` with `normalization` =
    (mean, std), one value per channel. classes, normalization and metadata (further entries) are stored in the file.
    functions: write a binary layer as an ONNX function, which the native library replaces by faster code
    (docs/reference/format.md); chains: join consecutive layers to one function. functions=False writes standard
    operations only, for tools that do not know functions; then packed=False stores a binary weight as a float.
    A temporary file is compared with the network sign by sign on a few images and then replaces an older file.
    Raises ValueError on arguments that do not fit, FileNotFoundError if the folder does not exist, OSError if the file
    cannot be written, ExportError on a network that cannot be exported.

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
    # The comparison below needs the signs of every layer, and those inside a chain cannot be read, so it runs the model
    # without chains.
    written_proto = _with_chains(proto) if functions and chains else proto

    source, images = _inputs(shape, baked)
    with replacing(file, seal(written_proto.SerializeToString())) as written:
        _check_file(written, source, classes)
        check_function(replay(model, proto, signs, source=source, images=images, integers=integers))
    return file
