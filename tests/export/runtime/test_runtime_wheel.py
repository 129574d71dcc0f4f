"""The distribution bnn-itrd-runtime: what is in its wheel, what it needs, and that it works where nothing else is.

Here it is built without a compiler, as on a machine that has none; `.ci/wheels` builds and tries it with the library.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import bnn_itrd.export.runtime.native as native_module
import bnn_itrd.export.runtime.sessions as sessions_module
from bnn_itrd.export.ort.functions import function_bodies
from bnn_itrd.export.runtime.checksum import NO_DIGEST, seal
from bnn_itrd.export.runtime.cli import main
from bnn_itrd.export.runtime.native import library_path, why_unavailable

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "export" / "runtime"
PROJECT = tomllib.loads((FOLDER / "pyproject.toml").read_text())
WHOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runtime")
    ignored = shutil.ignore_patterns("__pycache__", "*.so.1", "not_built.txt", "build", "*.egg-info")
    shutil.copytree(FOLDER, folder / "source", ignore=ignored)
    code = f"import setuptools.build_meta as b; b.build_wheel({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder / "source",
        env={**os.environ, "CXX": "/nonexistent/c++"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (
        "without the native library: the C++ compiler '/nonexistent/c++' cannot be started: "
        in done.stderr + done.stdout
    )
    return next(folder.glob("*.whl"))


def small_files(folder: Path) -> tuple[str, str]:
    """Writes two ONNX files with two logits each, one with an operation of this package, and returns their paths."""
    files = []
    for name, operations in (("student", ["Sign"]), ("teacher", [])):
        domain = "bnn_itrd" if operations else ""
        nodes = [
            helper.make_node("Sign" if operations else "Identity", ["images"], ["signs"], domain=domain),
            helper.make_node("Cast", ["signs"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats"], ["logits"], keepdims=0, axes=[2, 3]),
        ]
        ends = [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 2, 4, 4]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2]),
        ]
        opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if operations else [])]
        bodies = function_bodies(operations)
        graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=opsets, functions=bodies, ir_version=8)
        helper.set_model_props(model, {"sha256": NO_DIGEST})
        files.append(folder / f"{name}.onnx")
        files[-1].write_bytes(seal(model.SerializeToString()))
    return str(files[0]), str(files[1])


def test_the_wheel_holds_the_same_modules_and_one_name(wheel: Path) -> None:
    assert wheel.name == "bnn_itrd_runtime-0.1.0-py3-none-any.whl" and wheel.stat().st_size < 100_000
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        for name in names - {"bnn_itrd_runtime/native/not_built.txt"}:
            assert archive.read(name) == (FOLDER / name.partition("/")[2]).read_bytes()
        reason = archive.read("bnn_itrd_runtime/native/not_built.txt").decode()
    modules = [path for folder in (FOLDER, FOLDER / "native") for path in folder.glob("*.py")]
    expected = {f"bnn_itrd_runtime/{path.relative_to(FOLDER).as_posix()}" for path in modules}
    assert names == {*expected, "bnn_itrd_runtime/native/not_built.txt"}
    assert reason.startswith("the C++ compiler '/nonexistent/c++' cannot be started: ")
    assert "with the same results, but 2 to 8 times slower" in reason and "`apt install g++`" in reason
    assert len(reason.splitlines()) == 1


def test_it_says_what_the_whole_package_says() -> None:
    mine, whole = PROJECT["project"], WHOLE["project"]
    for key in ("version", "requires-python", "license", "authors"):
        assert mine[key] == whole[key]
    assert sorted(line.partition(">")[0] for line in mine["dependencies"]) == ["numpy", "onnxruntime"]
    assert {*mine["dependencies"], *mine["optional-dependencies"]["images"]} <= {*whole["dependencies"]}
    assert PROJECT["build-system"] == WHOLE["build-system"]
    assert (FOLDER / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_it_runs_where_only_numpy_and_onnxruntime_are(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    student, teacher = small_files(tmp_path)
    program = str(Path(__file__).with_name("installed_runtime.py"))
    done = subprocess.run(
        [sys.executable, program, student, teacher, "stock"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4), np.float32)
    assert found["logits"] == np.where(x >= 0, 2.0, 0.0).mean((2, 3)).tolist()  # format.md: +1 is 2, -1 is 0
    assert found["loaded"] == [] and not found["onnxruntime_at_import"]
    reason = "bnn-itrd-runtime was installed without the native library: the C++ compiler "
    assert len(found["warnings"]) == 1 and reason in found["warnings"][0]
    assert found["info"]["kernel"].startswith(f"none ({reason}") and "bnn_itrd.Sign" in found["info"]["operations"]
    assert found["without_pillow"][0] == found["no_file"][0] == 2
    assert found["no_file"][2] == "bnn-itrd-runtime: no such file: nothing.onnx\n"


def test_a_library_for_another_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for machine, name in ((183, "aarch64"), (62, "x86_64"), (8, "another processor (ELF machine 8)")):
        library = tmp_path / f"{machine}.so"
        library.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00" + machine.to_bytes(2, "little") + bytes(44))
        here = "aarch64" if machine == 62 else "x86_64"
        monkeypatch.setattr(native_module, "_FILE", library)
        monkeypatch.setattr("platform.machine", lambda here=here: here)
        expected = f"was compiled for {name}, and this machine is {here}: install the bnn-itrd for {here}"
        assert why_unavailable() == f"the native library {library} {expected}"
        assert library_path() is None
    library.write_bytes(b"\x7fELF")
    native_module._load.cache_clear()
    assert why_unavailable().startswith(f"the native library {library} was compiled for ")


def test_the_build_and_the_package_call_the_library_the_same() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import building; print(building.LIBRARY, building.REASON)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER / "native" / "src")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [native_module._FILE.name, native_module._REASON]


def test_what_a_command_warns_of_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "_warned", set())
    monkeypatch.setattr(native_module, "_FILE", tmp_path / "none.so")
    assert main(["info", small_files(tmp_path)[0]]) == 0
    error = capsys.readouterr().err
    assert error.startswith("bnn-itrd: the native library cannot be used: ") and len(error.splitlines()) == 1


def test_a_reader_that_has_enough_ends_a_command_quietly(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from bnn_itrd.export.runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    with os.fdopen(write, "wb") as output:
        command = [sys.executable, "-c", code, "info", small_files(tmp_path)[1]]
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_pictures_that_the_wheels_script_names_are_there() -> None:
    words = (ROOT / ".ci" / "wheels").read_text().split()
    pictures = [word for word in words if word.endswith(".png")]
    assert pictures and all((ROOT / name).is_file() for name in pictures)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student, teacher = small_files(tmp_path)
    assert main(["bench", student, "--against", teacher, "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "form", "threads", "batch", "ms/image", "faster", "10-90", "%", "bytes"]
    assert lines[1].split()[:4] == [teacher, "stock", "1", "1"] and "1.00x" in lines[1]
    assert lines[-1].startswith("cpu ") and "kernel " in lines[-1]
    assert main(["info", teacher]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"file: {teacher}" and "form: stock" in told and "bnn-itrd: 0.1.0" in told
    assert "operations: 1 Identity, 1 Cast, 1 ReduceMean" in told
    for wrong, words in (
        (["--repeats", "0"], "repeats must be >= 1, got 0"),
        (["--threads", "100000"], "threads must be <= 1024, got 100000"),
    ):
        assert main(["bench", teacher, *wrong]) == 2
        assert capsys.readouterr().err == f"bnn-itrd: {words}\n"
    assert main(["bench", teacher, "--batch", str(10**14)]) == 2
    assert capsys.readouterr().err.startswith("bnn-itrd: not enough memory: Unable to allocate ")
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out == "bnn-itrd 0.1.0\n"
