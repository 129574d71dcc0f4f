"""A malformed comparison.json is refused by the field that is wrong; its names are text, whatever they hold."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bnn_itrd.cli import main
from bnn_itrd.console import print_table
from bnn_itrd.errors import UserError
from bnn_itrd.experiments.table import markdown_table, summarise_runs
from bnn_itrd.runs.comparison_file import read_comparison

GOOD: dict[str, Any] = {
    "dataset": {"name": "digits"},
    "config": {"scheme": {"first_stage_epochs": None}, "train": {"seed": 0}, "teacher_train": {"seed": 0}},
    "models": [
        {
            "name": "recu", "network": "resnet20", "method": "recu", "epochs": 2, "top1_last": 50.0, "top1_best": 51.0,
            "best_split": "val", "bytes": 70, "compression": 15.5, "ms_per_image": 0.1, "agreement_with_teacher": 60.0,
            "trained_on": {"device": "cpu"}, "curve": [{"test_top1": 49.0}], "artefacts": [{"file": "student.onnx"}],
        }
    ],
}  # fmt: skip
MISSING = object()


def written(folder: Path, *place: Any, value: Any) -> Path:
    comparison = copy.deepcopy(GOOD)
    inner: Any = comparison
    for key in place[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    (folder / "comparison.json").write_text(json.dumps(comparison))
    return folder


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("models",), {}, "models must be a list, got {}"),
        (("models",), MISSING, "models is missing"),
        (("models",), None, "models must be a list, got None"),
        (("models", 0), "recu", r"models\[0\] must be an object"),
        (("models", 0, "name"), ["recu"], r"models\[0\].name must be a text, got \['recu'\]"),
        (("models", 0, "network"), {}, r"models\[0\].network must be a text"),
        (("models", 0, "bytes"), MISSING, r"models\[0\].bytes is missing"),
        (("models", 0, "bytes"), "70", r"models\[0\].bytes must be a number, got '70'"),
        (("models", 0, "bytes"), True, r"models\[0\].bytes must be a number, got True"),
        (("models", 0, "top1_last"), float("nan"), r"models\[0\].top1_last must be a number, got nan"),
        (("models", 0, "top1_last"), 10**400, r"models\[0\].top1_last must be a number, got 10{39}\.\.\."),
        (("models", 0, "epochs"), [2], r"models\[0\].epochs must be a whole number"),
        (("models", 0, "epochs"), 2.5, r"models\[0\].epochs must be a whole number, got 2.5"),
        (("models", 0, "trained_on"), "cpu", r"models\[0\].trained_on must be an object"),
        (("models", 0, "trained_on", "device"), 1, r"models\[0\].trained_on.device must be a text"),
        (("models", 0, "curve"), [], r"models\[0\].curve has no accuracy of its last epoch"),
        (("models", 0, "curve", 0), 1, r"models\[0\].curve\[0\] must be an object"),
        (("models", 0, "artefacts", 0, "file"), None, r"models\[0\].artefacts\[0\].file must be a text, got None"),
        (("dataset",), "digits", "dataset must be an object, got 'digits'"),
        (("dataset", "name"), [], r"dataset.name must be a text, got \[\]"),
        (("config", "train"), 3, "config.train must be an object, got 3"),
        (("config", "train", "seed"), {}, "config.train.seed must be a whole number, got {}"),
        (("config", "scheme"), [1], "config.scheme must be an object"),
    ],
)
def test_the_field_that_is_wrong_is_named(
    place: tuple[Any, ...], value: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, *place, value=value)
    with pytest.raises(UserError, match=rf"comparison\.json is not a comparison of bnn-itrd: {message}"):
        summarise_runs([folder])
    assert main(["compare", str(folder)]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[" * 100_000, "7", "null", "[]", '"models"', "{", "\x00"])
def test_what_is_no_object_of_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(UserError, match=r"comparison\.json is not a comparison of bnn-itrd: "):
        read_comparison(tmp_path / "comparison.json")


@pytest.mark.parametrize(
    ("place", "value"),
    [(("dataset",), None), (("config",), MISSING), (("models", 0, "method"), None), (("models",), [])],
)
def test_what_may_be_missing(place: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    rows = summarise_runs([written(tmp_path, *place, value=value)])
    assert [row["method"] for row in rows] == (["recu"] if value != [] else [])


def test_names_are_text_in_every_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path, "models", 0, "name", value="a|b\n<b>[/x]`&")
    (row,) = summarise_runs([folder])
    assert row["method"] == "a|b\n<b>[/x]`&"
    _, _, line = markdown_table([row]).splitlines()
    assert line.split(" | ")[2] == r"a\|b &lt;b&gt;\[/x\]\`&amp;"
    assert main(["compare", str(folder)]) == 0
    assert "[/x]" in capsys.readouterr().out
    print_table([{"name": "[red]x"}])
    assert "[red]x" in capsys.readouterr().out
