"""A file that is no ONNX file, is damaged, or was changed by another tool is refused when it is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from helpers.exported import save_sealed

from bnn_itrd.export import ExportError, read_metadata, session


@pytest.mark.parametrize("opener", [session, read_metadata])
def test_files_that_cannot_be_opened(opener: Callable[[Path], Any], tiny_file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        opener(tmp_path / "nothing.onnx")
    with pytest.raises(FileNotFoundError, match=r"is a folder: name the \.onnx file in it"):
        opener(tmp_path)
    file = tmp_path / "model.onnx"
    whole = tiny_file.read_bytes()
    for content in (b"", b"hello\n" * 100, whole[: len(whole) // 2], whole[:100]):
        file.write_bytes(content)
        with pytest.raises(ExportError, match=r"model\.onnx is not an ONNX file: "):
            opener(file)
    model = onnx.load(tiny_file)
    next(entry for entry in model.metadata_props if entry.key == "format_version").value = "4"
    onnx.save(model, file)
    with pytest.raises(ExportError, match="has format version 4, and this bnn-itrd reads versions up to 3: update"):
        opener(file)


@pytest.mark.parametrize("opener", [session, read_metadata])
def test_a_flipped_bit_is_found(opener: Callable[[Path], Any], tiny_file: Path, tmp_path: Path) -> None:
    """The bit is in the weights, where only the checksum finds it; a file that another tool changed is refused too."""
    data = bytearray(tiny_file.read_bytes())
    weights = max(onnx.load(tiny_file).graph.initializer, key=lambda entry: len(entry.raw_data)).raw_data
    data[data.index(weights) + len(weights) // 2] ^= 4
    file = tmp_path / "model.onnx"
    file.write_bytes(data)
    with pytest.raises(ExportError, match=r"model\.onnx is damaged, or another tool has changed it"):
        opener(file)
    model = onnx.load(tiny_file)
    model.doc_string = "simplified"
    onnx.save(model, file)
    with pytest.raises(ExportError, match=r"onnxruntime\.InferenceSession"):
        opener(file)
    save_sealed(model, file)
    opener(file)
    del model.metadata_props[[entry.key for entry in model.metadata_props].index("sha256")]
    onnx.save(model, file)
    with pytest.raises(ExportError, match="its checksum is missing"):
        opener(file)


def test_every_flipped_bit_and_every_cut_is_found(tiny_file: Path, tmp_path: Path) -> None:
    """This includes the bytes after the graph: names of metadata, the functions, and the checksum itself."""
    data = tiny_file.read_bytes()
    behind = data.index(b"format_version")
    file = tmp_path / "file.onnx"
    for place in [*range(behind, min(behind + 1500, len(data)), 7), data.index(b"sha256"), len(data) - 1]:
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        with pytest.raises(ExportError):
            read_metadata(file)
    for length in [*range(behind - 40, len(data) - 1, 97), len(data) - 1]:
        file.write_bytes(data[:length])
        with pytest.raises(ExportError):
            read_metadata(file)


def test_sessions_onnxruntime_refuses(tiny_file: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_file)
    model.graph.node[-1].op_type = "NoSuchOperation"
    save_sealed(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"onnxruntime .* cannot run .*NoSuchOperation"):
        session(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="threads must be >= 1"):
        session(tiny_file, threads=0)
