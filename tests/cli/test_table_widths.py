"""Tables in the terminal: as wide as it is, and no word of them is cut."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bnn_itrd.cli import main
from bnn_itrd.console import broken_lines, print_record, print_table
from bnn_itrd.experiments.statistics import table_cells
from bnn_itrd.export.runtime import cli as runtime
from bnn_itrd.export.runtime.bench import timing_cells
from bnn_itrd.runs.rows import table_rows
from bnn_itrd.training.progress import Progress

RESULTS = Path(__file__).parents[2] / "results"
NARROW = [60, 80]
COMPARE = ["compare", *sorted(map(str, RESULTS.glob("cifar10-*-s0")))]


def words_of(rows: list[dict[str, str]]) -> set[str]:
    return {word for row in rows for text in (*row, *row.values()) for word in text.split()}


def printed(capsys: pytest.CaptureFixture[str], width: int) -> str:
    """What was printed. No line is wider than the terminal, but one that a single word fills."""
    text = capsys.readouterr().out
    for line in text.splitlines():
        assert len(line.rstrip()) <= width or max(map(len, line.split())) > width - 30, line
    return text


def timing(file: str) -> dict[str, str]:
    row = {"file": file, "form": "native", "threads": 1, "batch": 1, "ms_per_image": 0.25, "bytes": 68567}
    return timing_cells({**row, "ratio": 2.5, "ratio_low": 2.25, "ratio_high": 2.75})


def swept(name: str) -> dict[str, Any]:
    row = {"row": name, "top1": [90.0, 91.0], "planned": 3, "mean": 90.5, "std": 0.7, "difference": 1.0, "df": 1.5}
    return {**row, "p": 0.2, "reference": "plain", "verdict": "within the spread"}


COMPARISON = json.loads((RESULTS / "cifar10-resnet18-recu-itrd-e72-s0" / "comparison.json").read_text())
TABLES = {
    "run": (table_rows(COMPARISON), 1),
    "bench": ([timing("runs/digits/recu/student.onnx"), timing("runs/digits/recu-itrd/student.plain.onnx")], 2),
    "bench of far": ([timing("/home/somebody/projects/binary-networks/runs/cifar10-resnet18/student.onnx")], 2),
    "sweep": (table_cells([swept("recu-itrd-with-a-long-name"), swept("recu")]), 1),
    "validate": ([{"file": "runs/digits/recu-itrd/student.qonnx.onnx", "images": "10,000", "agreement": "99.990"}], 1),
    "wide letters": ([{"model": "双値ネットワーク", "top-1 %": "90.00"}], 1),
    "markup": ([{"model": "[bold]x[/bold]", "top-1 %": "90.00"}], 1),
}


@pytest.mark.parametrize("width", NARROW)
@pytest.mark.parametrize("name", TABLES)
def test_a_table(name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows, names = TABLES[name]
    print_table(rows, "the title of a table with so many words that they do not fit into one line", names=names)
    # Where rows are blocks, the columns of their names have no headers.
    assert words_of(rows) - set(list(rows[0])[:names]) <= set(printed(capsys, width).split())


@pytest.mark.parametrize("width", NARROW)
@pytest.mark.parametrize(
    "arguments", [["compare", *sorted(map(str, RESULTS.glob("cifar10-*-s0")))], ["summary", "digits"]]
)
def test_a_command(
    arguments: list[str], width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(arguments) == 0
    wide = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(arguments) == 0
    words = {word for word in wide.split() if word.strip("─-")} - {"data", "network", "method"}
    assert words <= set(printed(capsys, width).split())


@pytest.mark.parametrize("width", [*NARROW, None])
@pytest.mark.parametrize("command", ["recipes", "table"])
def test_a_list(
    command: str, width: int | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: there is no terminal."""
    if width is None:
        monkeypatch.delenv("COLUMNS")
    else:
        monkeypatch.setenv("COLUMNS", str(width))
    assert main([command]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= (width or 80) for line in text.splitlines())
    assert {"recipes": "ITRD-distilled", "table": "CUB-200-2011,"}[command] in text.split()


def test_hours_of_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["table", "itrd-1", "--missing"]) == 0
    # Commands are told whole: they can be pasted.
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("#")]
    assert all(len(line) <= 80 for line in notes)
    assert "#   set them, add --train.compile true --train.precision auto." in notes


def test_lines_are_broken_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert broken_lines("a path/that-is-longer-than-a-line\n\nand more words than one") == [
        *("a", "  path/that-is-longer-than-a-line", "", "and more words than", "  one")
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_records_are_broken_on_a_terminal_alone(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that reads a pipe takes a line for a record."""
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    print_record("runs/digits/recu: top-1 97.80 %")
    shown = ["runs/digits/recu:", "  top-1 97.80 %"] if terminal else ["runs/digits/recu: top-1 97.80 %"]
    assert capsys.readouterr().out.splitlines() == shown


def test_an_epoch_is_one_line_of_a_log(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    shown = Progress("recu-itrd", epochs=1, steps=3, names=("ce", "itrd"), batch_size=8, enabled=True, live=False)
    shown.begin(0)
    shown.end({"loss_ce": 2.0, "loss_itrd": 8.5, "top1": 97.8, "split": "test", "images_per_s": 55.0})
    assert capsys.readouterr().out == "recu-itrd: epoch 1/1  ce 2.000 itrd 8.500  test top-1 97.80 %  55 images/s\n"


def test_parts_and_blocks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"model": "teacher", "top-1 %": "90.00", "bytes": "1,000"}, {"model": "x", "top-1 %": "8", "bytes": "9"}]

    def lines(width: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(rows)
        return [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip("─ ")]

    assert lines(60) == ["model     top-1 %   bytes", "teacher     90.00   1,000", "x               8       9"]
    assert lines(27) == ["top-1", "model         %   bytes", "teacher   90.00   1,000", "x             8       9"]
    assert lines(20) == [
        *["top-1", "model         %", "teacher   90.00", "x             8"],
        *["model     bytes", "teacher   1,000", "x             9"],
    ]
    assert lines(12) == ["teacher", "top-1 %  90.00", "bytes    1,000", "x", "top-1 %  8", "bytes    9"]


def test_the_runtimes_own_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    row = timing("runs/digits/recu/student.onnx")
    monkeypatch.setenv("COLUMNS", "60")
    runtime._print_table([row])
    assert capsys.readouterr().out.splitlines() == [
        "runs/digits/recu/student.onnx native",
        *(f"  {name.ljust(8)}  {row[name]}" for name in list(row)[2:]),
    ]
    monkeypatch.setenv("COLUMNS", "100")
    runtime._print_table([row])
    assert len(capsys.readouterr().out.splitlines()) == 2
