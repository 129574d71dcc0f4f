"""Reading and running .tflite files: wrong images, files of other tools, and the environment in which they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.exported import images
from torch import nn

from bnn_itrd.deploy.targets import metadata_of, open_file, write_target
from bnn_itrd.export import ExportError, predict_model
from bnn_itrd.export.lce import read_lce_metadata, run_lce, time_lce, to_lce
from bnn_itrd.export.lce.network import to_flatbuffer
from bnn_itrd.export.lce.reader import read_lce_model
from bnn_itrd.export.lce.schema import load_schema
from bnn_itrd.export.runtimes import environments

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13) or sys.platform != "linux", reason="larq-compute-engine has no wheels here"
)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"images must be \(n, 3, 8, 8\) for this file, got \(2, 8, 8, 3\)"),
        (np.zeros((3, 8, 8), np.float32), r"images must be \(n, 3, 8, 8\) for this file, got \(3, 8, 8\)"),
        (np.zeros((2, 3, 8, 8)), "images must be normalised float32 numbers for this file, got float64"),
        (np.zeros((0, 3, 8, 8), np.float32), "images must hold at least one image, got none"),
    ],
)
def test_images_that_do_not_fit(array: np.ndarray, message: str, tiny_file: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run_lce(tiny_file, array)


def test_numbers_that_do_not_fit(tiny_file: Path) -> None:
    with pytest.raises(ValueError, match="threads must be >= 1, got 0"):
        run_lce(tiny_file, images(1, (3, 8, 8)), threads=0)
    with pytest.raises(ValueError, match="repeats must be >= 1, got 0"):
        time_lce(tiny_file, repeats=0)


def test_files_that_cannot_be_used(tiny_file: Path, tmp_path: Path) -> None:
    x = images(1, (3, 8, 8))
    with pytest.raises(FileNotFoundError, match="no such file: .*nothing"):
        run_lce(tmp_path / "nothing.tflite", x)
    file = tmp_path / "model.tflite"
    whole = tiny_file.read_bytes()
    for content in (b"", b"hello\n" * 100):
        file.write_bytes(content)
        with pytest.raises(ExportError, match=r"model\.tflite is not a TFLite file"):
            read_lce_metadata(file)
    for cut in (12, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(ExportError, match=r"model\.tflite (is damaged|was not written by bnn_itrd)"):
            run_lce(file, x)
    rng = np.random.default_rng(0)
    for position in rng.integers(8, len(whole), 40):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(flipped))
        with pytest.raises(ExportError, match=r"model\.tflite (is damaged|was not written|has format version)"):
            run_lce(file, x)


def test_a_newer_file_and_a_foreign_one(tiny_file: Path, tmp_path: Path) -> None:
    model, metadata = read_lce_model(tiny_file)
    file = tmp_path / "model.tflite"
    entry = model.metadata[0]
    text = json.dumps({**metadata, "format_version": 2}).encode()
    model.buffers[entry.buffer].data = np.frombuffer(text, np.uint8)
    file.write_bytes(to_flatbuffer(load_schema(), model))
    with pytest.raises(ExportError, match="has format version 2, and this bnn_itrd reads up to 1: update"):
        read_lce_metadata(file)
    model.metadata = []
    file.write_bytes(to_flatbuffer(load_schema(), model))
    with pytest.raises(ExportError, match="was not written by bnn_itrd"):
        read_lce_metadata(file)


def test_without_larq_compute_engine(tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bnn_itrd.export.lce.schema as schema

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(schema.importlib.util, "find_spec", lambda name: None)
    file = tmp_path / "model.tflite"
    with pytest.raises(ExportError, match=r"is not installed for this Python .*--setup lce.*--lce-python"):
        to_lce(tiny, file)
    assert not file.exists()


def test_schema_of_a_named_environment(lce: Path, monkeypatch: pytest.MonkeyPatch, tiny_file: Path) -> None:
    """If this Python has no larq-compute-engine, that of the interpreter which the user names is used."""
    import bnn_itrd.export.lce.schema as schema

    with monkeypatch.context() as patch:
        patch.setattr(schema, "_in_this_python", lambda: None)
        assert lce.parents[1] in Path(str(load_schema(lce).__file__)).parents
        assert read_lce_metadata(tiny_file, python=lce)["binary_layers"] == 1


def test_a_named_environment_serves_the_commands(
    lce: Path, monkeypatch: pytest.MonkeyPatch, tiny: nn.Module, tmp_path: Path
) -> None:
    """Without larq-compute-engine in this Python, the named interpreter is enough to write, read and run a file."""
    import bnn_itrd.export.lce.schema as schema

    data: Any = SimpleNamespace(
        name="mine", resize="scale", input_shape=(3, 8, 8), mean=[0.5] * 3, std=[0.2] * 3, classes=["a", "b", "c"]
    )
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_in_this_python", lambda: None)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        file = tmp_path / "student.tflite"
        with pytest.raises(ExportError, match="--lce-python"):
            write_target("lce", tiny, data, file, member="recu", checkpoint=None)
        write_target("lce", tiny, data, file, member="recu", checkpoint=None, python=str(lce))
        with pytest.raises(ExportError, match="--lce-python"):
            metadata_of(file)
        assert metadata_of(file, python=str(lce))["dataset"] == "mine"
        x = images(2, (3, 8, 8))
        logits = open_file(file, python=str(lce)).predict(x)
    np.testing.assert_allclose(logits, predict_model(tiny, x), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "content"), [("results.npz", b"PK"), ("results.npz", b""), ("results.json", b"{"), ("results.npz", None)]
)
def test_damaged_results_of_a_runtime(name: str, content: bytes | None, tmp_path: Path) -> None:
    """The results of the other process may be damaged, for example cut short by a full disk: this is reported."""
    script = tmp_path / "child.py"
    change = "file.unlink()" if content is None else f"file.write_bytes({content!r})"
    script.write_text(
        "import atexit, pathlib, sys\n"
        f"def end():\n    file = pathlib.Path(sys.argv[2], {name!r})\n    {change}\n"
        "atexit.register(end)\n"
        "def main(arrays, arguments):\n    return arrays, arguments\n"
    )
    with pytest.raises(ExportError, match=r"the results of .*child\.py cannot be read"):
        environments.call(sys.executable, script, arrays={"x": np.zeros(3)})


def test_a_runtime_that_hangs_is_stopped(tiny_file: Path, lce: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []

    def call(*arguments: Any, timeout: float | None = None, **more: Any) -> Any:
        asked.append(timeout)
        return {"output0": np.zeros((2, 3), np.float32)}, {"milliseconds": 1.0}

    monkeypatch.setattr(environments, "call", call)
    run_lce(tiny_file, images(2, (3, 8, 8)))
    time_lce(tiny_file, repeats=30, warmup=0)
    assert all(seconds is not None and 300 < seconds < 3600 for seconds in asked) and asked[0] < asked[1]  # type: ignore[operator]


def test_without_the_runtime(tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without LCE's interpreter a file is written and its structure is checked; only running it is impossible."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = to_lce(tiny, tmp_path / "model.tflite")
    assert read_lce_metadata(file)["binary_layers"] == 1
    with pytest.raises(ExportError, match="with `bnn-itrd validate --setup lce`"):
        run_lce(file, images(1, (3, 8, 8)))


def test_neither_tensorflow_nor_the_package_is_imported(tiny_file: Path) -> None:
    code = (
        "import sys; from bnn_itrd.export.lce import read_lce_metadata as read;"
        "assert 'flatbuffers' not in sys.modules and 'onnx' not in sys.modules;"
        f"read({str(tiny_file)!r});"
        "print([m for m in ('tensorflow', 'larq_compute_engine') if m in sys.modules])"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
