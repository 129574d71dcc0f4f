"""The words behind a command: which are fields, which are the command's own options, and what is refused."""

from __future__ import annotations

import pytest

from bnn_itrd import recipes
from bnn_itrd.cli import COMMANDS, main
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.tokens import Given, given_options, set_field
from bnn_itrd.errors import UserError


def test_words_become_options() -> None:
    words = ["--a=1", "--b", "2", "--c", "3", "-4", "--d", "--e=", "--f={x: --y}"]
    assert given_options(words) == [
        Given("a", ("1",)),
        Given("b", ("2",)),
        Given("c", ("3", "-4")),
        Given("d", ()),
        Given("e", ("",)),
        Given("f", ("{x: --y}",)),
    ]
    written = [word for option in given_options(words) for word in option.words]
    assert given_options(written) == given_options(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stray"], "unexpected 'stray': fields are given as --FIELD VALUE"),
        (["--train.lr=1", "2"], "unexpected '2'"),
        (["--train.lr", "1", "2"], "--train.lr takes one value, got 1 2"),
        (["--train.lr"], "--train.lr needs a value"),
        (["--students.a.ce"], "--students.a.ce needs a value"),
        (["--out"], "--out needs a value"),
        (["--seed"], "--seed needs a value"),
        (["--trust=yes"], "--trust takes no value, got 'yes'"),
        (["--trusted"], "unknown option '--trusted'.*did you mean '--trust'"),
        (["--train.epoch"], "unknown option '--train.epoch'.*did you mean '--train.epochs'"),
    ],
)
def test_what_is_no_option_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_config("run", "", recipes.read("digits"), words, extra={"out": ""}, flags={"trust": ""})


def test_the_commands_own_options_and_flags() -> None:
    words = ["--trust", "--out=a", "--train.lr", "0.3", "--out", "b"]
    config, own = run_config("run", "", {}, words, extra={"out": "", "member": ""}, flags={"trust": ""})
    assert own == {"out": "b", "member": None, "trust": True} and config.train.lr == 0.3


def test_an_address_is_one_part_of_a_fields_name() -> None:
    tree: dict[str, object] = {"students": {"a": {"kd": {"tau": 2}}}}
    set_field(tree, "students.a.kd.tau", 3)
    set_field(tree, "students.b.my.pkg:Loss.weight", 2)
    set_field(tree, "students.b.my.pkg:Loss.options.depth", 1)
    set_field(tree, "students.c.pkg:Loss", {})
    assert tree["students"] == {
        "a": {"kd": {"tau": 3}},
        "b": {"my.pkg:Loss": {"weight": 2, "options": {"depth": 1}}},
        "c": {"pkg:Loss": {}},
    }


def test_an_unknown_option_of_a_sweep_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for word, near in (("--grids", "--grid"), ("--referense=a", "--reference"), ("--train.epoch=1", "--train.epochs")):
        assert main(["sweep", "digits", "--methods", "kd", word]) == 2
        assert f"did you mean '{near}'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["evaluate", "export", "validate", "summary", "probe", "run", "train", "sweep"])
def test_every_command_that_loads_a_run_can_be_told_to_trust_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--trust import and run your own code that this run or file names" in text
    assert name in COMMANDS
