"""YAML from outside: plain values, and what a few bytes of it could do is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.errors import UserError
from bnn_itrd.yaml_files import parse_yaml, read_yaml

# Each line repeats the one before ten times: 10^8 values.
BOMB = "a0: &a0 [1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)  # fmt: skip


def test_plain_values() -> None:
    text = "a: {b: [1, 2.5, true, null, text]}\nc: &x {d: 1}\ne: *x\nf: {<<: *x, g: 2}\nday: 2020-01-31\n"
    assert parse_yaml(text, where="it") == {
        "a": {"b": [1, 2.5, True, None, "text"]},
        "c": {"d": 1},
        "e": {"d": 1},
        "f": {"d": 1, "g": 2},
        "day": "2020-01-31",
    }
    assert parse_yaml("", where="it") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "it: line 3 gives 'a' a second time .first at line 1.: keep one"),
        ("t: {lr: 1, lr: 1}", "it: line 1 gives 'lr' a second time"),
        ("a: " + "[" * 5000 + "]" * 5000, "it is nested too deeply: at most 50 levels are allowed"),
        ("{a: " * 5000 + "1" + "}" * 5000, "it is nested too deeply: at most 50 levels are allowed"),
        ("a:\n  " + "[" * 60 + "]" * 60, "it: line 2 is nested too deeply: at most 50 levels are allowed"),
        ("a: &x {b: *x}", "it: line 1 contains itself"),
        ("a: &x [*x]", "it: line 1 contains itself"),
        (BOMB, "it has anchors .* that repeat more than 10,000 values"),
        (BOMB.replace("[", "{<<: [").replace("]", "]}").replace("{<<: [1, 1]}", "{z: 1}"), "repeat more than 10,000"),
        ("a: !!binary aGk=", "it is not YAML: could not determine a constructor"),
        ("a: !!set {b, c}", "it is not YAML: could not determine a constructor"),
        ("a: !!python/object/apply:os.getcwd []", "it is not YAML: could not determine a constructor"),
        ("a: " + "9" * 5000, "it is not YAML: Exceeds the limit"),
        ("? [a]\n: 1", "it is not YAML: while constructing a mapping"),
        ("a: [", "it is not YAML: "),
        ("a: \x00", "it is not YAML: unacceptable character #x0000"),
        ("# \x15\n", "it is not YAML: unacceptable character #x0015"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_yaml(text, where="it")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read .*nothing.yaml"):
        read_yaml(tmp_path / "nothing.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"b\.yaml is not YAML: "):
        recipes.read(str(tmp_path / "b.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("students: {1: {}}", "students: the name 1 is no text: put it in quotes"),
        ("students: {null: {}}", "students: the name None is no text"),
        ("students: {true: {}}", "students: the name True is no text"),
        ("train: {epochs: 1}\ntrain: {lr: 1}", "line 2 gives 'train' a second time"),
        ("train:\n  milestones: &x [*x]", "contains itself"),
        ("data: {root: 2020-01-31}\ntrain: {epochs: 0}", "train.epochs must be >= 1"),
    ],
)
def test_a_recipe_with_a_trap_is_refused(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text(text)
    assert main(["run", str(tmp_path / "r.yaml"), f"--out={tmp_path / 'out'}"]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_student_on_the_command_line_whose_name_is_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "digits", "--students={1: {}}"]) == 2
    assert "students: the name 1 is no text" in capsys.readouterr().err
