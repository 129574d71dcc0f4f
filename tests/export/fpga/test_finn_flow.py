"""The script that runs FINN's own steps on a file: its arguments, its steps in the docs, and a run with FINN."""

from __future__ import annotations

import os
import re
import subprocess
import types
from pathlib import Path

import pytest
import torch
from helpers.scripts import load_script
from torch import nn

from bnn_itrd.export.fpga import to_qonnx
from bnn_itrd.models import resnet20, vgg_small

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "examples" / "finn_flow.py"
DOCS = (ROOT / "docs" / "guides" / "fpga.md").read_text()


@pytest.fixture(scope="module")
def script() -> types.ModuleType:
    module: types.ModuleType = load_script("examples/finn_flow.py")
    return module


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.onnx"], "there is no file absent.onnx"),
        ([str(SCRIPT), "--images", "0"], "--images must be at least 1, got 0"),
        ([str(SCRIPT), "--fps", "nan"], "argument --fps: it must be positive, got nan"),
        ([str(SCRIPT), "--clock", "-1"], "argument --clock: it must be positive, got -1"),
    ],
)
def test_bad_arguments(
    script: types.ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        script.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_without_finn_it_says_what_to_install(
    script: types.ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert script.source_of("no_such_package.transformation") is None
    monkeypatch.setattr(script, "source_of", {"qonnx.transformation": ROOT}.get)
    assert script.main([str(SCRIPT)]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert told.err.startswith("FINN is not installed in ") and "https://github.com/Xilinx/finn" in told.err
    monkeypatch.setattr(script, "source_of", {"finn.transformation": ROOT}.get)
    assert script.main([str(SCRIPT)]) == 2
    assert capsys.readouterr().err.startswith("qonnx is not installed in ")


def test_the_docs_have_the_steps_of_the_script(script: types.ModuleType) -> None:
    """The docs list the steps of each stage, except those that only update names, types and shapes."""
    upkeep = re.compile(r"qonnx\.transformation\.(general|infer_\w+|fold_constants):")
    steps = {
        stage: [address.split(":")[1] for address in addresses if not upkeep.match(address)]
        for stage, addresses in script.STAGES.items()
    }
    section = DOCS[DOCS.index("## FINN's own steps") :]
    rows = re.findall(r"^\| `(\w+)`[^|]*\|([^|]*)\|$", section, re.MULTILINE)
    told = {stage: re.findall(r"`(\w+)`", cell) for stage, cell in rows}
    assert told.pop("partitioned") == ["CreateDataflowPartition"]
    assert told == steps


FINN = os.environ.get("BNN_ITRD_FINN")


@pytest.mark.interop
@pytest.mark.skipif(not FINN, reason="BNN_ITRD_FINN names no Python that has FINN and qonnx (docs/guides/fpga.md)")
@pytest.mark.parametrize("name", ["resnet20", "vgg_small"])
def test_finn_makes_one_dataflow_partition_that_computes_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if name == "resnet20":
        residual = {"binary": "recu", "padding_value": -1, "residual_bits": 4, "first_last_bits": 8}
        model: nn.Module = resnet20(width=0.5, input_shape=(3, 16, 16), **residual)
    else:
        plain = {"binary": "recu", "padding_value": -1, "first_last_bits": 8, "norm_before_pool": True}
        model = vgg_small(10, input_shape=(3, 16, 16), **plain)
    model(torch.randn(8, 3, 16, 16))  # the statistics of its BatchNorms
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_()  # negative factors among them
                module.bias.normal_(0, 0.3)
    path = to_qonnx(model.eval(), tmp_path / "student.onnx", flavor="finn")
    done = subprocess.run(
        [str(FINN), str(SCRIPT), str(path), "--images", "1", "--out", str(tmp_path / "graphs")],
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stages = ["read", "pooled", "lowered", "transposed", "binary", "hardware", "partitioned", "narrowed"]
    rows = [line.split() for line in done.stdout.splitlines()[1:9]]
    assert [row[0] for row in rows] == stages
    assert all(float(row[1]) <= 1e-6 for row in rows), done.stdout
    assert "one dataflow partition" in done.stdout and " LUT, " in done.stdout
    assert sorted(file.stem for file in (tmp_path / "graphs").glob("*.onnx") if file.stem in stages) == sorted(stages)
