"""The files of a run in its report: links, the lines that use them, and what was not checked."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from helpers.report_pages import comparison, model, written

from bnn_itrd.report.files.usage import lines_for

RESULTS = Path(__file__).resolve().parents[2] / "results"
RUN = RESULTS / "cifar10-resnet20-recu-itrd-e6-val-s0"


def links(data: dict[str, Any], tmp_path: Path) -> list[str]:
    page = written(data, tmp_path)
    return [v for tag, name, v in page.attributes if tag == "a" and name == "href" and not v.startswith("#")]


def test_a_file_is_a_link_where_it_lies(tmp_path: Path) -> None:
    data = comparison()
    assert links(data, tmp_path) == []
    (tmp_path / "recu-itrd").mkdir()
    (tmp_path / "recu-itrd/student.onnx").touch()
    (tmp_path / "student.tflite").touch()  # beside the page, as of bnn_itrd.distill
    assert sorted(set(links(data, tmp_path))) == ["recu-itrd/student.onnx", "student.tflite"]
    (tmp_path / "recu-itrd/student.tflite").touch()
    assert sorted(set(links(data, tmp_path))) == ["recu-itrd/student.onnx", "recu-itrd/student.tflite"]


def test_links_stay_in_the_folder_and_are_quoted(tmp_path: Path) -> None:
    data = comparison()
    folder = tmp_path / "run"
    (folder / "my net").mkdir(parents=True)
    for place in (folder / "my net/student.onnx", tmp_path / "secret.onnx", folder / "secret.onnx"):
        place.touch()
    data["models"][2]["name"] = "my net"
    data["models"][2]["artefacts"][1]["file"] = "../secret.onnx"
    assert sorted(set(links(data, folder))) == ["my%20net/student.onnx", "secret.onnx"]


def blocks(data: dict[str, Any], tmp_path: Path) -> str:
    return written(data, tmp_path).text["validation"]


def test_every_file_has_three_lines_that_use_it(tmp_path: Path) -> None:
    data = comparison()
    kinds = ("onnx", "onnx-plain", "lce", "qonnx", "finn")
    data["models"][2]["artefacts"] = [{"target": kind, "file": f"student.{kind}"} for kind in kinds]
    text = blocks(data, tmp_path)
    for kind in kinds:
        lines = lines_for(kind, f"recu-itrd/student.{kind}", "(n, 1, 8, 8)")
        assert len(lines.splitlines()) == 3 and lines in text
    assert lines_for("unheard of", "a") == ""


def test_the_lines_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    shutil.copy(RUN / "student.onnx", tmp_path / "student.onnx")
    Image.new("RGB", (32, 32), (200, 30, 30)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    exec(lines_for("onnx", "student.onnx"), {})
    answer = capsys.readouterr().out
    assert answer.startswith("photo.png: ") and answer.count("%") == 3
    images = np.zeros((2, 3, 32, 32), np.float32)
    names: dict[str, Any] = {"images": images}
    exec(lines_for("onnx-plain", "student.onnx"), names)
    expected = onnxruntime.InferenceSession("student.onnx").run(None, {"images": images})[0]
    assert names["logits"].shape == (2, 10) and np.array_equal(names["logits"], expected)


@pytest.mark.parametrize(
    ("target", "module", "name"),
    [("lce", "lce", "run_lce"), ("qonnx", "fpga", "run_qonnx"), ("finn", "fpga", "run_qonnx")],
)
def test_the_lines_of_other_runtimes_name_what_there_is(target: str, module: str, name: str) -> None:
    lines = lines_for(target, "student", "(n, 3, 32, 32)").splitlines()
    assert lines[0] == f"from bnn_itrd.export.{module} import {name}"
    found = importlib.util.find_spec(f"bnn_itrd.export.{module}")  # to import it takes seconds
    assert found is not None and f'"{name}",' in Path(str(found.origin)).read_text()
    assert lines[1].endswith("# images: (n, 3, 32, 32) float32, normalised")
    compile("\n".join(lines), target, "exec")


def test_what_was_not_checked_has_its_reason_and_its_command(tmp_path: Path) -> None:
    data = comparison()
    for entry in data["models"][1:]:
        entry["artefacts"] = [
            {"target": "lce", "file": "student.tflite"},
            {"target": "qonnx", "file": "student.qonnx.onnx", "agreement": 100.0, "images": 200},
            {"target": "onnx-plain", "file": "student.plain.onnx", "agreement": 100.0, "images": 360},
        ]
    data["models"][2]["artefacts"] += [{"target": "finn", "file": "student.finn.onnx", "error": "no node"}]
    data["models"][2]["not_exported"] = [{"target": "finn", "reason": "its borders are <not> -1"}]
    text = blocks(data, tmp_path)
    for words in (
        "student.tflite of recu, student.tflite of recu-itrd: Larq Compute Engine's interpreter, which runs it, was "
        "not on the machine.",
        "bnn-itrd validate recu/student.tflite recu-itrd/student.tflite --setup lce",
        "only the first 200 test images were compared, because qonnx executes it node by node.",
        "bnn-itrd validate recu/student.qonnx.onnx recu-itrd/student.qonnx.onnx --images 360",
        "recu-itrd as a file for finn: it was not made: its borders are <not> -1.",
    ):
        assert words in text
    assert text.count("What was not checked") == 1 and "student.plain.onnx of" not in text.partition("Use them")[0]


def test_nothing_stands_there_where_all_was_checked(tmp_path: Path) -> None:
    one = {"target": "onnx", "file": "student.onnx", "agreement": 100.0, "images": 360}
    data = comparison() | {"models": [model("recu", 95.0, 1000, binary=False, artefacts=[one])]}
    assert "What was not checked" not in blocks(data, tmp_path)


def test_a_relative_folder_of_data_is_marked_in_the_command(tmp_path: Path) -> None:
    data = comparison() | {"config": {"data": {"name": "cifar10", "root": "my data/cifar10.npz"}}}
    data["models"][2]["artefacts"] = [{"target": "lce", "file": "student.tflite"}]
    command = "bnn-itrd validate recu-itrd/student.tflite --setup lce"
    assert f"{command} --data.root 'PATH/TO/my data/cifar10.npz'" in blocks(data, tmp_path)
    data["config"]["data"]["root"] = "/data/cifar10.npz"
    text = blocks(data, tmp_path)
    assert command in text and "--data.root" not in text


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in RESULTS.glob("*e20*/comparison.json")))
def test_the_results_of_the_repository_have_a_page(folder: str, tmp_path: Path) -> None:
    data = json.loads((RESULTS / folder / "comparison.json").read_text())
    page = written(data, tmp_path)
    assert "None" not in " ".join(page.text.values()) and data["models"][-1]["name"] in page.text["summary"]
