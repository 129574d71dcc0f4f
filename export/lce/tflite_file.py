"""`to_lce` writes a network as one .tflite file for LCE, with 1 bit per binary weight; it does not need TensorFlow."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from bnn_itrd.export.checks.file_metadata import file_metadata
from bnn_itrd.export.checks.replay import replay_recorded
from bnn_itrd.export.checks.writing import (
    CHECKED_IMAGES,
    Normalization,
    check_folder,
    check_function,
    check_normalization,
    replacing,
)
from bnn_itrd.export.lce.interpreter import as_stored, call_interpreter
from bnn_itrd.export.lce.network import to_flatbuffer
from bnn_itrd.export.lce.reader import LCE_FORMAT_VERSION, read_lce_model
from bnn_itrd.export.lce.schema import load_schema
from bnn_itrd.export.runtime.checksum import seal
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtimes import environments
from bnn_itrd.export.tracing.network_copy import unwrap
from bnn_itrd.export.tracing.trace import canonical, check_input_shape, random_images

if TYPE_CHECKING:
    from bnn_itrd.export.lce.tensor_layout import Watched
    from bnn_itrd.export.lce.translate import Translated

__all__ = ["to_lce"]


def _check_written(file: Path, translated: Translated, python: Path | None) -> None:
    """Reads a new file and raises ExportError if a binary layer is not LCE's operation, or an operation is missing.

    translated: the network that was written; python: an interpreter whose environment has LCE's schema.
    """
    model, _ = read_lce_model(file, python=python)
    names = [(code.customCode or b"").decode() for code in model.operatorCodes]
    graph = model.subgraphs[0]
    counted = Counter(names[operator.opcodeIndex] for operator in graph.operators)["LceBconv2d"]
    if counted != translated.expected or counted < translated.layers:
        raise ExportError(
            f"the file has {counted} binary operations, but the network's {translated.layers} binary layers need "
            f"{translated.expected}: report this network; nothing was written"
        )
    if len(graph.operators) != len(translated.network.operators):
        raise ExportError(
            f"the file has {len(graph.operators)} of the network's {len(translated.network.operators)} operations: "
            "report this network; nothing was written"
        )


def _recorded(values: np.ndarray, watched: Watched) -> Tensor:
    """Returns a tensor that LCE's interpreter computed, as signs or as integers, rearranged to PyTorch's layout.

    values: the tensor's numbers in the file's layout; watched: which tensor of the network it is.
    """
    from bnn_itrd.export.lce.tensor_layout import Image, reverse_array

    if isinstance(watched.form, Image):
        values = rearrange(reverse_array(values, watched.form), "n h w c -> n c h w")
    return torch.from_numpy(np.where(values >= 0, 1, -1).astype(np.float32) if watched.is_sign else values.copy())


def _check_function(
    model: nn.Module, translated: Translated, schema: ModuleType, python: Path, shape: tuple[int, ...], place: Path
) -> None:
    """Runs a file in LCE's interpreter and compares its signs and logits with the PyTorch network's; see `replay`.

    The file that is run is a copy at `place` that also returns the signs; shape: of one image. Raises ExportError if
    the values differ by more than rounding.
    """
    images = random_images(CHECKED_IMAGES, shape)
    watched = translated.network.model(schema, b"{}", watch=[entry.tensor for entry in translated.watched])
    try:
        place.write_bytes(to_flatbuffer(schema, watched))
        (logits, *recorded), _ = call_interpreter(python, place, as_stored(images.numpy()))
    finally:
        place.unlink(missing_ok=True)
    if not np.isfinite(logits).all():
        raise ExportError("the network gives logits that are not finite: train it again; nothing was written")
    decided = [
        (entry.path, _recorded(values, entry)) for entry, values in zip(translated.watched, recorded, strict=True)
    ]
    replayed = replay_recorded(model, decided, logits, images=images)
    check_function(replayed, where="in LCE's interpreter ")


def to_lce(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    normalization: Normalization | None = None,
    metadata: Mapping[str, Any] | None = None,
    python: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes the network as a .tflite file for Larq Compute Engine (LCE); returns its path.

    input_shape: of one image, by default ``model.input_shape``. The file's input is one normalised float32 image (1, h,
    w, c), whose batch axis the user may resize, and its output is the logits. A binary layer becomes LCE's operations
    LceQuantize and LceBconv2d, which include scale and BatchNorm; all other operations are TFLite's own. classes,
    normalization = (mean, std) and metadata (further entries) are stored in the file as JSON.
    An older file is replaced only when the new one has been checked: it must have all operations. If LCE's environment
    exists, or `python` names an interpreter that has LCE, the file is also run, and its signs and logits for a few
    images are compared with the network's.
    Raises ValueError on arguments that do not fit, FileNotFoundError if the folder does not exist, OSError if the file
    cannot be written, ExportError if larq-compute-engine, whose file schema is needed, is missing, or LCE cannot
    represent the network; the message names the layer and what to do.

    >>> to_lce(network, "student.tflite", classes=["cat", "dog"])  # doctest: +SKIP
    PosixPath('student.tflite')
    """
    from bnn_itrd.export.lce.translate import translate

    file = Path(path)
    shape = check_input_shape(unwrap(model), input_shape)
    mean_std = check_normalization(normalization, shape)
    check_folder(file)
    values = file_metadata(
        {"format_version": LCE_FORMAT_VERSION},
        input_shape=shape,
        classes=classes,
        mean_std=mean_std,
        own={"binary_layers": 0},  # The number is filled in below.
        added=metadata,
    )
    interpreter = environments.find("lce", python=python)
    schema = load_schema(interpreter)

    translated = translate(canonical(model, input_shape=shape))
    logits = translated.network.outputs[0].shape
    if classes is not None and logits[-1] != len(classes):
        raise ValueError(f"classes must have one name per logit, got {len(classes)} names for {logits[-1]} logits")
    values["binary_layers"] = translated.layers
    try:
        text = json.dumps(values, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be values that JSON can hold: {error}") from error
    data = seal(to_flatbuffer(schema, translated.network.model(schema, text)))

    with replacing(file, data) as written:
        _check_written(written, translated, interpreter)
        if interpreter is not None:
            watched = written.with_name(f"{written.name}.watched")
            _check_function(model, translated, schema, interpreter, shape, watched)
    return file
