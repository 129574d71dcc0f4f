"""The papers' tables: values against a second typing, the view, the commands, the hours."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from helpers.papers import SMALL_TEACHER, config_of, write_run

from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import member_config
from bnn_itrd.errors import UserError
from bnn_itrd.experiments.grid import Axis, make_points, parse_axis, student_trees
from bnn_itrd.experiments.papers.cells import wanted
from bnn_itrd.experiments.papers.commands import missing_tasks, small_tasks
from bnn_itrd.experiments.papers.hours import expected_hours
from bnn_itrd.experiments.papers.published import published_accuracy, published_table, table_names, tables_named
from bnn_itrd.experiments.papers.relative import relative_improvement
from bnn_itrd.experiments.papers.runs import find_runs
from bnn_itrd.experiments.papers.view import show_table
from bnn_itrd.models import summary
from bnn_itrd.nlp.options import squad_config
from bnn_itrd.runs.networks import build

ROOT = Path(__file__).resolve().parents[2]
# Options whose value the reader's shell knows.
FILES = ("--data.root", "--teacher_weights", "--network.weights", "--pretrained")

# ---- the values

# Typed from the papers a second time: a value or more of every table, and whole rows where a slip is easiest.
TYPED_AGAIN = """
itrd-1 | KD | W40-2 W16-2 | 74.92
itrd-1 | FitNet | R56 R20 | 69.21
itrd-1 | AT | R50 MN2 | 58.58
itrd-1 | SP | R32x4 SN2 | 74.56
itrd-1 | CC | R110 R32 | 71.48
itrd-1 | RKD | R32x4 R8x4 | 71.90
itrd-1 | PKT | W40-2 SN1 | 73.89
itrd-1 | FT | V13 MN2 | 61.78
itrd-1 | NST | V13 V8 | 71.53
itrd-1 | CRD | R110 R20 | 71.56
itrd-1 | WCoRD | R56 R20 | 71.92
itrd-1 | ReviewKD | R32x4 SN2 | 77.78
itrd-1 | ReviewKD | R110 R20 | -
itrd-1 | ReviewKD | R50 V8 | -
itrd-1 | L_corr | R50 V8 | 75.71
itrd-1 | L_corr + L_mi | R32x4 R8x4 | 76.19
itrd-1 | Teacher | R50 V8 | 79.34
itrd-1 | Student | R32x4 SN1 | 70.50
itrd-3 | Full precision | ResNet-18 | 94.8
itrd-3 | RAD | ResNet-18 | 90.5
itrd-3 | IR-Net | ResNet-18 | 91.5
itrd-3 | RBNN | ResNet-18 | 92.2
itrd-3 | ReCU | ResNet-18 | 92.8
itrd-3 | ReCU + CRD | ResNet-18 | 92.1
itrd-3 | ReCU + ReviewKD | ResNet-18 | 92.6
itrd-3 | ReCU + KD | ResNet-18 | 93.3
itrd-3 | ReCU + L_corr | ResNet-18 | 93.9
itrd-3 | ReCU + L_corr + L_mi | ResNet-18 | 94.1
itrd-3-squad | T6 ITRD | F1 | 88.5
itrd-3-squad | T3 ITRD | EM | 77.7
itrd-figure-2 | ITRD | top-1 error | 28.32
itrd-switches | order 3 | R56 R20 | -
itrd-v1-3 | L_corr + L_mi | 5.0 | 70.41
itrd-v1-4 | ITRD | TinyImageNet | 36.0
vid-1a | MI | 100 | 78.14
vid-1a | KD + AT | 1000 | 87.34
vid-1a | Student | 500 | 79.82
vid-1b | AT | 100 | 86.34
vid-1b | KD + MI | 500 | 91.44
vid-2a | Finetuned | 10 | 47.36
vid-2b | MI-L + MI-I | 25 | 58.21
vid-2c | MI-I | 5 | 41.44
vid-2d | LwF | 20 | 55.72
srd-1 | SRD, DeiT-Ti | top-1 | 77.2
srd-2 | SRD | top-5 error | 9.29
srd-2 | CRD | top-1 error | 28.62
srd-3 | DKD | R32x4 R8x4 | 76.32
srd-3 | SRD + DKD | R50 MN2 | 71.75
binary-cifar10 | ReCU (Xu 2021) | ResNet-20 | 87.5
binary-cifar10 | ReCU (Xu 2021) | VGG-small | 92.2
binary-cifar10 | AdaBin (Tu 2022) | ResNet-18 | 93.1
binary-cifar10 | BiPer (Vargas 2024) | ResNet-18 | 93.75
"""


def test_values_are_those_of_a_second_typing() -> None:
    lines = [[part.strip() for part in line.split("|")] for line in TYPED_AGAIN.strip().splitlines()]
    for name, row, column, value in lines:
        found = published_table(name).cell(row, column).value
        assert found == (None if value == "-" else float(value)), (name, row, column)
    assert {line[0] for line in lines} == {*table_names()} - {"itrd-2"}


def test_the_published_improvements_follow_from_the_published_accuracies() -> None:
    """Table 2 of the paper from its table 1: every value and every row of both is then as printed."""
    first, second = published_table("itrd-1"), published_table("itrd-2")
    values = {(cell.row, cell.column): cell.value for cell in first.cells if cell.value is not None}
    printed = [(cell.row, cell.column, cell.value) for cell in second.cells]
    assert [value for _, _, value in printed] == [-3.7, 16.2, None, 6.8, 24.4, 10.5]
    for row, column, value in printed:
        made = relative_improvement(values, row, column)
        assert (None if made is None else round(made, 1)) == value
    # KD's equal has no improvement to be measured with.
    assert relative_improvement({("a", "p"): 2.0, ("b", "p"): 1.0, ("KD", "p"): 1.0}, "a", "b") is None


def test_compare_has_its_figures_from_the_tables() -> None:
    names = ("teacher", "recu-crd", "recu-itrd", "siman", "biper", "recu-two_stage", "kd")
    assert [published_accuracy("cifar10", "resnet18", n) for n in names] == [
        *("94.8", "92.1", "94.1", "92.5", "93.75", "93.2", "-"),
    ]
    assert published_accuracy("cifar10", "vgg_small", "recu") == "92.2"
    assert published_accuracy("cifar100", "resnet18", "recu") == "-"


def test_every_cell_that_trains_names_a_member_of_its_recipe() -> None:
    recipe_of = {cell.recipe for name in table_names() for cell in published_table(name).cells if cell.trains}
    assert recipe_of <= {*recipes.names()}
    # One row of each table builds its configuration; of a wide table a column more costs half a second.
    for name in ("itrd-3", "srd-2"):
        for cell in published_table(name).cells:
            if cell.trains:
                assert wanted(cell).member["name"] == cell.member
    students = recipes.read("cifar100-resnet56-resnet20")["students"]
    rows = {cell.member for name in ("itrd-1", "srd-3") for cell in published_table(name).cells}
    assert rows == {"teacher", *students}


def test_a_table_is_known_by_its_name_and_by_that_of_its_parts() -> None:
    assert [table.name for table in tables_named("vid-2")] == ["vid-2a", "vid-2b", "vid-2c", "vid-2d"]
    assert [table.name for table in tables_named("itrd-3")] == ["itrd-3"]
    with pytest.raises(UserError, match=r"unknown table 'itrd-9'"):
        tables_named("itrd-9")


# ---- what is printed


@pytest.mark.parametrize("name", table_names())
def test_no_line_is_longer_than_a_terminal(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["table", name, f"--runs={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and any("No run fills a cell" in line for line in lines) != (name == "itrd-2")


def test_the_command_prints_rows_values_and_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "x", "cifar10-itrd-paper", "recu", 92.0)
    assert main(["table", "itrd-3", f"--runs={tmp_path}", "--markdown"]) == 0
    assert "| ReCU | ResNet-18 | 92.8 | 92.00 | 0 | 600 | nothing |" in capsys.readouterr().out
    assert main(["table", "itrd-3", f"--runs={tmp_path}", "--json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)
    (cell,) = (cell for cell in table["cells"] if cell["ours"])
    assert cell["row"] == "ReCU" and cell["ours"][0]["values"] == [92.0] and cell["ours"][0]["spread"] is None
    assert main(["table"]) == 0
    assert all(f"{name}\n" in capsys.readouterr().out or name for name in table_names())
    assert main(["table", "itrd-3", "--scale=large"]) == 2
    assert main(["table", "itrd-3", "--scale=small"]) == 2
    assert "itrd-3 has no small version" in capsys.readouterr().err


# ---- the commands of what is missing


def test_missing_commands_are_those_of_the_empty_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "x", "cifar10-itrd-paper", "recu", 92.0)
    assert main(["table", "itrd-3", f"--runs={tmp_path}", "--missing"]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert commands[0][:5] == ["bnn-itrd", "train", "cifar10-itrd-paper", "--member", "teacher"]
    of_recu = ("crd", "reviewkd", "kd", "corr", "itrd")
    assert [words[4] for words in commands] == ["teacher", "rad", "irnet", "rbnn", *(f"recu-{m}" for m in of_recu)]
    for words in commands:  # as the command itself would read them
        fields = [w for w in words[5:] if w.startswith("--") and w.partition("=")[0] not in ("--out", "--data.root")]
        run_config("train", "", recipes.read(words[2]), [w for w in fields if "=" in w], extra={})
    distilled = [words for words in commands if words[4].startswith("recu-")]
    teacher = commands[0][commands[0].index("--out") + 1]
    assert {words[words.index("--teacher") + 1] for words in distilled} == {teacher}
    assert len({words[words.index("--out") + 1] for words in commands}) == len(commands)


def test_every_command_parses() -> None:
    """One for each recipe and set of fields that no other test reads; what stands behind is a file of the reader's."""
    seen = set()
    for name in ("vid-2a", "vid-2d", "srd-1", "binary-cifar10", "itrd-3-squad"):
        for task in missing_tasks(published_table(name), []):
            _, command, recipe, _, member, *words = shlex.split(task.command)
            places = {words[i + 1] for i, word in enumerate(words) if word in FILES}
            assert command == "train" and places <= {"$DATA", "$WEIGHTS", "$STUDENT", "$BERT"}, task.command
            fields = [w if w not in FILES else f"{w}=x" for w in words if w not in places and w.startswith("--")]
            fields = [w for w in fields if w.partition("=")[0] not in ("--out", "--teacher")]
            what = recipe, member, *(w.partition("=")[0] for w in fields)
            if what not in seen and (recipe == "squad" or member in ("plain", "teacher", "vid-both", "srd", "adabin")):
                tree = recipes.read(recipe)
                read = squad_config if recipe == "squad" else run_config
                assert member in ("teacher", *read("train", "", tree, fields, extra={})[0].students)
            seen.add(what)
    assert {recipe for recipe, *_ in seen} >= {"mit67-resnet34-resnet18", "cub200-resnet34-vgg9", "squad"}
    # The student of VID's "Finetuned" begins with weights, and needs no teacher's.
    (task, *_) = (t for t in missing_tasks(published_table("vid-2b"), []) if t.fills.startswith("Finetuned"))
    assert '--network.weights "$STUDENT"' in task.command and "WEIGHTS" not in task.command


def test_weights_to_begin_with_make_another_cell_wherever_they_lie(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "mit67-resnet34-vgg9", "plain", 50.0)
    write_run(tmp_path / "b", "mit67-resnet34-vgg9", "plain", 70.0, "--network.weights=/somewhere/vgg11_bn.pth")
    filled = {(cell.row, cell.column): [each.mean for each in found] for cell, found in show_table(
        published_table("vid-2b"), find_runs([tmp_path])).filled}  # fmt: skip
    assert filled == {("Student", "all"): [50.0], ("Finetuned", "all"): [70.0]}


def test_a_teacher_of_few_images_is_trained_on_all_of_them() -> None:
    """Two cells of one row, three seeds: the teacher once, with the fields that the table says."""
    table = published_table("vid-1b")
    tasks = missing_tasks(table, [])
    assert tasks[0].fills == "teacher wrn_40_2" and "--data.per_class=null" in tasks[0].command
    assert "--data.unlabelled=false" in tasks[0].command and len(tasks) == 1 + 18 * 3
    assert all("--teacher runs/vid-1b/teacher-wrn_40_2" in task.command for task in tasks[1:])


def test_what_fills_two_cells_is_trained_once_and_a_table_without_values_is_trained_whole() -> None:
    """Both errors of a network come from one run; a cell without a value among others is none of the table's."""
    tasks = missing_tasks(published_table("srd-2"), [])
    assert [task.command.split()[4] for task in tasks] == ["plain", "at", "kd", "cc", "crd", "reviewkd", "srd"]
    tasks = missing_tasks(published_table("itrd-switches"), [])
    assert len(tasks) == 1 + 9 * 3 and all(task.hours.cores is not None for task in tasks)
    options = [word for task in tasks for word in shlex.split(task.command) if word.startswith("--students")]
    assert len({*options}) == 9


def test_the_small_version_is_a_teacher_and_a_sweep(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With the table's rows as its points, as the sweep itself makes them."""
    recipe = recipes.read("small-itrd-1")
    assert (recipe["data"]["per_class"], recipe["train"]["epochs"], recipe["teacher_train"]["epochs"]) == (500, 50, 50)
    for name, trainings in (("itrd-1", 15 * 3), ("itrd-v1-3", 7 * 3 + 3), ("itrd-switches", 10 * 3)):
        assert main(["table", name, "--scale=small", f"--runs={tmp_path}", "--missing"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(f"{trainings} of {trainings} trainings" in line for line in lines)
        teacher, words = [shlex.split(line) for line in lines if not line.startswith("#")]
        assert teacher[:5] == ["bnn-itrd", "train", "small-itrd-1", "--member", "teacher"]
        config = run_config("train", "", recipe, [w for w in teacher if "=" in w], extra={})[0]
        assert (config.data.per_class, config.teacher_train.epochs, config.train.epochs) == (None, 10, 50)
        assert words[:3] == ["bnn-itrd", "sweep", "small-itrd-1"]
        given = words[words.index("--teacher") + 1]
        assert given == f"{teacher[teacher.index('--out') + 1]}/teacher" == "sweeps/small-tables/teacher"
        assert words[words.index("--out") + 1] == f"sweeps/small-tables/{name}"
        axes = {a.field: a for a in map(parse_axis, words[words.index("--grid") + 1 : words.index("--teacher")])}
        assert axes["train.seed"].values == ("0", "1", "2")
        if name == "itrd-1":
            points = make_points(recipe, student_trees(None, recipe), [parse_axis("train.seed=0")])
            assert {point.student for point in points} == {c.member for c in published_table(name).cells} - {"teacher"}
            assert 3 * len(points) == trainings
        elif name == "itrd-v1-3":
            assert words[3:5] == ["--methods", "itrd"] and len(axes["students.itrd.itrd.alpha"].values) == 7
        else:
            axis = axes["students.itrd.itrd"]
            assert len(axis.values) == 9
            some = Axis(axis.field, tuple(text for text in axis.values if "order" in text))
            points = make_points(recipe, student_trees(["itrd"], recipe), [some])
            told = [point.member.distill.tree()["itrd"]["order"] for point in points if point.student == "itrd"]
            assert told == [1.0, 3.0]


def test_a_small_run_fills_the_small_table_beside_the_published_values(tmp_path: Path) -> None:
    teacher = write_run(tmp_path / "teacher", "small-itrd-1", "teacher", 60.0, *SMALL_TEACHER)
    for seed, top1 in ((0, 50.0), (1, 52.0)):
        write_run(tmp_path / "sweep" / f"kd-s{seed}", "small-itrd-1", "kd", top1, seed=seed, teacher=teacher)
    runs = find_runs([tmp_path])
    table = published_table("itrd-1")
    assert show_table(table, runs).filled == []
    small = show_table(table, runs, small=True)
    filled = {cell.row: found[0] for cell, found in small.filled}
    assert {row: each.mean for row, each in filled.items()} == {"Teacher": 60.0, "KD": 51.0}
    assert filled["KD"].spread == pytest.approx(2**0.5)
    assert {"data.name cifar10 (cifar100)", "data.per_class 500 (none)", "epochs 50 (240)"} <= {*filled["KD"].differs}
    assert "Teacher of our students, R56 R20: 60.00 % (published: 72.32)" in small.lines()
    assert [task.fills for task in small_tasks(table, runs)] == ["teacher resnet56", "43 of 45 trainings"]


def test_students_learn_from_the_teacher_that_exists_with_weights(tmp_path: Path) -> None:
    """Its command is left out and its folder named; a record without weights, or of another training, is none."""
    table, large = published_table("itrd-1"), published_table("itrd-switches")
    write_run(tmp_path / "short" / "teacher", "small-itrd-1", "teacher", 50.0, *SMALL_TEACHER, epochs=9)
    other = write_run(tmp_path / "other" / "teacher", "small-itrd-1", "teacher", 60.0)
    teacher = write_run(tmp_path / "mine" / "teacher", "small-itrd-1", "teacher", 80.0, *SMALL_TEACHER)
    write_run(tmp_path / "copy" / "teacher", "small-itrd-1", "teacher", 80.0, *SMALL_TEACHER)
    pair = write_run(tmp_path / "pair" / "teacher", "cifar100-resnet56-resnet20", "teacher", 72.0)
    for folder in (tmp_path / "short" / "teacher", other):
        (folder / "last.pt").touch()
    tasks = small_tasks(table, find_runs([tmp_path]))
    assert [task.command.split()[1] for task in tasks] == ["train", "sweep"]
    assert "--teacher sweeps/small-tables/teacher --out" in tasks[1].command
    assert missing_tasks(large, find_runs([tmp_path]))[0].fills == "teacher resnet56"
    for folder in (teacher, pair):
        (folder / "last.pt").touch()
    (task,) = small_tasks(table, find_runs([tmp_path]))
    assert f" --teacher {teacher} --out" in task.command
    tasks = missing_tasks(large, find_runs([tmp_path]))
    assert len(tasks) == 9 * 3 and all(f"--teacher {pair} " in task.command for task in tasks)


@pytest.mark.parametrize("name", ["itrd-1", "itrd-v1-3"])
def test_an_unfinished_teacher_is_listed_also_by_a_table_without_its_row(name: str, tmp_path: Path) -> None:
    write_run(tmp_path / "teacher", "small-itrd-1", "teacher", 50.0, *SMALL_TEACHER, epochs=4)
    write_run(tmp_path / "weak" / "teacher", "small-itrd-1", "teacher", 50.0, epochs=4)
    small = show_table(published_table(name), find_runs([tmp_path]), small=True)
    line = f"Not trained to its end: {tmp_path / 'teacher'} (epoch 4 of 10)"
    assert " ".join(small.lines()).split("Not ")[1:] == [line.removeprefix("Not ")]
    told = json.loads(json.dumps(small.values()))["unfinished"]
    assert told == [{"folder": str(tmp_path / "teacher"), "epochs": 4, "of": 10}]


# ---- the hours


def test_speeds_are_those_that_were_measured() -> None:
    """And the multiplications those that `summary` counts."""
    speeds = yaml.safe_load((ROOT / "bnn_itrd/experiments/papers/speeds.yaml").read_text())
    h100 = json.loads((ROOT / "benchmarks/train_throughput_h100.json").read_text())["images_per_s"]["reduce-overhead"]
    cores = json.loads((ROOT / "benchmarks/train_throughput.json").read_text())["images_per_s"]
    for device, measured in (("h100", h100), ("cores", cores)):
        given = speeds[device]["images_per_s"]
        named = [("teacher", "teacher"), ("student", "student"), ("distilled", "student + ITRD")]
        assert {own: given[own] for own, _ in named} == {own: round(measured[name]) for own, name in named}
    assert (speeds["h100"]["macs"], speeds["cores"]["macs"]) == (speeds["macs"]["resnet18"], speeds["macs"]["resnet20"])
    for name in ("resnet20", "vgg8", "wrn_16_1"):
        model = build(NetworkConfig(name=name), None, num_classes=100, input_shape=(3, 32, 32)).eval()
        assert summary(model).float_macs == speeds["macs"][name]


def test_hours_by_hand() -> None:
    """ResNet-18 as it was measured; ResNet-20 with images of half the side; a network that nothing is known of."""

    def hours(recipe: str, member: str, teacher: str | None, *words: str) -> tuple[float | None, float | None]:
        made = expected_hours(member_config(config_of(recipe, *words), member), teacher)
        return made.h100, made.cores

    measured = hours("cifar10-itrd-paper", "recu-itrd", "resnet18")
    assert measured[0] == pytest.approx(600 * 50_000 / 33_232 / 3600 + 1 / 60)
    work = 3 * 40_556_800 + 125_491_456  # a pair of ResNet-20 below ResNet-56, of which 4 ResNet-20 were measured
    seconds = 50 * 5000 / (760 * 4 * 40_556_800 / work)
    assert hours("small-itrd-1", "itrd", "resnet56")[1] == pytest.approx(seconds / 3600 + 1 / 60)
    assert hours("cifar10", "recu", None, "--network.name=torchvision:vgg11") == (None, None)
