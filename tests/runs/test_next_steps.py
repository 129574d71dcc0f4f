"""What a run ends with: commands that can be pasted, and what was not validated."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bnn_itrd.runs.finished import next_steps as module
from bnn_itrd.runs.finished.next_steps import next_steps

CHECKED = {"target": "onnx", "file": "student.onnx", "agreement": 100.0}
LCE, QONNX = {"target": "lce", "file": "student.tflite"}, {"target": "qonnx", "file": "student.qonnx.onnx"}

# The page has the same words.
NO_LCE = "Larq Compute Engine's interpreter, which runs it, was not on the machine"


def model(name: str, top1: float, *artefacts: dict[str, Any], method: str = "") -> dict[str, Any]:
    return {"name": name, "method": method or name, "top1_last": top1, "artefacts": [CHECKED, *artefacts]}


def told(out: Path, *models: dict[str, Any], options: str = "") -> list[str]:
    folders = {m["name"]: out / m["name"] for m in models}
    return next_steps({"models": list(models)}, folders, out, options=options).splitlines()


@pytest.fixture(autouse=True)
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sys", SimpleNamespace(platform="linux"))
    monkeypatch.setattr(module, "shutil", SimpleNamespace(which=lambda name: f"/usr/bin/{name}"))


def test_the_best_student_against_its_teacher(tmp_path: Path) -> None:
    out = tmp_path / "my runs"
    out.mkdir()
    teacher = model("teacher", 99.0) | {"artefacts": [{**CHECKED, "file": "teacher.onnx"}]}
    both = [teacher, model("a", 90.0, LCE, QONNX | {"agreement": 100.0}), model("b", 80.0, LCE)]
    commands = [
        "Next:",
        f"  bnn-itrd bench '{out}/a/student.onnx' --against '{out}/teacher/teacher.onnx'",
        f"  xdg-open '{out}/report.html'",
        f"Not validated: a/student.tflite, b/student.tflite: {NO_LCE}. This installs and uses it:",
        f"  bnn-itrd validate '{out}/a/student.tflite' '{out}/b/student.tflite' --trust --setup lce",
    ]
    assert told(out, *both, options=" --trust") == commands
    (out / "example.png").write_bytes(b"")
    assert told(out, *both)[1:3] == [
        f"  bnn-itrd predict '{out}/a/student.onnx' '{out}/example.png'",
        "      this is a test image: give your own photos, or a folder of them, instead",
    ]


def test_a_runtime_that_fails(tmp_path: Path) -> None:
    broken = LCE | {"error": "the interpreter was killed by SIGSEGV\nits last lines"}
    assert told(tmp_path, model("a", 90.0, broken, QONNX))[-4:] == [
        "Not validated: a/student.tflite: it failed: the interpreter was killed by SIGSEGV. To try it again:",
        f"  bnn-itrd validate {tmp_path}/a/student.tflite",
        "Not validated: a/student.qonnx.onnx: qonnx, which executes it, was not on the machine. "
        "This installs and uses it:",
        f"  bnn-itrd validate {tmp_path}/a/student.qonnx.onnx --setup fpga",
    ]


@pytest.mark.parametrize(
    ("platform", "lines"),
    [
        ("darwin", ["  open {}/report.html"]),
        ("win32", ["  start {}/report.html"]),
        (
            "linux",
            [
                "  python3 -m http.server --bind 127.0.0.1 --directory {}",
                "      then open http://localhost:8000/report.html",
            ],
        ),
    ],
)
def test_a_page_is_shown_in_the_systems_own_way(
    platform: str, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "sys", SimpleNamespace(platform=platform))
    monkeypatch.setattr(module, "shutil", SimpleNamespace(which=lambda name: None))
    assert told(tmp_path, model("teacher", 99.0))[2:] == [line.format(tmp_path) for line in lines]
