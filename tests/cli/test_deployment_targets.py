"""The files for each deployment target: `run` and `export` write them, `validate` and `bench` take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from bnn_itrd.cli import main
from bnn_itrd.deploy.targets import write_target
from bnn_itrd.export import ExportError
from bnn_itrd.export.runtime.native import why_unavailable
from bnn_itrd.export.runtimes import environments
from bnn_itrd.runs.comparison import evaluate_member
from bnn_itrd.runs.load import load_member
from bnn_itrd.runs.member import Member
from bnn_itrd.runs.recorded import validation_data


def test_run_writes_every_file_a_student_can_be(road: Path) -> None:
    model = json.loads((road / "comparison.json").read_text())["models"][1]
    kinds = {artefact["target"]: artefact for artefact in model["artefacts"]}
    assert kinds["onnx"]["native"] == (not why_unavailable())
    # Its borders are 0, and to FINN they would be -1.
    assert [row["target"] for row in model["not_exported"]] == ["finn"]
    assert "FINN cannot map it" in model["not_exported"][0]["reason"]
    assert kinds["qonnx"]["bytes"] == (road / "recu" / "student.qonnx.onnx").stat().st_size
    plain = kinds["onnx-plain"]
    assert (plain["file"], plain["agreement"], plain["images"]) == ("student.plain.onnx", 100, 48)
    assert plain["bytes"] == (road / "recu" / plain["file"]).stat().st_size
    if "lce" in kinds:
        file = road / "recu" / "student.tflite"
        assert kinds["lce"]["bytes"] == file.stat().st_size
    teacher = json.loads((road / "comparison.json").read_text())["models"][0]
    assert [artefact["target"] for artefact in teacher["artefacts"]] == ["onnx"]


def test_export_writes_what_it_can_and_says_what_not(
    road: Path, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(road / "recu"), f"--data.root={tiny_npz}", f"--out={tmp_path}"]
    # Its borders are 0, and to FINN they would be -1.
    assert main([*arguments, "--to", "onnx", "qonnx", "finn", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [row["target"] for row in told["files"]] == ["onnx", "qonnx"]
    assert {path.name for path in tmp_path.iterdir()} == {"student.onnx", "student.qonnx.onnx"}
    assert len(told["failed"]) == 1 and "finn: " in told["failed"][0] and "padding_value=-1" in told["failed"][0]
    assert main([*arguments, "--to", "tflite"]) == 2
    assert "unknown target 'tflite'" in capsys.readouterr().err
    # Said before anything is written.
    before = (tmp_path / "student.onnx").stat().st_mtime_ns
    assert main([*arguments, "--to", "onnx", "qonnx", "--uint8"]) == 2
    assert "--uint8 is for ONNX files" in capsys.readouterr().err
    assert (tmp_path / "student.onnx").stat().st_mtime_ns == before


def test_a_file_of_standard_operations_alone(
    road: Path, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, checkpoint = f"--data.root={tiny_npz}", f"--checkpoint={road / 'recu' / 'last.pt'}"
    arguments = ["export", str(road / "recu"), data, f"--out={tmp_path}", "--to", "onnx-plain", "--uint8"]
    assert main(arguments) == 0
    file = tmp_path / "student.plain.onnx"
    model = onnx.load(file)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    capsys.readouterr()
    assert main(["validate", str(file), checkpoint, data, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["target"], told["images"], told["agreement"], told["failed"]) == ("onnx-plain", 48, 100, [])


def test_validate_several_files(road: Path, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(road / name / "student.onnx") for name in ("recu", "recu-itrd")]
    assert main(["validate", *files, f"--data.root={tiny_npz}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in told] == files and all(row["agreement"] == 100 for row in told)
    assert main(["validate", *files, f"--data.root={tiny_npz}", "--stock"]) == 0
    assert capsys.readouterr().out.count("student.onnx") == 2
    assert main(["validate"]) == 2
    assert "needs a file, or --setup" in capsys.readouterr().err
    assert main(["validate", "--setup", "lec"]) == 2
    assert "did you mean 'lce'" in capsys.readouterr().err
    other = tmp_path / "student.bin"
    other.write_bytes(b"x")
    assert main(["validate", str(other)]) == 2
    assert "its name must end in one of .onnx, .plain.onnx, .tflite" in capsys.readouterr().err
    # A file that cannot be used does not cost the others their rows.
    assert main(["validate", str(other), files[0], f"--data.root={tiny_npz}", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert "its name must end in one of" in told[0]["failed"][0] and told[1]["agreement"] == 100
    assert main(["validate", files[0], str(tmp_path / "none.onnx"), f"--data.root={tiny_npz}"]) == 1
    assert f"{tmp_path / 'none.onnx'}: FAILED: no such file" in capsys.readouterr().out


def test_a_broken_runtime_costs_its_own_row_only(
    road: Path, tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ExportError("LCE's interpreter was killed by SIGSEGV")

    def written(name: str, *arguments: Any, **more: Any) -> Path:
        if name == "onnx":
            return write_target(name, *arguments, **more)
        arguments[2].write_bytes(b"file")
        return Path(arguments[2])

    monkeypatch.setattr("bnn_itrd.runs.comparison.write_target", written)
    monkeypatch.setattr(environments, "find", lambda *_, **__: Path("python"))
    monkeypatch.setattr("bnn_itrd.export.lce.run_lce", broken)
    model, identity, checkpoint = load_member(road / "recu")
    data = validation_data(identity, identity, {"root": str(tiny_npz)})
    entry = evaluate_member(Member("recu", model, "recu", "resnet18", checkpoint), data, tmp_path / "student.onnx")
    row = next(row for row in entry.others if row["target"] == "lce")
    assert "SIGSEGV" in row["error"] and "agreement" not in row
    assert entry.agreement.argmax_agreement == 1


def test_validate_says_how_to_get_a_runtime(
    road: Path, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    arguments = ["export", str(road / "recu"), f"--data.root={tiny_npz}", f"--out={tmp_path}", "--to", "qonnx"]
    assert main(arguments) == 0
    file = str(tmp_path / "student.qonnx.onnx")
    checkpoint = f"--checkpoint={road / 'recu' / 'last.pt'}"
    assert main(["validate", file, checkpoint, f"--data.root={tiny_npz}"]) == 2
    assert "bnn-itrd validate --setup fpga" in capsys.readouterr().err
    assert main(["validate", file, checkpoint, f"--data.root={tiny_npz}", "--fpga-python", "/nonexistent/python"]) == 2
    assert "/nonexistent/python" in capsys.readouterr().err


def test_bench(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = str(road / "recu" / "student.onnx"), str(road / "teacher" / "teacher.onnx")
    arguments = ["bench", student, "--against", teacher, "--repeats", "3"]
    monkeypatch.setattr("bnn_itrd.export.runtime.bench.SPINNING", 0.0)
    assert main([*arguments, "--threads", "1", "2", "--batch", "1", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    forms = ["stock"] if why_unavailable() else ["native", "stock"]
    expected = [(teacher, "stock"), *((student, form) for form in forms)]
    assert [(r["file"], r["form"]) for r in told["rows"]] == expected * 4
    assert [(r["threads"], r["batch"]) for r in told["rows"]][:: len(expected)] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    for row in told["rows"]:
        assert row["ms_per_image"] > 0 and row["ratio_low"] <= row["ratio_high"]
        assert row["file"] != teacher or row["ratio"] == 1
    assert told["machine"]["kernel"] and told["machine"]["features"]
    assert main([*arguments[:2], "--repeats", "2"]) == 0
    assert "1.00x" in capsys.readouterr().out
    assert main([*arguments, "--threads", "0"]) == 2
    assert "must be >= 1" in capsys.readouterr().err
    for name in ("a.qonnx.onnx", "a.tflite"):
        (tmp_path / name).write_bytes(b"what it is, its name says")
    assert main(["bench", str(tmp_path / "a.qonnx.onnx")]) == 2
    assert "node by node" in capsys.readouterr().err
    assert main(["bench", student, str(tmp_path / "a.tflite"), "--batch", "32"]) == 2
    assert "a .tflite is timed at batch 1 only" in capsys.readouterr().err
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    assert main(["bench", student, str(tmp_path / "a.tflite")]) == 2
    assert "bnn-itrd validate --setup lce" in capsys.readouterr().err
