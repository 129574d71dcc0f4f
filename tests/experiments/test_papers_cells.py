"""Which run fills which cell of the papers' tables: by its configuration, its pair and its options."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.papers import SMALL_TEACHER, write_run

from bnn_itrd.errors import UserError
from bnn_itrd.experiments.papers.cells import fill
from bnn_itrd.experiments.papers.commands import small_tasks
from bnn_itrd.experiments.papers.published import published_table, small_cell
from bnn_itrd.experiments.papers.runs import find_runs
from bnn_itrd.experiments.papers.view import show_table


def shown(name: str, folder: Path) -> dict[str, list[tuple[float, tuple[int, ...], tuple[str, ...]]]]:
    table = show_table(published_table(name), find_runs([folder]))
    return {cell.row: [(each.mean, each.seeds, each.differs) for each in found] for cell, found in table.filled}


def test_a_run_fills_a_cell_by_its_configuration(tmp_path: Path) -> None:
    """Names of folders and students say nothing."""
    for seed, top1 in ((0, 92.0), (1, 93.0)):
        write_run(tmp_path / f"x{seed}", "cifar10-itrd-paper", "recu", top1, seed=seed)
    write_run(tmp_path / "recu-itrd", "cifar10", "recu", 91.0)
    write_run(tmp_path / "t" / "teacher", "cifar10-itrd-paper", "teacher", 94.5)
    write_run(tmp_path / "t" / "any", "cifar10-itrd-paper", "recu-corr", 93.5, "--train.epochs=72")
    write_run(tmp_path / "t" / "kind", "cifar10-itrd-paper", "recu-itrd", 94.0, "--data.val_fraction=0.1", split="val")
    # Another network, another binarisation, other data, a training that is not at its end.
    write_run(tmp_path / "n", "cifar10-itrd-paper", "recu", 1.0, "--network.per_conv=true")
    write_run(tmp_path / "b", "cifar10-itrd-paper", "recu", 2.0, "--scheme.nonlinearity=rprelu")
    write_run(tmp_path / "d", "cifar10-itrd-paper", "recu", 3.0, "--data.name=cifar100")
    write_run(tmp_path / "u", "cifar10-itrd-paper", "recu", 4.0, epochs=80)
    ours = shown("itrd-3", tmp_path)
    assert ours["ReCU"] == [
        (92.5, (0, 1), ()),
        (91.0, (0,), ("epochs 30 (600)", "nesterov true (false)", "warmup_epochs 2 (5)")),
    ]
    assert ours["Full precision"] == [(94.5, (0,), ())]
    assert ours["ReCU + L_corr"] == [(93.5, (0,), ("epochs 72 (600)",))]
    assert ours["ReCU + L_corr + L_mi"] == [(94.0, (0,), ("data.val_fraction 0.1 (0)", "scored on held-out images"))]
    assert set(ours) == {"ReCU", "Full precision", "ReCU + L_corr", "ReCU + L_corr + L_mi"}
    lines = show_table(published_table("itrd-3"), find_runs([tmp_path])).lines()
    assert f"Not trained to its end: {tmp_path / 'u'} (epoch 80 of 600)" in " ".join(lines)
    assert "Teacher of our students, ResNet-18: 94.50 % (published: 94.8)" in lines


def test_a_pair_is_known_by_its_teacher_and_a_column_by_its_fields(tmp_path: Path) -> None:
    vgg = "cifar100-vgg13-vgg8"
    write_run(tmp_path / "a" / "teacher", vgg, "teacher", 74.0)
    write_run(tmp_path / "a" / "kd", vgg, "kd", 73.0)
    write_run(tmp_path / "lonely", vgg, "kd", 60.0)  # nothing says which teacher
    table = show_table(published_table("itrd-1"), find_runs([tmp_path]))
    filled = {(cell.row, cell.column): found[0].mean for cell, found in table.filled}
    # VGG-13 is the teacher of two columns; ResNet-50 to VGG-8 has another one.
    assert filled == {("Teacher", "V13 V8"): 74.0, ("Teacher", "V13 MN2"): 74.0, ("KD", "V13 V8"): 73.0}
    few = tmp_path / "few"
    write_run(few / "p", "cifar10-small", "plain", 80.0, "--data.per_class=500")
    cells = show_table(published_table("vid-1a"), find_runs([few])).filled
    assert [(cell.row, cell.column) for cell, _ in cells] == [("Student", "500")]


def test_a_run_that_some_of_the_labels_teach_fills_no_cell_of_all_labels(tmp_path: Path) -> None:
    words = ("--data.per_class=1000", "--data.unlabelled=true")
    write_run(tmp_path / "few", "cifar10-small", "kd", 91.0, *words)
    write_run(tmp_path / "teacher", "cifar10-small", "teacher", 94.0, "--data.per_class=null")
    runs = find_runs([tmp_path])
    for name, filled in (("vid-1a", []), ("vid-1b", [("KD", "1000")])):
        cells = [cell for cell in published_table(name).cells if cell.row == "KD" and cell.column == "1000"]
        assert [(cell.row, cell.column) for cell in cells if fill(cell, runs)] == filled


def test_a_run_with_other_options_stands_behind_and_leaves_its_cell_to_be_trained(tmp_path: Path) -> None:
    """An ablation is no reading of the method: neither its alpha nor its number of seeds brings it to the front."""
    pair, table = "small-itrd-1", published_table("itrd-1")
    write_run(tmp_path / "teacher", pair, "teacher", 60.0, *SMALL_TEACHER)
    for seed in range(3):
        write_run(tmp_path / f"a{seed}", pair, "itrd", 10.0 + seed, "--students.itrd.itrd.alpha=10.0", seed=seed)
    cell = small_cell(table.cell("L_corr + L_mi", "R56 R20"), table)
    assert [each.same_methods for each in fill(cell, find_runs([tmp_path]))] == [False]
    assert small_tasks(table, find_runs([tmp_path]))[-1].fills == "45 of 45 trainings"
    write_run(tmp_path / "it", pair, "itrd", 55.0)
    runs = find_runs([tmp_path])
    assert [(each.mean, each.same_methods) for each in fill(cell, runs)] == [(55.0, True), (11.0, False)]
    assert small_tasks(table, runs)[-1].fills == "44 of 45 trainings"


def test_a_switch_has_a_cell_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "teacher", "small-itrd-1", "teacher", 60.0, *SMALL_TEACHER)
    for i, text in enumerate(('{"alpha": 1.01}', '{"alpha": 1.01, "order": 3.0}', '{"alpha": 1.01, "log": true}')):
        words = [f"--students.itrd.itrd={text}", *(["--students.itrd.itrd.gather=false"] if i == 1 else [])]
        write_run(tmp_path / f"x{i}", "small-itrd-1", "itrd", 50.0 + i, *words)
    runs, table = find_runs([tmp_path]), published_table("itrd-switches")
    cells = [small_cell(cell, table) for cell in (table.cells[0], table.cells[2], table.cells[6])]
    assert {cell.row: [each.mean for each in fill(cell, runs)] for cell in cells} == {
        "L_corr + L_mi": [50.0], "order 3": [51.0], "L_mi with log": [52.0],
    }  # fmt: skip


def test_a_teacher_of_other_images_is_another_teacher(tmp_path: Path) -> None:
    """The student's config.yaml tells where the teacher's folder is not: its network alone says too little."""
    small, table = "small-itrd-1", published_table("itrd-1")
    cell = small_cell(table.cell("KD", "R56 R20"), table)
    few = write_run(tmp_path / "few" / "teacher", small, "teacher", 60.0)
    every = write_run(tmp_path / "all" / "teacher", small, "teacher", 80.0, *SMALL_TEACHER)
    large = write_run(tmp_path / "large" / "teacher", small, "teacher", 85.0, *SMALL_TEACHER, "--data.image_size=null")
    split = write_run(tmp_path / "val" / "teacher", small, "teacher", 79.0, *SMALL_TEACHER, "--data.val_fraction=0.1")
    for i, teacher in enumerate((few, every, large, split, None)):
        write_run(tmp_path / f"s{i}" / "kd", small, "kd", 70.0 + i, teacher=teacher)
    found = fill(cell, find_runs([tmp_path]))
    assert [(each.mean, each.differs) for each in found] == [
        (71.0, ()),
        (73.0, ("teacher's data.val_fraction 0.1 (0)",)),
    ]
    assert [each.runs[0].teacher and each.runs[0].teacher.top1 for each in found] == [80.0, 79.0]


def test_a_teacher_with_its_students_images_differs_as_they_do(tmp_path: Path) -> None:
    """A whole run of few images fills the cell of all images, with what differs said once, for the student."""
    words = ("--data.per_class=500",)
    teacher = write_run(tmp_path / "teacher", "cifar10-itrd-paper", "teacher", 80.0, *words)
    write_run(tmp_path / "recu-kd", "cifar10-itrd-paper", "recu-kd", 79.0, *words, teacher=teacher)
    assert shown("itrd-3", tmp_path)["ReCU + KD"] == [(79.0, (0,), ("data.per_class 500 (none)",))]
    write_run(tmp_path / "other" / "recu-kd", "cifar10-itrd-paper", "recu-kd", 90.0, teacher=teacher)
    assert shown("itrd-3", tmp_path)["ReCU + KD"] == [(79.0, (0,), ("data.per_class 500 (none)",))]


def test_an_option_that_an_older_record_lacks_has_its_default(tmp_path: Path) -> None:
    run = write_run(tmp_path / "x", "cifar10-itrd-paper", "recu-itrd", 94.0)
    write_run(tmp_path / "teacher", "cifar10-itrd-paper", "teacher", 95.0)
    tree = yaml.safe_load((run / "config.yaml").read_text())
    tree["distill"] = {"ce": 1.0, "itrd": {"alpha": 1.01}}
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    assert shown("itrd-3", tmp_path)["ReCU + L_corr + L_mi"] == [(94.0, (0,), ())]


def test_errors_are_told_as_errors_and_what_a_run_does_not_know_stays_empty(tmp_path: Path) -> None:
    name = "imagenet-resnet34-resnet18"
    write_run(tmp_path / "p", name, "plain", 70.0, top5=None)
    cells = show_table(published_table("srd-2"), find_runs([tmp_path])).filled
    assert [(cell.row, cell.column, found[0].mean) for cell, found in cells] == [("Student", "top-1 error", 30.0)]


def test_what_is_no_run_is_passed_over(tmp_path: Path) -> None:
    run = write_run(tmp_path / "x", "cifar10-itrd-paper", "recu", 92.0)
    write_run(run / "first-stage", "cifar10-itrd-paper", "recu", 50.0)
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "metrics.csv").write_text("epoch\n1\n")
    odd = "{name: x, data: {name: [1]}, network: {name: a}, train: {epochs: 1}, distill: {}}"
    for i, text in enumerate(("{a: [", "- 1", "{name: x, distill: {}}", odd)):
        other = tmp_path / f"z{i}"
        other.mkdir()
        (other / "metrics.csv").write_text("epoch,split,top1\n1,test,3\n")
        (other / "config.yaml").write_text(text)
    assert [found.folder for found in find_runs([tmp_path, tmp_path])] == [run]
    with pytest.raises(UserError, match=r"there is no folder .*nowhere to search for runs"):
        find_runs([tmp_path / "nowhere"])
