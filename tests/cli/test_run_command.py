"""The command line as a user meets it: the road on small images, and every message on bad input."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from helpers import TINY
from PIL import Image

import bnn_itrd
from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import RunConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.deploy.agreement import run_split
from bnn_itrd.deploy.photos import classify_photos
from bnn_itrd.deploy.targets import open_file, write_target
from bnn_itrd.errors import UserError
from bnn_itrd.export import ExportError, classify_images, read_metadata, session
from bnn_itrd.export.runtime.cli import main as runtime_main
from bnn_itrd.export.runtime.native import why_unavailable
from bnn_itrd.export.runtimes import environments
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.runs.comparison import evaluate_member
from bnn_itrd.runs.load import load_member
from bnn_itrd.runs.member import Member
from bnn_itrd.runs.recorded import validation_data
from bnn_itrd.training.checkpoint import load_checkpoint, save_checkpoint

SMALL = [*TINY, "--data.image_size=16", "--network.name=resnet8", "--network.width=0.5", "--log.tensorboard=false"]


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory, tiny_npz: Path) -> Path:
    """A finished `run` on small images."""
    out = tmp_path_factory.mktemp("road") / "run"
    assert main(["run", "digits", *SMALL, f"--data.root={tiny_npz}", f"--out={out}"]) == 0
    return out


def test_run_leaves_everything(road: Path) -> None:
    for name in ("config.yaml", "comparison.json", "report.html", "curves.png"):
        assert (road / name).is_file(), name
    for member, file in (
        ("teacher", "teacher.onnx"),
        ("recu", "student.onnx"),
        ("recu-itrd", "student.onnx"),
    ):
        for name in (
            "config.yaml",
            "environment.json",
            "metrics.csv",
            "last.pt",
            "best.pt",
            "comparison.json",
            file,
        ):
            assert (road / member / name).is_file(), (member, name)


def test_comparison_tells_the_truth(road: Path) -> None:
    comparison = json.loads((road / "comparison.json").read_text())
    assert [m["name"] for m in comparison["models"]] == ["teacher", "recu", "recu-itrd"]
    for model in comparison["models"]:
        artefact = model["artefacts"][0]
        assert artefact["images"] == 48 and artefact["agreement"] == 100.0
        assert artefact["bytes"] == (road / model["name"] / artefact["file"]).stat().st_size
        assert np.trace(np.array(model["confusion"])) / 48 * 100 == pytest.approx(model["top1_last"])
        assert model["top1_last"] == pytest.approx(model["curve"][-1]["test_top1"])
        assert model["binary"] == (model["name"] != "teacher")
    student, teacher = comparison["models"][1], comparison["models"][0]
    assert student["compression"] == pytest.approx(teacher["bytes"] / student["bytes"])
    for difference in comparison["differences"]:
        answers = set(difference["predictions"].values())
        assert len(answers) > 1


def test_a_finished_run_is_not_trained_again(road: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stamps = {p: p.stat().st_mtime_ns for p in road.glob("*/last.pt")}
    assert main(["run", "digits", *SMALL, f"--data.root={tiny_npz}", f"--out={road}"]) == 0
    assert {p: p.stat().st_mtime_ns for p in road.glob("*/last.pt")} == stamps
    # What it ends with can be pasted.
    lines = capsys.readouterr().out.partition("Next:\n")[2].splitlines()
    pasted = {words[1]: words[1:] for words in (shlex.split(line) for line in lines if line.startswith("  bnn-itrd "))}
    for name in ("predict", "bench"):
        assert main(pasted[name]) == 0
    assert f"{road}/example.png: class" in capsys.readouterr().out
    assert [Path(words[2]) for words in pasted.values() if "--against" in words] != []
    assert any(line.endswith((f" {road}/report.html", "/report.html")) for line in lines)


def test_location_devices_and_logging_may_differ_nothing_else(
    road: Path, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved.npz"
    shutil.copy(tiny_npz, moved)
    assert main(["run", "digits", *SMALL, f"--data.root={moved}", "--data.workers=0", f"--out={road}"]) == 0
    capsys.readouterr()
    code = main(["run", "digits", *SMALL, f"--data.root={moved}", "--train.lr=0.3", f"--out={road}"])
    error = capsys.readouterr().err
    assert code == 2 and "belongs to another configuration" in error and "train.lr: 0.1 there, 0.3 given" in error
    assert yaml.safe_load((road / "config.yaml").read_text())["train"]["lr"] == 0.1


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
    assert "FAILED: agreement" in captured.out and "exported from another state" in captured.err


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
        assert (f"holds recu, recu-itrd, teacher: taken is {best}," in captured.err) == (path == road)
    assert answers[road] == answers[road / best] == answers[road / best / "student.onnx"]
    # The networks themselves are found as their files are.
    assert main(["evaluate", str(road)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{road / best / 'last.pt'}: top-1 ") and f"taken is {best}," in captured.err
    assert main(["predict", str(road / best / "last.pt"), str(tmp_path), "--top=1"]) == 0
    captured = capsys.readouterr()
    assert captured.out == answers[road] and f"taken is {road / best / 'student.onnx'}, which was" in captured.err
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
        ((tmp_path, road), f"{tmp_path} holds no exported file"),
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


def test_a_half_trained_teacher_is_refused(
    road: Path, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = load_checkpoint(road / "teacher" / "last.pt")
    state.pop("format")
    state["identity"]["train"]["epochs"] = 9
    save_checkpoint(tmp_path / "half" / "last.pt", state)
    arguments = ["train", "digits", *SMALL, f"--data.root={tiny_npz}", "--member=recu-itrd", f"--out={tmp_path / 'o'}"]
    assert main([*arguments, f"--teacher={tmp_path / 'half'}"]) == 2
    assert "is at epoch 1 of 9: finish its training" in capsys.readouterr().err


def test_load_of_a_run_with_one_student(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "teacher", tmp_path / "run" / "teacher")
    shutil.copytree(road / "recu", tmp_path / "run" / "recu")
    assert any(isinstance(m, BinaryConv2d) for m in bnn_itrd.load(tmp_path / "run").modules())
    with pytest.raises(UserError, match=r"holds the networks recu, recu-itrd, teacher: name one"):
        bnn_itrd.load(road)


def test_a_command_that_reads_labels_refuses_unlabelled_images(
    road: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"--data.root={tiny_npz}", "--data.per_class=4", "--data.unlabelled=true"]
    assert main(["probe", str(road / "recu"), "--data=cifar10", *given]) == 2
    assert "data.unlabelled is for training: this command reads the labels" in capsys.readouterr().err


def test_a_first_stage_is_not_taken_for_its_student(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "recu", tmp_path / "recu" / "first-stage")
    with pytest.raises(UserError, match="has only a checkpoint of its first stage"):
        bnn_itrd.load(tmp_path / "recu")
    assert any(isinstance(m, BinaryConv2d) for m in bnn_itrd.load(tmp_path / "recu" / "first-stage").modules())


def test_options_of_a_teacher_that_would_be_ignored(
    road: Path, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["digits", *SMALL, f"--data.root={tiny_npz}", f"--out={tmp_path / 'out'}"]
    for arguments, message in (
        (["run", *base, "--teacher_weights=w.pt"], "teacher_weights must be given with a teacher"),
        (["run", *base, "--teacher_weights=w.pt", f"--teacher={road}"], "teacher_weights belong to torchvision:NAME"),
        (["train", *base, "--member=teacher", f"--teacher={road}"], "is given, so none is trained"),
        # Another run's folder: the name comes first.
        (
            ["train", "digits", "--member=recuu", f"--out={road}"],
            "unknown member 'recuu', did you mean 'recu'? Expected",
        ),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_summary_compare_recipes(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "cifar10"]) == 0
    text = capsys.readouterr().out
    assert "11,173,962" in text and "11,005,002" in text
    assert main(["summary", str(road / "recu")]) == 0
    assert "BinaryConv2d" in capsys.readouterr().out
    assert main(["compare", str(road / "recu"), str(road / "recu-itrd"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["method"] for r in rows] == ["teacher", "recu", "recu-itrd"]
    assert main(["compare", str(road), "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| data |")
    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in recipes.names())


def test_a_trained_teacher_is_reused(road: Path, tiny_npz: Path, tmp_path: Path) -> None:
    assert main([
        "run", "digits", *SMALL, f"--data.root={tiny_npz}", f"--teacher={road}", f"--out={tmp_path}",
        "--students={itrd: {itrd: {}}}",
    ]) == 0  # fmt: skip
    assert not (tmp_path / "teacher" / "last.pt").exists()
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert [m["name"] for m in comparison["models"]] == ["teacher", "itrd"]


def test_a_torchvision_teacher(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torchvision

    model = torchvision.models.mobilenet_v3_small(weights=None, num_classes=3)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    base = ["train", "digits", *TINY, f"--data.root={tiny_npz}", "--data.image_size=32", "--network.width=0.25",
            "--member=recu-itrd", f"--out={tmp_path / 'out'}", "--log.tensorboard=false", "--network.name=resnet8",
            "--train.epochs=1", "--report=false"]  # fmt: skip
    assert main([*base, "--teacher=torchvision:mobilenet_v3_small"]) == 2
    assert "is untrained: give its state dict with --teacher_weights" in capsys.readouterr().err
    assert main([*base, "--teacher=torchvision:mobilnet_v3_small"]) == 2
    assert "did you mean 'mobilenet_v3_small'" in capsys.readouterr().err
    chosen = [*base, "--teacher=torchvision:mobilenet_v3_small"]
    assert main([*chosen, f"--teacher_weights={tmp_path / 'none.pt'}"]) == 2
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    assert main([*chosen, f"--teacher_weights={tmp_path / 'other.pt'}"]) == 2
    assert "is not the state dict of torchvision:mobilenet_v3_small" in capsys.readouterr().err
    assert main([*chosen, f"--teacher_weights={tmp_path / 'w.pt'}"]) == 0


# ---- configuration


def config(*arguments: str, recipe: str = "digits") -> RunConfig:
    return run_config("run", "", recipes.read(recipe), arguments, extra={"out": "folder"})[0]


@pytest.mark.parametrize("name", [name for name in recipes.names() if "task" not in recipes.read(name)])
def test_every_recipe_parses_and_says_what_it_is_for(name: str) -> None:
    assert config(recipe=name).students
    assert len(recipes.describe(name)) > 20


def test_any_field_can_be_overridden() -> None:
    made = config(
        "--train.lr=0.3", "--data.crop_padding", "1", "--students.recu-itrd.itrd.alpha", "1.5",
        "--students.new.kd.tau=2", "--scheme.tau_max=0.95", "--network.padding_value=-1",
    )  # fmt: skip
    assert made.train.lr == 0.3 and made.data.crop_padding == 1 and made.scheme.tau_max == 0.95
    itrd, kd = made.students["recu-itrd"].itrd, made.students["new"].kd
    assert itrd is not None and itrd.alpha == 1.5 and itrd.beta_corr == 2.0
    assert kd is not None and kd.tau == 2.0 and made.network.padding_value == -1


def test_one_seed_for_all() -> None:
    for arguments in (["--seed=7"], ["--seed", "7"]):
        made = config(*arguments, "--train.lr=0.2")
        assert (made.train.seed, made.teacher_train.seed, made.train.lr) == (7, 7, 0.2)


def test_recipe_files_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: 3}\nstudents: {a: {ce: 0.5}}\n")
    made = config(recipe=str(path))
    assert made.train.epochs == 3 and made.students["a"].ce == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu", "digits"], "unknown command 'rnu'.*did you mean 'run'"),
        (["run", "digit"], "unknown recipe 'digit'.*did you mean 'digits'"),
        (["run", "no/such.yaml"], "no recipe file no/such.yaml"),
        (["run"], "needs a recipe: one of cifar10"),
        (
            ["run", "digits", "--train.epoch=3"],
            r"unknown option '--train\.epoch'.*did you mean '--train\.epochs'",
        ),
        (["run", "digits", "--data.name=digitz"], "unknown data set 'digitz'.*did you mean 'digits'"),
        (["run", "digits", "--network.name=resnet19"], "unknown network 'resnet19'.*did you mean 'resnet1"),
        (["run", "digits", "--scheme.weight=recoo"], "unknown weight binariser 'recoo'.*did you mean 'recu'"),
        (["run", "digits", "--scheme.tau_min=0.3"], r"tau_min must be in \(0\.5, 1\), got 0\.3"),
        (["run", "digits", "--train.epochs=many"], r"train\.epochs must be int, got many"),
        (["run", "digits", "--train.lr=-1"], r"train\.lr must be > 0 \(--train\.lr 0\.1\), got -1"),
        (
            ["run", "digits", "--train.optimizer=sgdd"],
            r"train\.optimizer must be one of \['sgd', 'adamw'\], got sgdd",
        ),
        (
            ["run", "digits", "--students.a.kdd.tau=3"],
            r"unknown field of students\.a 'kdd'.*did you mean 'kd'",
        ),
        (
            ["run", "digits", "--students.a.kd.tau=0"],
            r"students\.a\.kd\.tau must be > 0 \(--students\.a\.kd\.tau 4\.0\), got 0",
        ),
        (["run", "digits", "--students={../x: {}}"], "cannot be a student's name"),
        (["train", "digits", "--member=recoo"], "unknown member 'recoo'.*did you mean 'recu'"),
        (["train", "digits"], "--member is missing: give one of teacher, recu"),
        (["evaluate", "nowhere"], "no such file or folder: nowhere"),
        (["validate", "nowhere.onnx"], "no such file: nowhere.onnx"),
        (["compare", "nowhere"], "no comparison.json in nowhere"),
        (["run", "cifar10"], r"needs its images: give --data\.root"),
        (["run", "digits", "--teacher=torchvison:resnet18"], "unknown library of teachers 'torchvison'"),
        (["run", "digits", "--fabric.accelerator=gpx"], "fabric: .*gpx"),
        (["run", "digits", "--students={a: ["], "--students: .* is not YAML"),
        (
            ["run", "digits", "--train.momentum=0"],
            r"train\.momentum must be > 0 with nesterov \(--train\.momentum 0\.9\), got 0",
        ),
        (["run", "digits", "--students.a.itrd.beta_corr=-1"], r"students\.a\.itrd\.beta_corr must be >= 0 .*, got -1"),
        (["compare", "also-nowhere"], "there is no such folder"),
    ],
)
def test_bad_input_is_named(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {lr: 1}", "unknown field in the recipe 'trian.lr'.*did you mean 'train.lr'"),
        ("train: {epochs: [1]}", "train.epochs"),
        ("students: [a]", "students must map names"),
        ("students: {a: 3}", "students.a must hold fields"),
        ("- 1", "must hold fields"),
        ("a: [", "is not YAML"),
    ],
)
def test_bad_recipes(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import re

    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert main(["run", str(path), f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


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


def test_help_reads_like_documentation(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = command("run", "--help")
    assert done.returncode == 0
    for text in ("--train.lr", "peak learning rate", "--students.NAME", "runs/RECIPE by default"):
        assert text in done.stdout, text
    assert main(["--help"]) == 0
    assert command("validate", "--help").returncode == 0


# Deployment targets


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
    assert main(["bench", str(tmp_path / "a.qonnx.onnx")]) == 2
    assert "node by node" in capsys.readouterr().err
    assert main(["bench", student, str(tmp_path / "a.tflite"), "--batch", "32"]) == 2
    assert "a .tflite is timed at batch 1 only" in capsys.readouterr().err
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    assert main(["bench", student, str(tmp_path / "a.tflite")]) == 2
    assert "bnn-itrd validate --setup lce" in capsys.readouterr().err
