"""Fields of the question-answering recipe, and what is said of bad ones before any training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.squad import arguments, write_json

from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.nlp.bert import load_bert, load_tokenizer
from bnn_itrd.nlp.config import (
    SquadConfig,
)
from bnn_itrd.nlp.options import squad_config


def parsed(*given: str, recipe: str = "squad") -> SquadConfig:
    return squad_config("run", "", recipes.read(recipe), given, extra={"out": "folder"})[0]


def test_the_recipe_holds_what_the_papers_say() -> None:
    made = parsed()
    assert [s.layers for s in made.students.values()] == [6, 6, 6, 6, 3, 3, 3]
    for name in ("t6-itrd", "t3-itrd"):
        itrd, kd = made.students[name].itrd, made.students[name].kd
        assert itrd is not None and (itrd.alpha, itrd.beta_corr, itrd.beta_mi) == (1.01, 2.0, 1.0)
        assert kd is not None and kd.tau == 8.0
    assert (made.teacher_train.epochs, made.teacher_train.lr, made.train.lr) == (3, 5e-5, 1e-4)
    assert {s.layers for s in parsed(recipe="squad-tiny").students.values()} == {2, 1}


def test_fields_from_the_command_line() -> None:
    made = parsed(
        "--seed=7", "--train.lr", "2e-4", "--students.t6.itrd.max_tokens=99", "--students.mine.layers", "4",
        "--students.mine.kd.tau=2",
    )  # fmt: skip
    assert (made.train.seed, made.teacher_train.seed, made.train.lr) == (7, 7, 2e-4)
    t6, mine = made.students["t6"], made.students["mine"]
    assert t6.itrd is not None and t6.itrd.max_tokens == 99 and t6.itrd.beta_corr == 2.0
    assert mine.layers == 4 and mine.kd is not None and mine.kd.tau == 2.0 and mine.itrd is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--train.lrr=1"], "unknown option '--train.lrr'.*did you mean '--train.lr'"),
        (["--train.lr=much"], "train.lr"),
        (["--train.epochs=0"], "train.epochs must be in .1, 1000000. .--train.epochs 30., got 0"),
        (["--data.max_length=100"], "data.max_length must be >= max_question .* = 195.*got 100"),
        (["--students.t6.layer=3"], "unknown field of students.t6 'layer'.*did you mean 'layers'"),
        (["--students.t6.ce=0"], "students.t6: ce must be > 0 for a student without kd, itrd and hidden, got 0"),
        (["--students.t6.itrd.max_tokens=1"], "itrd.max_tokens must be >= 2, got 1"),
        (["--students={teacher: {}}"], "'teacher' cannot be a student's name"),
        (["--fabric.devices=2"], "runs in one process, got 2"),
        (["stray"], "unexpected 'stray'"),
        (["--train.lr"], "--train.lr needs a value"),
    ],
)
def test_bad_fields_are_told(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "squad", *given]) == 2
    import re

    assert re.search(message, capsys.readouterr().err.replace("\n", " "))


def test_other_commands_refuse_the_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["summary", "squad"]) == 2
    assert "takes recipes for images" in capsys.readouterr().err
    path = tmp_path / "mine.yaml"
    path.write_text("task: sqaud\n")
    assert main(["run", str(path)]) == 2
    assert "task is 'sqaud', but must be 'squad'" in capsys.readouterr().err
    assert main(["train", "squad"]) == 2
    assert "--member is missing: give one of teacher, t6" in capsys.readouterr().err


def test_without_transformers_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(["run", "squad", f"--data.root={tmp_path}", f"--out={tmp_path / 'out'}"]) == 2
    assert 'pip install "bnn-itrd[nlp]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_folders_are_told_before_any_training(
    squad: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")

    def error(*more: str, drop: str = "--nothing") -> str:
        given = [a for a in arguments(squad, bert, tmp_path / "out", *more) if not a.startswith(drop)]
        assert main(given) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "with the folder of train-v1.1.json" in error(drop="--data.root")
    assert "a pre-trained BERT with --pretrained, or of a fine-tuned one" in error(drop="--pretrained")
    assert "there is no folder nowhere" in error("--pretrained=nowhere")
    assert "cannot be read as a BERT" in error("--random_init=false")  # config.json alone
    assert "students.odd.layers must divide the teacher's 4, got 3" in error("--students={odd: {layers: 3}}")
    assert "data.max_length must be <= 64" in error("--data.max_length=65")
    assert "no tokenizer can be loaded from" in error(f"--pretrained={squad}")
    head = tmp_path / "pretrained"
    transformers.BertModel(transformers.AutoConfig.from_pretrained(bert)).save_pretrained(head)
    load_tokenizer(bert).save_pretrained(head)
    assert "has no answer head" in error(f"--teacher={head}")
    assert load_bert(head).qa_outputs.weight.shape == (2, 32)
    other = json.loads((bert / "config.json").read_text()) | {"model_type": "distilbert"}
    write_json(head / "config.json", other)
    assert "of type 'distilbert', but only 'bert'" in error(f"--pretrained={head}")
    small = json.loads((bert / "config.json").read_text()) | {"vocab_size": 9}
    write_json(head / "config.json", small)
    assert "but the BERT only 9" in error(f"--pretrained={head}")
    assert "teacher_train.batch_size is 61, but the training questions give only 60 windows" in error(
        "--teacher_train.batch_size=61"
    )
