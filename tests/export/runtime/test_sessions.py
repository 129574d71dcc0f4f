"""`session` uses the native library or says why it cannot; sessions are timed in turns; the import stays light."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from torch import nn

from bnn_itrd.export import ExportError, compare_milliseconds, session, to_onnx, uses_native


def test_timing(tiny_file: Path) -> None:
    opened = session(tiny_file, threads=2)
    times = compare_milliseconds({"a": opened, "b": opened}, batch=2, repeats=3)
    assert set(times) == {"a", "b"} and min(times.values()) > 0
    with pytest.raises(ValueError, match="repeats must be >= 1"):
        compare_milliseconds({"a": opened}, repeats=0)


def test_native_sessions(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not uses_native(session(tiny_file, native=False))
    monkeypatch.setattr("bnn_itrd.export.runtime.native.library_path", lambda: None)
    monkeypatch.setattr("bnn_itrd.export.runtime.native.why_unavailable", lambda: "made for another processor")
    with pytest.raises(ExportError, match="the native library cannot be used: made for another processor"):
        session(tiny_file, native=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        opened = [session(tiny_file) for _ in range(3)]
    assert not any(uses_native(each) for each in opened)
    assert [str(each.message) for each in told].count(str(told[0].message)) == 1
    assert "made for another processor; without the library the file runs more slowly" in str(told[0].message)
    monkeypatch.setenv("BNN_ITRD_NATIVE", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session(tiny_file)


def test_native_has_nothing_to_do_in_a_float_network(folder: Path) -> None:
    file = to_onnx(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), folder / "float.onnx", input_shape=(3, 2, 2))
    assert not uses_native(session(file))
    with pytest.raises(ExportError, match="there is nothing for the native library"):
        session(file, native=True)


def test_import_is_light() -> None:
    code = (
        "import sys, bnn_itrd.export;"
        "print([m for m in ('onnx', 'onnx_ir', 'onnxruntime', 'onnxscript') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
