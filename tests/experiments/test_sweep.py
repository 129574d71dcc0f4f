"""Sweeps: the grid, what is refused before any training, resuming, and the table against NumPy and SciPy."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import yaml
from helpers import TINY

import bnn_itrd.experiments.sweep
from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.distillers import METHODS
from bnn_itrd.errors import UserError
from bnn_itrd.experiments.grid import make_points, parse_axis, student_trees
from bnn_itrd.experiments.statistics import method_statistics, std_interval, table_cells, table_notes, welch
from bnn_itrd.experiments.sweep import reference_of
from bnn_itrd.runs.load import load_member
from bnn_itrd.runs.lock import exclusive_folder
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.trainer import Trainer

SMALL = [
    *TINY,
    "--train.epochs=1",
    "--network.name=resnet8",
    "--network.width=0.5",
    "--data.image_size=8",
    "--data.val_fraction=0.25",
    "--log.tensorboard=false",
]
GRID = ["--methods", "kd", "--grid", "train.seed=0,1"]
NAMES = ["recu-plain-s0", "recu-kd-s0", "recu-plain-s1", "recu-kd-s1"]


def sweep(root: Path, out: Path, *arguments: str, grid: list[str] = GRID) -> int:
    return main(["sweep", "digits", *SMALL, f"--data.root={root}", f"--out={out}", *grid, *arguments])


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


# ---- a whole sweep


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


def test_weights_of_a_library_teacher_are_told_apart() -> None:
    made = points("teacher_weights=a.pth,b.pth", methods=["kd"], argv=["--teacher=torchvision:resnet18"])[2:]
    runner = bnn_itrd.experiments.sweep.Sweep(made, Path("out"), recipe="", reference="kd")
    assert len({runner._teacher_key(point) for point in made}) == 2


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
    assert "is not the result of a sweep" in capsys.readouterr().err


# ---- the grid


def points(*axes: str, methods: list[str] | None = None, argv: list[str] | None = None, **options: Any) -> list[Any]:
    recipe = {"network": {"name": "resnet8"}}
    return make_points(recipe, student_trees(methods, recipe), [parse_axis(a) for a in axes], argv or [], **options)


def test_names_and_order() -> None:
    made = points("scheme.weight=recu,xnor", "train.seed=0,1", methods=["kd"])
    assert [p.name for p in made] == [
        f"{weight}-{student}-s{seed}" for seed in (0, 1) for student in ("plain", "kd") for weight in ("recu", "xnor")
    ]
    assert [(p.config.scheme.weight, p.seed) for p in made[:2]] == [("recu", 0), ("xnor", 0)]
    assert {p.teacher for p in made} == {"resnet8-s0"}  # a scheme is the students' own
    assert all(p.teacher_member == made[0].teacher_member for p in made)
    assert [p.name for p in points("train.seed=3")] == ["recu-s3", "recu-itrd-s3"]  # the recipe's own students


def test_an_axis_of_one_student() -> None:
    made = points("students.kd.kd.tau=2,4", "train.lr=0.1,0.05", methods=["kd"])
    assert [p.name for p in made] == [
        "recu-plain-lr0.1-s0",
        "recu-plain-lr0.05-s0",
        *(f"recu-kd-tau{tau}-lr{lr}-s0" for tau in (2, 4) for lr in (0.1, 0.05)),
    ]
    assert [p.member.distill.kd.tau for p in made[2:]] == [2, 2, 4, 4]
    assert made[0].member.distill.kd is None


def test_labels_that_would_be_alike() -> None:
    name = points("train.lr=0.1", "teacher_train.lr=0.2", "network.name=resnet8", methods=["plain"])[0].name
    assert name == "recu-plain-train_lr0.1-teacher_train_lr0.2-resnet8-s0"


def test_teachers() -> None:
    assert {p.teacher for p in points("train.seed=0,1", methods=["kd"], teacher_per_seed=True)} == {
        "resnet8-s0",
        "resnet8-s1",
    }
    made = points("network.padding_value=0,-1", "network.width=1,0.5", methods=["kd"])
    # Padding after the sign concerns students, width both.
    assert {p.teacher for p in made} == {"resnet8-width1-s0", "resnet8-width0.5-s0"}
    by_name = {p.teacher: p.teacher_member for p in made}
    assert all(p.teacher_member == by_name[p.teacher] for p in made)


def test_a_teacher_of_another_network() -> None:
    recipe = {"network": {"name": "resnet8", "teacher": "resnet14", "shortcut": "projection"}}
    trees = student_trees(["kd"], recipe)
    point = make_points(recipe, trees, [])[1]
    assert (point.teacher, point.teacher_member.network.name) == ("resnet14-s0", "resnet14")
    assert point.member.network.name == "resnet8"
    made = make_points(recipe, trees, [parse_axis("network.teacher=resnet14,resnet20")])[2:]
    assert [(p.name, p.teacher) for p in made] == [
        ("recu-kd-teacherresnet14-s0", "resnet14-s0"),
        ("recu-kd-teacherresnet20-s0", "resnet20-s0"),
    ]
    for name, recipe in recipes.PAIRS.items():
        if name.startswith("cifar100-") and recipe[1].get("teacher") is None:
            point = make_points(recipe[1], student_trees(None, recipe[1]), [])[1]
            assert name == f"cifar100-{point.teacher_member.network.name}-{point.member.network.name}"


def test_names_of_students_in_full_precision() -> None:
    made = points("scheme.binary=true,false", methods=["kd"])
    assert [p.name for p in made[2:]] == ["recu-kd-binarytrue-s0", "kd-binaryfalse-s0"]


def test_methods_take_the_options_of_the_recipe() -> None:
    recipe = {"students": {"crd": {"crd": {"negatives": 64}}, "mine": {"kd": {}}}}
    assert student_trees(["crd", "kd"], recipe) == {"plain": {}, "crd": {"crd": {"negatives": 64}}, "kd": {"kd": {}}}
    assert list(student_trees(["all"], recipe)) == ["plain", *METHODS]
    assert student_trees(["all", "plain"], recipe) == student_trees(["all"], recipe)
    assert student_trees(None, recipe) == recipe["students"]


def test_reference() -> None:
    made = points("train.seed=0,1", methods=["kd"])
    assert reference_of(made) == "plain"
    assert reference_of(made, "kd") == "kd"
    assert reference_of(points("scheme.weight=xnor,recu", methods=["plain"])) == "xnor-plain"
    with pytest.raises(UserError, match="unknown --reference 'kdd', did you mean 'kd'"):
        reference_of(made, "kdd")


def test_brackets_keep_commas() -> None:
    assert parse_axis("students.x.kd={tau: 2, weight: 1},{}").values == ("{tau: 2, weight: 1}", "{}")
    assert parse_axis("train.seed = 0, 1".replace(" =", "=")).values == ("0", "1")


@pytest.mark.parametrize("name", ["methods", "methods-cifar10"])
def test_the_recipe_of_all_methods(tmp_path: Path, name: str) -> None:
    """Every distiller has its run, and what it needs fits the images."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.yaml"
    recipe = recipes.read(str(path))
    argv = []
    if recipe["data"]["name"] == "cifar10":
        images, labels = np.zeros((4000, 16, 16, 3), np.uint8), np.arange(4000) % 10
        np.savez(tmp_path / "c.npz", x_train=images, y_train=labels, x_test=images[:10], y_test=labels[:10])
        argv = ["--data.root", str(tmp_path / "c.npz")]
    made = make_points(recipe, student_trees(["all"], recipe), [parse_axis("train.seed=0,1,2")], argv)
    assert len(made) == 3 * (1 + len(METHODS))
    assert set(yaml.safe_load(path.read_text())["students"]) <= set(METHODS)
    kd = next(p for p in made if p.student == "kd").member.distill
    assert kd.kd is not None and (kd.ce, kd.kd.weight) == (0.1, 0.9)  # Tian et al. 2020: both, not the second alone
    bnn_itrd.experiments.sweep.check_points([p for p in made if p.seed == 0])


# ---- what is refused before any training

REFUSED = {
    "no grid": ([], "the grid is empty"),
    "no value": (["--grid", "train.seed="], "--grid train.seed is empty"),
    "a hole": (["--grid", "train.seed=0,,1"], "--grid train.seed has an empty value"),
    "no field": (["--grid", "0,1"], "--grid must be FIELD=VALUE,VALUE"),
    "no axis": (["--grid"], "--grid needs an axis"),
    "unknown field": (["--grid", "train.lrr=1"], "unknown field in --grid 'train.lrr'.*did you mean 'train.lr'"),
    "a group": (["--grid", "train=1"], "unknown field in --grid 'train'"),
    "unknown method": (["--methods", "kdd"], "unknown method 'kdd'.*did you mean 'd?kd'"),
    "no method": (["--methods"], "--methods is empty"),
    "method twice": (["--methods", "kd", "kd"], "--methods names kd more than once"),
    "axis twice": (["--grid", "train.seed=0", "--grid", "train.seed=1"], "--grid train.seed is given more than once"),
    "value twice": (["--grid", "train.seed=0,0"], "two points of the grid are called recu-s0"),
    "wrong type": (["--grid", "train.seed=0,many"], "train.seed must be int, got many"),
    "out of range": (["--grid", "train.lr=0.1,-1"], r"train.lr must be > 0 .--train.lr 0.1., got -1.0"),
    "unknown student": (
        ["--methods", "kd", "--grid", "students.kdd.kd.tau=2"],
        "unknown student in --grid students.kdd.kd.tau: 'kdd'.*did you mean 'kd'",
    ),
    "unknown option": (["--methods", "kd", "--grid", "students.kd.kd.tauu=2"], "tauu"),
    "option of wrong type": (["--methods", "kd", "--grid", "students.kd.kd.tau=hot"], r"students\.kd\.kd\.tau must be"),
    "unknown network": (["--grid", "network.name=resnet8,resnet9"], "recu-resnet9-s0: unknown network 'resnet9'"),
    "unknown scheme": (["--grid", "scheme.weight=recu,xnorr"], "xnorr-recu-s0: scheme.*xnorr"),
    "too few negatives": (["--methods", "crd"], "recu-crd-s0: students.crd.crd.negatives must be in .*got 16384"),
    "no such stage": (
        ["--methods", "fitnet", "--students.fitnet.fitnet.stage=7"],
        "recu-fitnet-s0: fitnet.stage must be in",
    ),
    "batch size": (["--grid", "train.batch_size=32,1000"], "recu-batch_size1000-s0: train.batch_size 1000 is larger"),
    "teacher's batch size": (["--methods=kd", "--teacher_train.batch_size=999"], "teacher_train.batch_size 999 is"),
    "processes": (["--methods", "kd", "--fabric.devices=2"], "a sweep runs in one process"),
    "no such teacher": (["--methods", "kd", "--teacher=/nowhere"], "recu-kd-s0: no such file or folder: /nowhere"),
    "unknown reference": (["--methods", "kd", "--reference=dkd"], "unknown --reference 'dkd'"),
    "a flag's value": (["--methods", "kd", "--json=true"], "--json takes no value"),
    "unknown data": (["--grid", "data.name=cifar10,cifar11"], "unknown data set 'cifar11'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_training(
    case: str,
    tiny_npz: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    grid, message = REFUSED[case]
    assert sweep(tiny_npz, tmp_path / "out", grid=grid) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_recipe_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--grid", "train.seed=0"]) == 2
    assert "bnn-itrd sweep needs a recipe" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    assert "--teacher_per_seed" in capsys.readouterr().out


# ---- the table


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 3), (3, 5), (12, 4)])
def test_welch_is_scipys(n: int, m: int) -> None:
    rng = np.random.default_rng(n * 100 + m)
    a, b = rng.normal(80, 3, n), rng.normal(82, 0.5, m)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False)
    ours = welch(list(a), list(b))
    assert ours is not None
    assert (ours.t, ours.df, ours.p) == pytest.approx((expected.statistic, expected.df, expected.pvalue), rel=1e-9)


def test_welch_says_nothing_without_spread() -> None:
    assert welch([1.0], [1.0, 2.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None


def test_std_interval() -> None:
    # Tables of the chi-square distribution with 2 degrees of freedom: 0.0506 and 7.378 at 2.5 and 97.5 %.
    assert std_interval(3) == pytest.approx(((2 / 7.378) ** 0.5, (2 / 0.0506) ** 0.5), rel=1e-3)


def results(values: dict[str, list[float | None]], fields: dict[str, str] | None = None) -> list[dict[str, Any]]:
    return [
        {"row": name, "student": name, "fields": fields or {}, "seed": seed, "top1": value}
        for name, column in values.items()
        for seed, value in enumerate(column)
    ]


def test_table_is_numpys() -> None:
    values = {"plain": [80.0, 81.0, 79.5], "kd": [84.0, 84.5, 83.9], "at": [80.4, 81.9, 79.0]}
    table = method_statistics(results(values), "plain")
    for row, (name, column) in zip(table, values.items(), strict=True):
        assert row["row"] == name and row["top1"] == column and row["seeds"] == [0, 1, 2]
        assert row["mean"] == pytest.approx(np.mean(column))
        assert row["std"] == pytest.approx(np.std(column, ddof=1))
        if name == "plain":
            assert row["reference"] is row["difference"] is row["p"] is None
            continue
        expected = scipy.stats.ttest_ind(column, values["plain"], equal_var=False)
        assert row["difference"] == pytest.approx(np.mean(column) - np.mean(values["plain"]))
        assert row["p"] == pytest.approx(expected.pvalue)
    assert [row["verdict"] for row in table] == [None, "larger than the spread", "within the spread"]
    cells = table_cells(table)
    assert cells[0]["top-1 %"] == "80.17 ± 0.76" and cells[0]["difference is"] == "reference"
    assert cells[1]["to the reference"] == "+3.97" and cells[1]["p"] == f"{table[1]['p']:.3f}"


def test_reference_of_the_same_setting() -> None:
    table = [("recu", "plain", 1.0), ("xnor", "plain", 2.0), ("recu", "kd", 4.0), ("xnor", "kd", 8.0)]
    rows = [
        {"row": f"{weight}-{student}", "student": student, "seed": 0, "top1": top1}
        | {"fields": {"scheme.weight": weight, f"students.{student}.kd.tau": "2"}}
        for weight, student, top1 in table
    ]
    by_student = method_statistics(rows, "plain")
    assert [row["reference"] for row in by_student] == [None, None, "recu-plain", "xnor-plain"]
    assert [row["difference"] for row in by_student] == [None, None, 3.0, 6.0]
    assert by_student[2]["verdict"] == "not to be told"  # one seed
    assert [row["difference"] for row in method_statistics(rows, "xnor-plain")] == [-1.0, None, 2.0, 6.0]


def test_a_reference_that_is_a_student_and_a_row() -> None:
    """`recu` with ReCU's weights has the row `recu`: under XNOR's, `xnor-recu` is still the reference."""
    rows = [
        {"row": row, "student": student, "fields": {"scheme.weight": weight}, "seed": 0, "top1": top1}
        for row, student, weight, top1 in [
            ("recu", "recu", "recu", 1.0),
            ("xnor-recu", "recu", "xnor", 2.0),
            ("recu-itrd", "recu-itrd", "recu", 4.0),
            ("xnor-recu-itrd", "recu-itrd", "xnor", 8.0),
        ]
    ]
    assert [row["reference"] for row in method_statistics(rows, "recu")] == [None, None, "recu", "xnor-recu"]
    assert [row["reference"] for row in method_statistics(rows[:2], "recu")] == [None, "recu"]  # schemes of one student


def test_missing_results() -> None:
    table = method_statistics(results({"plain": [None, None], "kd": [80.0, None]}), "plain")
    assert table[0]["mean"] is None and table[1]["difference"] is None and table[1]["std"] is None
    assert table_cells(table)[1]["seeds"] == "1 of 2"
    assert any("missing" in line for line in table_notes(table))


def test_notes_say_how_little() -> None:
    def notes(values: dict[str, list[float | None]]) -> str:
        return " ".join(table_notes(method_statistics(results(values), "plain")))

    few = notes({"plain": [1.0, 2.0], "a": [1.0, 3.0], "b": [2.0, 4.0]})
    assert "2 seeds are few" in few and "2 comparisons" in few and "0.1 of them" in few
    one = notes({"plain": [1.0], "a": [2.0]})
    assert "a single seed there is no spread" in one and "Welch" not in one
    values = list(np.random.default_rng(0).normal(size=12))
    assert "are few" not in notes({"plain": values, "a": values[::-1]})


# ---- the sweeps of the repository


@pytest.mark.parametrize(("folder", "column"), [("methods", 1), ("methods-cifar10", 3)])
def test_the_methods_table_is_that_of_the_results(folder: str, column: int) -> None:
    """results/: every distiller with 3 seeds, the table made of its points; sweep.md shows the same numbers."""
    root = Path(__file__).parents[2]
    record = json.loads((root / "results" / folder / "sweep.json").read_text())
    made = method_statistics(record["points"], record["reference"])
    assert made == record["table"] and table_cells(made)
    by_student = {row["student"]: row for row in made}
    assert by_student.keys() <= {"plain", *METHODS} and len(by_student) > 20
    assert all(len(row["seeds"]) == 3 for row in made), "every seed of every method"
    text = (root / "docs" / "guides" / "sweep.md").read_text().partition("<!-- methods -->\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    assert {row[0].strip("`") for row in rows} == by_student.keys()
    for name, *cells in rows:
        row = by_student[name.strip("`")]
        assert cells[column - 1] == f"{row['mean']:.2f} ± {row['std']:.2f}"
        larger = (row["verdict"] or "").startswith("larger")
        difference = "" if row["difference"] is None else f"{row['difference']:+.2f}"
        assert cells[column] == (f"**{difference}**" if larger else difference)
