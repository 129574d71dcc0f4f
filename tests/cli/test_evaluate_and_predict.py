"""`evaluate`, `validate` and `predict` on a finished run agree with its record, and name bad files."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from bnn_itrd.cli import main
from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.deploy.agreement import run_split
from bnn_itrd.deploy.photos import classify_photos
from bnn_itrd.deploy.targets import open_file
from bnn_itrd.export import classify_images, read_metadata, session
from bnn_itrd.export.runtime.cli import main as runtime_main


def test_evaluate_and_validate_agree_with_the_record(
    road: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = json.loads((road / "recu" / "comparison.json").read_text())["models"][-1]["top1_last"]
    for path in (road / "recu", road / "recu" / "last.pt", road / "recu" / "student.onnx"):
        assert main(["evaluate", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["top1"] == pytest.approx(recorded)
    assert main(["validate", str(road / "recu" / "student.onnx"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["agreement"] == 100.0 and values["top1_file"] == pytest.approx(recorded)
    # the data can be named anew
    assert main(["validate", str(road / "recu" / "student.onnx"), "--data=cifar10", f"--data.root={tiny_npz}"]) == 0


def test_validate_fails_past_its_limits(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = road / "recu" / "student.onnx"
    assert main(["validate", str(file), "--max_difference=1e-30"]) == 1
    assert "FAILED: largest difference" in capsys.readouterr().out
    other = road / "teacher" / "last.pt"
    assert main(["validate", str(file), f"--checkpoint={other}", "--min_agreement=100"]) == 1
    captured = capsys.readouterr()
    assert "FAILED: agreement" in captured.out and "student.onnx was not exported from" in captured.err


def test_validate_without_a_checkpoint_uses_the_record(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("student.onnx", "comparison.json", "config.yaml"):
        shutil.copy(road / "recu" / name, tmp_path / name)
    assert main(["validate", str(tmp_path / "student.onnx")]) == 0
    record = json.loads((tmp_path / "comparison.json").read_text())
    record["models"][-1]["artefacts"][0]["top1"] -= 5
    (tmp_path / "comparison.json").write_text(json.dumps(record))
    assert main(["validate", str(tmp_path / "student.onnx")]) == 1
    assert "is not the recorded" in capsys.readouterr().out


def test_export_and_predict(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, baked = tmp_path / "plain.onnx", tmp_path / "baked.onnx"
    assert main(["export", str(road / "recu"), f"--out={plain}"]) == 0
    assert main(["export", str(road / "recu"), f"--out={baked}", "--uint8"]) == 0
    root = yaml.safe_load((road / "recu" / "config.yaml").read_text())["data"]["root"]
    given = ["--data=cifar10", f"--data.root={root}", "--data.image_size=16"]
    assert main(["validate", str(baked), f"--checkpoint={road / 'recu'}", *given]) == 0
    types = [session(f).get_inputs()[0].type for f in (plain, baked)]
    assert types == ["tensor(float)", "tensor(uint8)"]
    assert main(["evaluate", str(baked), *given]) == 0
    image = tmp_path / "red.png"
    pixels = np.full((16, 16, 3), 60, np.uint8)
    pixels[..., 0] += 120
    Image.fromarray(pixels).save(image)
    capsys.readouterr()
    lines = []
    for file in (plain, baked):
        assert main(["predict", str(file), str(image), "--top=2"]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1] and "class" in lines[0] and "%" in lines[0]


def test_predict_takes_folders(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b/2.png", "a/deep/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    photos = [f"{tmp_path / 'a/deep/1.png'}: ", f"{tmp_path / 'b/2.png'}: "]
    models = json.loads((road / "comparison.json").read_text())["models"]
    best = max(models[1:], key=lambda model: model["top1_last"])["name"]
    answers = {}
    for path in (road / best / "student.onnx", road / best, road, road / "teacher"):
        assert main(["predict", str(path), str(tmp_path), "--top=1"]) == 0
        captured = capsys.readouterr()
        answers[path] = captured.out
        assert [line[: len(photo)] for line, photo in zip(captured.out.splitlines(), photos, strict=True)] == photos
        assert (f"holds recu, recu-itrd, teacher: {best} is used," in captured.err) == (path == road)
    assert answers[road] == answers[road / best] == answers[road / best / "student.onnx"]
    # The networks themselves are found as their files are.
    assert main(["evaluate", str(road)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{road / best / 'last.pt'}: top-1 ") and f": {best} is used," in captured.err
    assert main(["predict", str(road / best / "last.pt"), str(tmp_path), "--top=1"]) == 0
    captured = capsys.readouterr()
    assert captured.out == answers[road] and f": {road / best / 'student.onnx'} is used, which was" in captured.err
    assert main(["bench", str(road), f"--against={road}", "--repeats=1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["file"] for row in rows} == {str(road / best / "student.onnx"), str(road / "teacher" / "teacher.onnx")}
    assert runtime_main(["predict", str(road / best / "student.onnx"), str(tmp_path), "--top=1"]) == 0
    assert capsys.readouterr().out == answers[road]
    # A file of onnxruntime goes a way of its own, which imports no torch.
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "bnn_itrd.deploy.photos", None)
        assert main(["predict", str(road / best / "student.onnx"), str(tmp_path), "--top=1"]) == 0
        assert capsys.readouterr().out == answers[road]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    for words, message in (
        ((road / "recu" / "student.tflite", tmp_path), "bnn-itrd validate --setup lce"),
        ((road / "recuu", tmp_path), f"did you mean {road / 'recu'}? {road} holds recu, recu-itrd, teacher"),
        ((road, tmp_path / "c"), f"no such image or folder of images: {tmp_path / 'c'}"),
        ((tmp_path, road), f"{tmp_path} has no exported file"),
        ((road / best / "best.pt", tmp_path), "is a checkpoint, not an exported file: bnn-itrd export"),
    ):
        assert main(["predict", *map(str, words)]) == 2
        assert message in capsys.readouterr().err


def test_a_tflite_is_given_many_images_at_a_time(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(photos):
        Image.fromarray(np.full((16, 16, 3), 60 * i, np.uint8)).save(path)
    seen = list[tuple[int, ...]]()

    def run(path: Path, images: np.ndarray, **options: Any) -> np.ndarray:
        seen.append(images.shape)
        return np.array([[0.0, 1.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 2.0]], np.float32)

    monkeypatch.setattr("bnn_itrd.export.lce.run_lce", run)
    metadata = read_metadata(road / "recu" / "student.onnx")
    monkeypatch.setattr("bnn_itrd.deploy.photos.metadata_of", lambda path, python: metadata)
    answers = classify_photos(road / "recu" / "student.tflite", photos, top=1)
    assert seen == [(3, 3, 16, 16)]
    assert [answer.classes for answer in answers] == [("class1",), ("class0",), ("class2",)]


def test_predict_sees_an_image_as_evaluation_does(road: Path, tiny_npz: Path, tmp_path: Path) -> None:
    """8x8 files, brought to 16x16: every prediction is the one of the test split."""
    with np.load(tiny_npz) as arrays:
        pictures = arrays["x_test"]
    paths = []
    for i, picture in enumerate(pictures):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(picture).save(paths[-1])
    file = road / "recu" / "student.onnx"
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz), image_size=16))
    _, logits, _ = run_split(None, open_file(file), data)
    assert logits is not None
    expected = torch.from_numpy(logits).softmax(1)
    for result, row in zip(classify_images(file, paths, top=1), expected, strict=True):
        assert result.probabilities[0] == pytest.approx(float(row.max()), abs=1e-4)
        assert result.classes[0] == f"class{int(row.argmax())}"


def test_evaluation_on_other_data_keeps_the_networks_normalisation(
    road: Path, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same test images beside brighter training images: the same accuracy and loss."""
    with np.load(tiny_npz) as file:
        arrays = {k: file[k] for k in file.files}
    arrays["x_train"] = arrays["x_train"] // 4 + 190
    np.savez(tmp_path / "other.npz", **arrays)
    values = []
    for root in (tiny_npz, tmp_path / "other.npz"):
        for path in (road / "recu", road / "recu" / "student.onnx"):
            assert main(["evaluate", str(path), f"--data.root={root}", "--json"]) == 0
            values.append(json.loads(capsys.readouterr().out))
    assert len({(v["top1"], round(v["loss"], 4)) for v in values}) == 1


def test_a_command_that_reads_labels_refuses_unlabelled_images(
    road: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"--data.root={tiny_npz}", "--data.per_class=4", "--data.unlabelled=true"]
    assert main(["probe", str(road / "recu"), "--data=cifar10", *given]) == 2
    assert "data.unlabelled is for training, but this command needs the label of each image" in capsys.readouterr().err


def test_bad_files_for_predict_and_validate(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"this is no model")
    image = tmp_path / "a.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(image)
    for arguments in (["predict", str(bad), str(image)], ["validate", str(bad)], ["evaluate", str(bad)]):
        assert main(arguments) == 2
        assert "bad.onnx is not an ONNX file" in capsys.readouterr().err
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, source in (("a.png", image), ("b.png", broken), ("c.png", image)):
        (photos / name).write_bytes(source.read_bytes())
    for words in ([photos], sorted(photos.iterdir())):  # those around it are answered
        assert main(["predict", str(road / "recu" / "student.onnx"), *map(str, words)]) == 2
        shown = capsys.readouterr()
        assert [line.partition(":")[0] for line in shown.out.splitlines()] == [
            str(photos / n) for n in ("a.png", "c.png")
        ]
        assert f"{photos / 'b.png'} cannot be read as an image" in shown.err
    assert runtime_main(["predict", str(road / "recu" / "student.onnx"), *map(str, words)]) == 2
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["predict", str(road / "recu" / "student.onnx"), str(image), "--top", "0"]) == 2
    assert "--top must be >= 1, got 0" in capsys.readouterr().err
    assert main(["predict", str(road / "student.onnx"), str(image)]) == 2
    assert f"no such file or folder: {road / 'student.onnx'}; {road} holds " in capsys.readouterr().err
    cut = tmp_path / "recu"
    cut.mkdir()
    whole = (road / "recu" / "last.pt").read_bytes()
    (cut / "last.pt").write_bytes(whole[:-5000])
    assert main(["evaluate", str(cut)]) == 2
    assert "cut short" in capsys.readouterr().err
    assert main(["validate", str(road / "recu" / "student.onnx"), "--data=digits"]) == 2
    assert "was made for input_shape" in capsys.readouterr().err
