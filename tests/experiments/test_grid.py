"""The grid of a sweep: names, order, teachers, methods and the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import bnn_itrd.experiments.sweep
from bnn_itrd import recipes
from bnn_itrd.distillers import METHODS
from bnn_itrd.errors import UserError
from bnn_itrd.experiments.grid import make_points, parse_axis, student_trees
from bnn_itrd.experiments.sweep import reference_of


def test_weights_of_a_library_teacher_are_told_apart() -> None:
    made = points("teacher_weights=a.pth,b.pth", methods=["kd"], argv=["--teacher=torchvision:resnet18"])[2:]
    runner = bnn_itrd.experiments.sweep.Sweep(made, Path("out"), recipe="", reference="kd")
    assert len({runner._teacher_key(point) for point in made}) == 2


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
