"""Options that there are not, or that do nothing where they stand, and paths of another kind than a command takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnn_itrd.cli import main


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["predict", "x.onnx", "--topp", "2"], "--top"),
        (["validate", "x.onnx", "--stok"], "--stock"),
        (["evaluate", "x.onnx", "--datta", "digits"], "--data"),
        (["bench", "--agains=y.onnx"], "--against"),
        (["compare", "runs", "--jsn"], "--json"),
        (["table", "--marckdown"], "--markdown"),
        (["summary", "cifar10-resnet20", "--network.nam", "vgg_small"], "--network.name"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_option_that_there_is_not(words: list[str], near: str, capsys: pytest.CaptureFixture[str]) -> None:
    option = next(word for word in words if word.startswith("--")).partition("=")[0]
    text = said(capsys, *words)
    assert text.startswith(f"bnn-itrd: unknown option '{option}', did you mean '{near}'? Expected one of --")
    assert "print_shtab" not in text


def test_nothing_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "predict", "--nativ") == (
        "bnn-itrd: unknown option '--nativ', expected one of --help, --top, --lce_python, --fpga_python\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table", "--json"], "--json is for one table: name it"),
        (["table", "itrd-1", "--missing", "--json"], "--json has no effect with --missing, which prints commands"),
        (["compare", "runs", "--json", "--markdown"], "--markdown has no effect with --json"),
        (["validate", "x.tflite", "--stock"], "--stock is for .onnx files that onnxruntime runs"),
        (["validate", "x.onnx", "--lce_python=python3"], "--lce_python is for .tflite files, and none is given"),
        (["evaluate", "x.onnx", "--fpga_python=python3"], "--fpga_python is for .qonnx.onnx and .finn.onnx files"),
        (["summary", "digits", "--model=a.b:c"], "--model is for a run's folder or checkpoint, but digits is a recipe"),
        (["summary", "runs/none"], "no such file or folder: runs/none"),
        (
            ["summary", "--network.name=vgg_small", "digits"],
            "--network.name is a field of a recipe, which must come first",
        ),
        (["summary", str(Path(__file__)), "--train.epochs=1"], "--train.epochs is for a recipe, and "),
        (["bench", "runs/none"], "no such file or folder: runs/none"),
        (["bench", "none.onnx"], "no such file or folder: none.onnx"),
        (["--versoin"], "unknown option '--versoin', did you mean '--version'? Expected one of --help, --version"),
        (["predict", "x.onnx", "--"], "required: images"),
        (["summary", "digits", "--classes=0"], "--classes must be a whole number >= 1, got 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_does_nothing(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in said(capsys, *words)


def test_predict_with_an_option_of_another_runtime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.onnx").write_bytes(b"")
    (tmp_path / "a.png").write_bytes(b"")
    told = said(capsys, "predict", str(tmp_path / "x.onnx"), str(tmp_path), "--lce_python=python3")
    assert "--lce_python is for .tflite files, and none is given: leave it out" in told


def test_summary_takes_the_fields_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "digits", "--network.name=resnet8", "--classes", "3"]) == 0
    text = capsys.readouterr().out
    assert "teacher: resnet8, input" in text and "student: resnet8, input" in text
