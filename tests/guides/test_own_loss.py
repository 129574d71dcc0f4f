"""docs/guides/own-loss.md, run as a user would."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from guide_blocks import Guide

from bnn_itrd.training.checkpoint import load_checkpoint

# Few images: these runs are of how a loss is named, not of what it gives.
FEW = ("--data.per_class", "20")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    Guide("own-loss").write(folder)
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> tuple[Guide, Path]:
    """The guide's recipe, run in the user's folder by its first command."""
    guide = Guide("own-loss")
    done = guide.run(folder, guide.commands[0], *FEW)
    assert done.returncode == 0, done.stderr
    return guide, folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def columns(path: Path) -> list[str]:
    return [name for name in rows(path)[0] if name.startswith("loss_")]


def test_a_function_in_python(folder: Path) -> None:
    guide = Guide("own-loss")
    done = guide.run(folder, "python train.py")
    assert done.returncode == 0, done.stderr
    metrics = rows(folder / "runs/mine/metrics.csv")
    assert columns(folder / "runs/mine/metrics.csv") == ["loss_ce", "loss_mine"]
    assert 0 < float(metrics[-1]["loss_mine"]) < 2 and len(metrics) == 2
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(float(metrics[-1]["loss_mine"]), rel=1e-4)
    identity = load_checkpoint(folder / "runs/mine/last.pt")["identity"]
    own = {"distiller": "__main__:cosine", "weight": 1.0, "warmup_epochs": 0.0, "final": 1.0}
    assert {k: v for k, v in identity["distill"].items() if v is not None} == {"ce": 1.0, "mine": own}
    # the same script continues what is done; another function of another name does not
    before = (folder / "runs/mine/metrics.csv").read_bytes()
    assert guide.run(folder, "python train.py").returncode == 0
    assert (folder / "runs/mine/metrics.csv").read_bytes() == before
    text = (folder / "train.py").read_text().replace("def cosine", "def angle").replace(": cosine", ": angle")
    (folder / "other.py").write_text(text)
    other = guide.run(folder, "python other.py")
    assert other.returncode != 0
    assert "distill.mine.distiller: '__main__:cosine' there, '__main__:angle' given" in other.stderr


def test_a_distiller_in_a_recipe(trained: tuple[Guide, Path]) -> None:
    guide, folder = trained
    assert columns(folder / "runs/hint/plain/metrics.csv") == ["loss_ce"]
    assert columns(folder / "runs/hint/hint/metrics.csv") == ["loss_ce", "loss_kd", "loss_Hint"]
    state = load_checkpoint(folder / "runs/hint/hint/last.pt")
    embed = state["objective"]["distillers.Hint.inner.embed.weight"]
    assert embed.shape[0] == embed.shape[1] and embed.abs().sum() > 0
    own = {"weight": 2.0, "warmup_epochs": 0.0, "final": 0.5, "power": 1.5}
    assert state["identity"]["distill"]["mypkg.losses:Hint"] == own
    before = (folder / "runs/hint/hint/metrics.csv").read_bytes()
    assert guide.run(folder, guide.commands[0], *FEW).returncode == 0
    assert (folder / "runs/hint/hint/metrics.csv").read_bytes() == before
    other = guide.run(folder, guide.commands[0], *FEW, "--students.hint.mypkg.losses:Hint.power", "3")
    assert other.returncode == 2
    assert "distill.mypkg.losses:Hint.power: 1.5 there, 3 given" in other.stderr


def test_on_the_command_line_and_in_a_sweep(trained: tuple[Guide, Path]) -> None:
    guide, folder = trained
    done = guide.run(folder, guide.commands[1], *FEW)
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(folder / "runs/cubic/hint/last.pt")["identity"]["distill"]["mypkg.losses:Hint"]["power"] == 3
    done = guide.run(folder, guide.commands[2], *FEW, "--train.epochs", "1", "--teacher_train.epochs", "1")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (folder / "sweeps/hint").glob("recu-*")}
    assert names == {"recu-plain-s0", "recu-kd-s0", "recu-Hint-s0"}
    assert columns(folder / "sweeps/hint/recu-Hint-s0/metrics.csv") == ["loss_ce", "loss_Hint"]


def test_its_run_needs_the_code_no_more_and_imports_it_never(trained: tuple[Guide, Path], tmp_path: Path) -> None:
    guide, folder = trained
    shutil.copytree(folder / "runs/hint", tmp_path / "runs/hint")
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg/losses.py").write_text("raise SystemExit('a user\\'s code was run')\n")
    for command in ("evaluate runs/hint/hint", "export runs/hint/hint --out deploy"):
        done = guide.run(tmp_path, f"bnn-itrd {command}")
        assert done.returncode == 0, done.stderr


WRONG: dict[str, tuple[str, str]] = {
    "no module": ("nowhere:Hint", "there is no module 'nowhere'"),
    "no such name": ("mypkg.losses:Hnt", "module 'mypkg.losses' has no 'Hnt'"),
    "unknown option": (
        "mypkg.losses:Hint.powr=2",
        "unknown option of mypkg.losses:Hint 'powr', did you mean 'power'? Expected one of weight",
    ),
    "no distiller": ("mypkg.losses:nn", "which is not a distiller: expected a Distiller, a subclass of it"),
    "bad weight": ("mypkg.losses:Hint.weight=-1", "mypkg.losses:Hint.weight must be >= 0, got -1.0"),
    "no fields": ("mypkg.losses:Hint=5", "mypkg.losses:Hint must hold fields (weight, warmup_epochs, final and opt"),
    "no colon": (
        "mypkg.losses.Hint.weight=1",
        "unknown field of students.hint 'mypkg', did you mean 'pkt'? Expected one of ce, kd",
    ),
    "not finite": ("wrong:nan", "returned nan on eight made-up samples"),
    "no scalar": (
        "wrong:rows",
        "wrong:rows must return a scalar, a floating-point tensor of shape (), got a tensor of",
    ),
    "detached": ("wrong:detached", "does not depend on the student's outputs, so the student would learn nothing"),
    "fails": ("wrong:fails", "failed on eight made-up samples: KeyError: 'x' (wrong.py, line 17)"),
    "two arguments": ("wrong:two", "wrong:two takes (student, teacher): expected a Distiller"),
}
WRONG_CODE = '''"""What is no distiller."""


def nan(student, teacher, labels):
    return student.logits.mean() * float("nan")


def rows(student, teacher, labels):
    return student.logits.mean(1)


def detached(student, teacher, labels):
    return student.logits.detach().mean()


def fails(student, teacher, labels):
    return {}["x"]


def two(student, teacher):
    return student.logits.mean()
'''


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_object_is_told_before_anything_is_trained(
    folder: Path, case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In this process, the user's folder being the current one: the command's own start would take most of the time."""
    import sys

    from bnn_itrd.config.parse import run_config
    from bnn_itrd.errors import UserError
    from bnn_itrd.recipes import read
    from bnn_itrd.runs.run import run_recipe

    (folder / "wrong.py").write_text(WRONG_CODE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    field, message = WRONG[case]
    name, equals, value = field.partition("=")
    recipe: dict[str, Any] = read("hint.yaml")
    recipe["students"] = {"hint": {}}
    argv = [f"--students.hint.{name}", value if equals else "{}"]
    with pytest.raises(UserError) as caught:
        run_recipe(run_config("run", "", recipe, argv, extra={})[0], tmp_path / "run")
    assert message in str(caught.value) and "students.hint" in str(caught.value)
    assert not (tmp_path / "run").exists()
