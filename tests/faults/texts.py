"""Recipes, configurations, and the JSON of runs and sweeps, damaged as text and as the values that they hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import yaml
from helpers import write_npz

from faults.exports import CLASSES, SHAPE, small_network
from faults.mutations import mutate_bytes, mutate_tree
from faults.outcomes import OPENED, REFUSED, Silent, run_command
from faults.states import SMALL_RUN

__all__ = [
    "mutate_json",
    "mutate_states",
    "mutate_yaml",
    "open_json",
    "open_states",
    "open_yaml",
    "prepare_json",
    "prepare_states",
    "prepare_yaml",
]

_ROOT = Path(__file__).resolve().parents[2]
_SELDOM = 25


def _write_onnx(folder: Path) -> None:
    from bnn_itrd.export import to_onnx

    to_onnx(
        small_network(),
        folder / "student.onnx",
        input_shape=SHAPE,
        normalization=([0.5] * 3, [0.2] * 3),
        classes=CLASSES,
        metadata={"dataset": "cifar10"},
    )


def _beside_file(path: Path, folder: Path, name: str) -> int:
    """The status of `evaluate` and `validate` on an exported file that has the damaged one beside it."""
    place = path.with_suffix(".folder")
    place.mkdir()
    try:
        shutil.copy(folder / "student.onnx", place)
        shutil.copy(path, place / name)
        status, _ = run_command("evaluate", place / "student.onnx", f"--data.root={folder / 'tiny.npz'}")
        run_command("validate", place / "student.onnx", f"--data.root={folder / 'tiny.npz'}")
        return status
    finally:
        shutil.rmtree(place)


# YAML


def prepare_yaml(folder: Path) -> None:
    """Copies recipes, and writes a run's config.yaml, a data set and an exported file."""
    from bnn_itrd import recipes

    good = folder / "good"
    good.mkdir()
    for name in ("digits", "cifar10-resnet20"):
        if name in recipes.names():
            shutil.copy(_ROOT / "bnn_itrd/recipes" / f"{name}.yaml", good)
    config = {"recipe": "digits", "data": {"name": "cifar10", "image_size": 8, "val_fraction": 0.25, "classes": None}}
    (good / "config.yaml").write_text(yaml.safe_dump(config))
    write_npz(folder / "tiny.npz")
    _write_onnx(folder)


def mutate_yaml(folder: Path, rng: np.random.Generator) -> tuple[str, bytes, str]:
    """Damages the text, or the values."""
    files = sorted((folder / "good").iterdir())
    file = files[int(rng.integers(len(files)))]
    data = file.read_bytes()
    if rng.random() < 0.4:
        return file.name, mutate_bytes(data, rng), "bytes"
    return file.name, yaml.safe_dump(mutate_tree(yaml.safe_load(data), rng), allow_unicode=True).encode(), "values"


def open_yaml(path: Path, folder: Path, how: str, number: int) -> str:
    """Describes a recipe's networks, now and then begins its run; a config.yaml stands beside an exported file."""
    if path.name.endswith("config.yaml"):
        return OPENED if _beside_file(path, folder, "config.yaml") == 0 else REFUSED
    status, _ = run_command("summary", path)
    if number % _SELDOM == 0:
        out = path.with_suffix(".run")
        data = f"--data.root={folder / 'tiny.npz'}"
        run_command("run", path, *SMALL_RUN, data, f"--out={out}", "--max_seconds=0.01")
        shutil.rmtree(out, ignore_errors=True)
    return OPENED if status == 0 else REFUSED


# JSON


def prepare_json(folder: Path) -> None:
    """Copies a comparison.json, and writes an exported file that it can stand beside, and its data set."""
    good = folder / "good"
    good.mkdir()
    shutil.copy(_ROOT / "results/cifar10-resnet20-recu-itrd-e6-val-s0/comparison.json", good)
    write_npz(folder / "tiny.npz")
    _write_onnx(folder)


def _mutated_json(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    if rng.random() < 0.4:
        return mutate_bytes(data, rng), "bytes"
    return json.dumps(mutate_tree(json.loads(data), rng)).encode(), "values"


def mutate_json(folder: Path, rng: np.random.Generator) -> tuple[str, bytes, str]:
    """Damages the text, or the values."""
    return ("comparison.json", *_mutated_json((folder / "good/comparison.json").read_bytes(), rng))


def open_json(path: Path, folder: Path, how: str, number: int) -> str:
    """Compares it in every form; now and then it stands beside an exported file."""
    place = path.with_suffix(".folder")
    place.mkdir()
    try:
        shutil.copy(path, place / "comparison.json")
        statuses = {run_command("compare", place, *form)[0] for form in ([], ["--markdown"], ["--json"])}
    finally:
        shutil.rmtree(place)
    if number % _SELDOM == 0:
        _beside_file(path, folder, "comparison.json")
    return OPENED if statuses == {0} else REFUSED


# What a run and a sweep say of themselves: status.json, result.json


def prepare_states(folder: Path) -> None:
    """Makes a sweep with its result.json, and a run with its status.json."""
    root = f"--data.root={write_npz(folder / 'tiny.npz')}"
    for command in _STATES:
        status, told = run_command(*_again(command), root, f"--out={folder / command}")
        assert status == 0, told


_STATES = {"run": "status.json", "sweep": "recu-plain-s0/result.json"}


def _again(command: str) -> list[str]:
    fields = [field for field in SMALL_RUN if command == "run" or not field.startswith("--report")]
    grid = ["--methods", "kd", "--grid", "train.seed=0"] if command == "sweep" else []
    return [command, "digits", *fields, "--log.tensorboard=false", *grid]


def mutate_states(folder: Path, rng: np.random.Generator) -> tuple[str, bytes, str]:
    """Damages the text, or the values, of one of the two."""
    command = str(rng.choice(["run", "sweep", "sweep", "sweep"]))
    data, how = _mutated_json((folder / command / _STATES[command]).read_bytes(), rng)
    return Path(_STATES[command]).name, data, how


def open_states(path: Path, folder: Path, how: str, number: int) -> str:
    """Continues the sweep, or the run, whose status.json nobody reads: it is written anew."""
    command = "run" if path.name.endswith("status.json") else "sweep"
    out = path.with_suffix(".again")
    shutil.copytree(folder / command, out)
    try:
        shutil.copy(path, out / _STATES[command])
        status, told = run_command(*_again(command), f"--data.root={folder / 'tiny.npz'}", f"--out={out}")
        if command == "run" and json.loads((out / "status.json").read_text()) != {"finished": True}:
            raise Silent(f"status.json was not written anew: {told}")
    finally:
        shutil.rmtree(out)
    return OPENED if status == 0 else REFUSED
