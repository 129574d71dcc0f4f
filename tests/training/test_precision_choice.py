"""``train.precision: auto``: what fits the device, said and recorded; what was begun goes on as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from helpers import TINY

import bnn_itrd
from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.config import TrainConfig
from bnn_itrd.config.train import FabricConfig, LogConfig
from bnn_itrd.models import resnet8
from bnn_itrd.training import precision
from bnn_itrd.training.checkpoint import load_checkpoint

CPU = FabricConfig(accelerator="cpu")


def processor(patch: pytest.MonkeyPatch, *features: str, float32: float = 1.0, bfloat16: float = 1.0) -> None:
    """A processor with these instructions, and a convolution that takes these seconds."""
    patch.setattr(precision, "cpu_features", lambda: frozenset({"avx2", *features}))
    seconds = {torch.float32: float32, torch.bfloat16: bfloat16}
    patch.setattr(precision, "_seconds", seconds.__getitem__)


@pytest.mark.parametrize(
    ("features", "bfloat16", "expected"),
    [
        ((), 0.1, "32-true"),  # not even tried
        (("avx512_bf16",), 0.6, "bf16-mixed"),
        (("avx512_bf16",), 1.2, "32-true"),
        (("amx_bf16",), 0.6, "bf16-mixed"),
        (("asimd", "bf16"), 0.6, "bf16-mixed"),
        (("avx512f",), 0.6, "32-true"),
    ],
)
def test_a_processor(
    features: tuple[str, ...], bfloat16: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, *features, bfloat16=bfloat16)
    choice = precision.choose_precision(CPU)
    assert choice.precision == expected
    said = (
        f"takes {bfloat16:.2f} of float32's time"
        if len(features) and "avx512f" not in features
        else "no bfloat16 instruc"
    )
    assert said in choice.why


def test_several_processes_do_not_measure_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, "avx512_bf16", bfloat16=2.0)
    assert precision.choose_precision(FabricConfig(accelerator="cpu", devices=2)).precision == "bf16-mixed"


@pytest.mark.parametrize(("bfloat16", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu(bfloat16: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    assert precision.choose_precision(FabricConfig(accelerator="auto")).precision == expected
    assert precision.choose_precision(CPU).precision == "32-true"


def test_the_convolution_draws_no_random_number() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    assert precision._seconds.__wrapped__(torch.float32) > 0
    assert torch.equal(torch.rand(1), wanted)


def test_a_run_says_it_records_it_and_keeps_it(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    processor(monkeypatch)
    data = [f"--data.root={tiny_npz}", "--log.tensorboard=false", "--network.name=resnet8", "--network.width=0.25"]
    words = ["train", "digits", *TINY, *data, "--students={s: {}}", "--member=s", "--train.precision=auto"]
    out = tmp_path / "run"
    assert main([*words, f"--out={out}", "--train.epochs=1"]) == 0
    assert "precision: 32-true, this processor has no bfloat16 instructions\n" in capsys.readouterr().out
    assert yaml.safe_load((out / "s/config.yaml").read_text())["train"]["precision"] == "32-true"
    assert yaml.safe_load((out / "config.yaml").read_text())["train"]["precision"] == "32-true"
    assert load_checkpoint(out / "s/last.pt")["identity"]["train"]["precision"] == "32-true"
    before = (out / "s/metrics.csv").read_bytes()
    processor(monkeypatch, "avx512_bf16", bfloat16=0.5)
    assert main([*words, f"--out={out}", "--train.epochs=1"]) == 0
    assert (
        f"precision: 32-true, the precision with which the training in {out / 's'} began\n" in capsys.readouterr().out
    )
    assert (out / "s/metrics.csv").read_bytes() == before


def test_distill_and_a_sweep(tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, "avx512_bf16", bfloat16=0.5)
    from bnn_itrd.config.data import DataConfig
    from bnn_itrd.experiments.grid import make_points
    from bnn_itrd.experiments.sweep import Sweep

    train = TrainConfig(epochs=1, batch_size=32, warmup_epochs=0, precision="auto")
    student = resnet8(3, binary="recu", width=0.25, input_shape=(3, 8, 8))
    data = DataConfig(name="cifar10", root=str(tiny_npz))
    log = LogConfig(tensorboard=False, progress=False)
    bnn_itrd.distill(student, None, data, train=train, fabric=CPU, log=log, out=tmp_path / "d")
    assert load_checkpoint(tmp_path / "d/last.pt")["identity"]["train"]["precision"] == "bf16-mixed"

    recipe = {**recipes.read("digits"), "fabric": {"accelerator": "cpu"}, "train": {"precision": "auto"}}
    points = make_points(recipe, {"plain": {}, "kd": {"kd": {}}}, [])
    swept = Sweep(points, tmp_path / "sweep", recipe="digits", reference="plain")
    assert [p.config.train.precision for p in swept.points] == ["bf16-mixed", "bf16-mixed"]
    assert [p.config.teacher_train.precision for p in swept.points] == ["32-true", "32-true"]
