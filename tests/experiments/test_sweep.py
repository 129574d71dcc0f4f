"""A whole sweep: its folders and records, how it resumes, and what another teacher or configuration does."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.sweeps import GRID, sweep

import bnn_itrd.experiments.sweep
from bnn_itrd.experiments.statistics import table_cells
from bnn_itrd.runs.load import load_member
from bnn_itrd.runs.lock import exclusive_folder
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.trainer import Trainer

NAMES = ["recu-plain-s0", "recu-kd-s0", "recu-plain-s1", "recu-kd-s1"]


def read(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "sweep.json").read_text()))


def states(out: Path) -> dict[str, str]:
    return {point["name"]: point["state"] for point in read(out)["points"]}


def snapshot(out: Path) -> dict[str, tuple[int, bytes]]:
    """mtime and content of every file of the points and teachers."""
    files = [p for p in out.glob("*/**/*") if p.is_file()]
    return {str(p.relative_to(out)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_npz: Path) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "out"
    assert sweep(tiny_npz, out) == 0
    return out


@pytest.fixture
def copy(swept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(swept, tmp_path / "copy"))


def test_folders_and_records(swept: Path) -> None:
    assert sorted(p.name for p in swept.iterdir()) == sorted(
        [*NAMES, "teachers", *(f"sweep.{s}" for s in ("csv", "json", "md"))]
    )
    assert [p.name for p in (swept / "teachers").iterdir()] == ["resnet8-s0"]
    assert states(swept) == dict.fromkeys(NAMES, "done")  # in this order: seeds outermost
    record = read(swept)
    assert record["reference"] == "plain"
    assert [p["teacher"] for p in record["points"]] == [None, "teachers/resnet8-s0"] * 2
    rows = list(csv.DictReader((swept / "sweep.csv").open()))
    assert [row["name"] for row in rows] == NAMES
    assert [float(row["top1"]) for row in rows] == [p["top1"] for p in record["points"]]
    assert (swept / "sweep.md").read_text().startswith("| method | seeds | top-1 % |")


def test_result_is_accuracy_on_the_test_images(swept: Path, tiny_npz: Path) -> None:
    """And not on the held-out ones: counted here from the arrays of the file."""
    with np.load(tiny_npz) as file:
        images, labels = file["x_test"], file["y_test"]
    for name in NAMES:
        result = json.loads((swept / name / "result.json").read_text())
        model, known, _ = load_member(swept / name)
        pixels = (images / 255 - np.array(known["mean"])) / np.array(known["std"])
        with torch.no_grad():
            predicted = model(torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)).argmax(1).numpy()
        assert result["top1"] == pytest.approx(100 * np.mean(predicted == labels), abs=1e-4)
        assert result["best"]["split"] == "val"


def test_one_teacher_for_all_seeds(swept: Path) -> None:
    hashes = {
        json.loads((swept / name / "result.json").read_text())["identity"].get("teacher_sha256") for name in NAMES[1::2]
    }
    assert len(hashes) == 1 and None not in hashes


def test_interrupted_sweep_resumes(
    swept: Path, tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done is not touched, and the whole ends with the weights of the sweep that was not interrupted."""
    out = tmp_path / "out"
    train_member = bnn_itrd.experiments.sweep.train_member

    def stops(config: Any, *args: Any, **kwargs: Any) -> Any:
        if config.name == NAMES[2]:
            raise KeyboardInterrupt
        return train_member(config, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(bnn_itrd.experiments.sweep, "train_member", stops)
        assert sweep(tiny_npz, out) == 130
    assert list(states(out).values()) == ["done", "done", "running", "waiting"]
    before = snapshot(out)
    assert {name.split("/")[0] for name in before} == {"teachers", *NAMES[:2]}

    assert sweep(tiny_npz, out) == 0
    after = snapshot(out)
    assert {name: after[name] for name in before} == before
    assert states(out) == dict.fromkeys(NAMES, "done")
    for name in NAMES:
        ours, theirs = (load_checkpoint(folder / name / "last.pt")["model"] for folder in (out, swept))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert read(out)["table"] == read(swept)["table"]


def killed_sweeps(root: str, out: str) -> None:
    """Starts a sweep in two processes that are killed: in an epoch, and before a point is said to be done."""
    write_json = bnn_itrd.experiments.sweep.write_json

    def in_an_epoch(self: Trainer, *args: Any, **options: Any) -> Any:
        if "running" in states(Path(out)).get(NAMES[2], ""):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **options)

    def before_its_result(path: Path, value: Any) -> None:
        if path == Path(out) / NAMES[2] / "result.json":
            os.kill(os.getpid(), signal.SIGKILL)
        write_json(path, value)

    step = Trainer.step
    for owner, name, function in (
        (Trainer, "step", in_an_epoch),
        (bnn_itrd.experiments.sweep, "write_json", before_its_result),
    ):
        if (child := os.fork()) == 0:
            setattr(owner, name, function)
            os._exit(sweep(Path(root), Path(out)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_sweep_resumes(swept: Path, tiny_npz: Path, tmp_path: Path) -> None:
    """Two processes that were killed and one that was not end with the weights and the table of one alone."""
    out = tmp_path / "out"
    code = "import sys; sys.path[:0] = sys.argv[1:3]; import test_sweep; test_sweep.killed_sweeps(*sys.argv[3:])"
    folders = [str(folder) for folder in Path(__file__).parents[:2]]
    command = [sys.executable, "-c", code, *folders, str(tiny_npz), str(out)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    assert list(states(out).values()) == ["done", "done", "running", "waiting"]
    assert load_checkpoint(out / NAMES[2] / "last.pt")["epoch"] == 1
    assert not (out / NAMES[2] / "result.json").exists()
    before = snapshot(out)
    assert sweep(tiny_npz, out) == 0
    after = snapshot(out)
    assert {name: after[name] for name in before if name.split("/")[0] in NAMES[:2]} == {
        name: before[name] for name in before if name.split("/")[0] in NAMES[:2]
    }
    for name in NAMES:
        ours, theirs = (load_checkpoint(folder / name / "last.pt")["model"] for folder in (out, swept))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert read(out)["table"] == read(swept)["table"]
    assert not list(out.rglob(".*.tmp"))


def test_done_sweep_trains_nothing(copy: Path, tiny_npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr(bnn_itrd.experiments.sweep, "train_member", never)
    before = snapshot(copy)
    assert sweep(tiny_npz, copy) == 0
    assert snapshot(copy) == before


def test_larger_grid_trains_what_is_new(copy: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(copy)
    assert sweep(tiny_npz, copy, "--json", "--log.progress=false", grid=[*GRID[:3], "train.seed=0,1,2"]) == 0
    assert json.loads(capsys.readouterr().out) == read(copy)
    after = snapshot(copy)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"recu-plain-s2", "recu-kd-s2"}
    assert [len(row["top1"]) for row in read(copy)["table"]] == [3, 3]


def test_a_failing_point_does_not_stop_the_others(tiny_npz: Path, tmp_path: Path, capsys: Any) -> None:
    """A learning rate that no training survives, and one that it does."""
    out = tmp_path / "out"
    assert sweep(tiny_npz, out, grid=["--methods", "plain", "--grid", "train.lr=1e30,0.05"]) == 1
    assert states(out) == {"recu-plain-lr1e30-s0": "failed", "recu-plain-lr0.05-s0": "done"}
    failed, done = read(out)["points"]
    assert "not finite" in failed["error"] and failed["top1"] is None
    assert done["error"] is None and done["top1"] >= 0
    assert table_cells(read(out)["table"])[0]["seeds"] == "0 of 1"
    assert "failed" in capsys.readouterr().out
    assert not (out / "teachers").exists()  # nobody needed one


def test_a_failing_teacher(tiny_npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert sweep(tiny_npz, out, "--teacher_train.lr=1e30", grid=["--methods=kd,itrd"]) == 1
    assert list(states(out).values()) == ["done", "failed", "failed"]
    assert all(p["error"].startswith("its teacher failed: ") for p in read(out)["points"][1:])


def test_given_teacher(swept: Path, tiny_npz: Path, tmp_path: Path) -> None:
    given = swept / "teachers" / "resnet8-s0"
    out = tmp_path / "out"
    assert sweep(tiny_npz, out, f"--teacher={given}", grid=["--methods", "kd", "--reference", "kd"]) == 0
    assert not (out / "teachers").exists()
    ours, theirs = (load_checkpoint(f / "recu-kd-s0" / "last.pt") for f in (out, swept))
    assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in theirs["model"])


def test_another_teacher_is_noticed(copy: Path, tiny_npz: Path) -> None:
    path = copy / "recu-kd-s0" / "result.json"
    result = json.loads(path.read_text())
    result["identity"]["teacher_sha256"] = "0" * 64
    path.write_text(json.dumps(result))
    shutil.rmtree(copy / "recu-kd-s1")
    assert sweep(tiny_npz, copy) == 1
    assert states(copy) == {**dict.fromkeys(NAMES, "done"), "recu-kd-s0": "failed"}
    assert "another teacher" in read(copy)["points"][1]["error"]


def test_another_given_teacher_is_noticed(copy: Path, tiny_npz: Path, tmp_path: Path) -> None:
    """Also where every point has a result, so that nothing is trained."""
    other = tmp_path / "other"
    assert sweep(tiny_npz, other, "--teacher_train.seed=1", grid=["--methods", "kd"]) == 0
    before = snapshot(copy)
    assert sweep(tiny_npz, copy, f"--teacher={copy}/teachers/resnet8-s0") == 0
    assert sweep(tiny_npz, copy, f"--teacher={other}/teachers/resnet8-s1") == 1
    assert [name for name, state in states(copy).items() if state == "failed"] == NAMES[1::2]
    assert [len(row["top1"]) for row in read(copy)["table"]] == [2, 0]
    assert snapshot(copy) == before


def test_two_sweeps_in_one_folder(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with exclusive_folder(out):
        assert sweep(tiny_npz, out) == 2
        assert not list(out.iterdir())
    assert "is at work in" in capsys.readouterr().err
    with exclusive_folder(out):  # let go of
        pass


def test_another_configuration_is_refused(copy: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(copy)
    assert sweep(tiny_npz, copy, "--train.lr=0.2") == 2
    message = capsys.readouterr().err
    assert "recu-plain-s0" in message and "train.lr: 0.1 there, 0.2 given" in message
    shutil.rmtree(copy / "recu-kd-s0")
    (copy / "recu-kd-s1" / "result.json").unlink()
    assert sweep(tiny_npz, copy, "--teacher_train.lr=0.2") == 2
    assert "teacher" in capsys.readouterr().err
    assert {k: v for k, v in before.items() if k in snapshot(copy)} == snapshot(copy)


def test_damaged_result(copy: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "recu-kd-s0" / "result.json").write_text("{")
    assert sweep(tiny_npz, copy) == 2
    assert "is not the result of a training in a sweep" in capsys.readouterr().err
