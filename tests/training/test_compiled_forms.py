"""``train.compile_mode``: what a step is tried as, and that one which fails leaves no trace in the network."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_npz
from torch import nn

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.config.trees import differences
from bnn_itrd.data.datasets import load_data
from bnn_itrd.distillers.representation.itrd import ITRDConfig
from bnn_itrd.errors import UserError
from bnn_itrd.models import resnet8
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.fit import fit
from bnn_itrd.training.progress import Progress
from bnn_itrd.training.step.compiling import CompiledForms, forms
from bnn_itrd.training.trainer import Trainer

CPU = FabricConfig(accelerator="cpu", threads=1)


@pytest.mark.parametrize(
    ("mode", "device", "processes", "expected"),
    [
        ("auto", "cuda", 1, ("reduce-overhead", "default", "eager")),
        ("auto", "cpu", 1, ("default", "eager")),
        ("auto", "cuda", 2, ("default",)),
        (None, "cuda", 1, ("default",)),
        ("reduce-overhead", "cuda", 1, ("reduce-overhead",)),
        ("max-autotune", "cpu", 2, ("max-autotune",)),
    ],
)
def test_what_is_tried(mode: Any, device: str, processes: int, expected: tuple[str, ...]) -> None:
    assert forms(TrainConfig(compile=True, compile_mode=mode), device=device, processes=processes) == expected


def test_a_step_that_is_not_compiled() -> None:
    assert forms(TrainConfig(), device="cuda", processes=1) == ("eager",)
    with pytest.raises(UserError, match=r"train.compile must be true with compile_mode, got False"):
        TrainConfig(compile_mode="reduce-overhead")


def test_the_mode_may_change_where_a_run_is_continued() -> None:
    saved, given = {"train": {"compile_mode": None}}, {"train": {"compile_mode": "auto"}}
    assert differences(saved, given) == []
    assert differences({"train": {"lr": 0.1}}, {"train": {"lr": 0.2}}) == ["train.lr: 0.1 there, 0.2 given"]


class _Widened(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(2, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).sum()


@pytest.mark.compiles
def test_as_many_networks_as_a_process_trains_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch keeps eight compiled versions of one function; the ninth network's step would not be compiled."""
    seen = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    for width in range(1, 11):
        CompiledForms(("default",)).apply(_Widened(width))(torch.ones(1, 2))
    assert len(seen) == 10


@pytest.mark.compiles
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_student_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float | None) -> None:
    """Both networks and the losses are one graph; neither an evaluation nor another epoch compiles anything.

    Without a moving average the evaluated network is the one that is observed.
    """
    seen = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.append(graph)
        return graph.forward

    def network(binary: bool) -> nn.Module:
        conv = BinaryConv2d(3, 4, 3, scheme="recu") if binary else nn.Conv2d(3, 4, 3)
        layers = conv, nn.BatchNorm2d(4), nn.Hardtanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        return nn.Sequential(*layers)

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **options: compiled(module, backend=backend))
    # 96 images in batches of 20: what is left over is no batch.
    data = load_data(DataConfig(name="cifar10", root=str(write_npz(tmp_path / "x.npz"))))
    fit(
        network(True),
        network(False).eval(),
        data,
        train=TrainConfig(epochs=2, batch_size=20, compile=True, ema=ema),
        distill=DistillConfig(itrd=ITRDConfig()),
        fabric=make_fabric(CPU),
        log=LogConfig(tensorboard=False, progress=False),
        out=tmp_path / "run",
        identity={},
    )
    assert len(seen) == 1


class _Failing(nn.Module):
    """Stands in for a compiled module: works for so many calls, then fails in the forward or the backward pass."""

    def __init__(self, module: nn.Module, *, calls: int, backward: bool) -> None:
        super().__init__()
        self.module, self.calls, self.backward = module, calls, backward

    def forward(self, *batch: Any) -> Any:
        loss, *rest = self.module(*batch)
        self.calls -= 1
        if self.calls >= 0:
            return loss, *rest
        if not self.backward:
            raise RuntimeError("cannot be compiled\nand more lines")
        return _FailingBackward.apply(loss), *rest


class _FailingBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        raise RuntimeError("cannot be captured")


def _trained(npz: Path, **train: Any) -> tuple[dict[str, torch.Tensor], Trainer]:
    """The state after an epoch of six steps, in which the student draws random numbers (drop-out)."""
    data = load_data(DataConfig(name="cifar10", root=str(npz)))
    torch.manual_seed(0)
    shape = data.input_shape
    teacher, student = resnet8(3, input_shape=shape).eval(), resnet8(3, input_shape=shape, binary="recu")
    student.norm = nn.Sequential(student.norm, nn.Dropout(0.1))
    config = TrainConfig(epochs=1, batch_size=16, warmup_epochs=0, **train)
    trainer = Trainer(
        student, teacher, input_shape=shape, train=config, distill=DistillConfig(itrd=ITRDConfig()),
        fabric=make_fabric(CPU),
    )  # fmt: skip
    try:
        quiet = Progress("", epochs=1, steps=6, names=(), batch_size=16, enabled=False, live=False)
        trainer.train_epoch(data, quiet)
    finally:
        trainer.objective.release()
    return trainer.objective.state_dict(), trainer


@pytest.mark.parametrize(("backward", "error"), [(False, "cannot be compiled"), (True, "cannot be captured")])
def test_a_form_that_fails_in_the_first_step_leaves_no_trace(
    backward: bool, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    npz = write_npz(tmp_path / "x.npz", n=96)
    expected, _ = _trained(npz)
    asked: list[Any] = []

    def compiled(module: nn.Module, *, mode: Any = None) -> nn.Module:
        asked.append(mode)
        return _Failing(module, calls=0, backward=backward)

    monkeypatch.setattr(torch, "compile", compiled)
    got, trainer = _trained(npz, compile=True)
    assert asked == [None] and trainer.forms.form == "eager"
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    lines = capsys.readouterr().out.splitlines()
    said = f"a training step, compiled, failed (RuntimeError: {error}): it now runs as it is written, without "
    said += "torch.compile"
    assert lines == [said]


def test_a_form_that_fails_later_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA graphs are recorded in the second step and replayed in the third; after it an error is the step's own."""
    npz = write_npz(tmp_path / "x.npz", n=96)
    monkeypatch.setattr(torch, "compile", lambda module, mode=None: _Failing(module, calls=2, backward=False))
    assert _trained(npz, compile=True)[1].forms.form == "eager"
    monkeypatch.setattr(torch, "compile", lambda module, mode=None: _Failing(module, calls=3, backward=False))
    with pytest.raises(RuntimeError, match="cannot be compiled"):
        _trained(npz, compile=True)


def test_a_named_mode_is_tried_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npz = write_npz(tmp_path / "x.npz", n=96)
    monkeypatch.setattr(torch, "compile", lambda module, mode=None: _Failing(module, calls=0, backward=False))
    with pytest.raises(RuntimeError, match="cannot be compiled"):
        _trained(npz, compile=True, compile_mode="reduce-overhead")


def test_the_step_s_own_fault_is_told_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last form is the step as it is written, whose error is the true one."""
    npz = write_npz(tmp_path / "x.npz", n=96)
    monkeypatch.setattr(torch, "compile", lambda module, mode=None: _Failing(module, calls=0, backward=False))
    monkeypatch.setattr(resnet8(3, binary="recu").__class__, "forward", lambda self, x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _trained(npz, compile=True)
