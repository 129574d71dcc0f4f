"""Every distiller in a run: its term by hand, phases, schedules, exact resume, refusals, options."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from einops import rearrange
from helpers import write_npz
from torch import Tensor, nn

import bnn_itrd
import bnn_itrd.losses as losses
from bnn_itrd.cli import main
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import RunConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.distillers import METHODS
from bnn_itrd.errors import UserError
from bnn_itrd.models import Outputs, observe
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.runs.networks import build
from bnn_itrd.runs.run import run_recipe
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.fit import fit
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.training.trainer import Trainer

# KDConfig, ITRDConfig ...
dc: Any = SimpleNamespace(**{kind.__name__: kind for kind in METHODS.values()})
QUIET = LogConfig(tensorboard=False, progress=False)
CPU = FabricConfig(accelerator="cpu", threads=1)
SHAPE = (3, 16, 16)
STUDENT, TEACHER = (6, 8, 12), (8, 10, 14)
STUDENT_MAPS = tuple(zip(STUDENT, (16, 8, 4), (16, 8, 4), strict=True))
TEACHER_MAPS = tuple(zip(TEACHER, (16, 8, 4), (16, 8, 4), strict=True))
# So small that no weight moves, whatever its gradient.
STILL = 1e-30
# Epochs of preparation draw from here on (documented in the trainer).
PREPARATION = 1 << 20


class Net(nn.Module):
    """Three stages and no BatchNorm: several processes compute exactly what one does."""

    stages = ("a", "b", "c")

    def __init__(
        self, widths: tuple[int, ...] = STUDENT, *, classes: int = 3, stride: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1), nn.Hardtanh())
        self.b = nn.Sequential(nn.Conv2d(widths[0], widths[1], 3, stride, 1), nn.Hardtanh())
        self.c = nn.Conv2d(widths[1], widths[2], 3, 2, 1)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(widths[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.b(self.a(x)))
        return self.linear(self.dropout(x.mean((2, 3))))


class Flat(nn.Module):
    """A network that shows no stages."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.linear = nn.AdaptiveAvgPool2d(4), nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(x).flatten(1))


def made(seed: int, network: Callable[..., nn.Module] = Net, *args: Any, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return network(*args, **options)


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz", size=16)


@pytest.fixture(scope="module")
def data(npz: Path) -> ImageData:
    return load_data(DataConfig(name="cifar10", root=str(npz)))


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"epochs": 2, "batch_size": 32, "lr": 0.02, "warmup_epochs": 0.0, **changes})


def distilled(
    data: ImageData, out: Path, distill: DistillConfig, *, student: nn.Module, teacher: nn.Module, **changes: Any
) -> Any:
    return bnn_itrd.distill(
        student, teacher, data, train=settings(**changes), distill=distill, out=out, fabric=CPU, log=QUIET
    )


# ---- the term of each method, by hand

Hand = Callable[[Outputs, Outputs, Tensor, Tensor], Tensor]


def _maps(loss: Callable[..., Tensor]) -> Hand:
    return lambda s, t, labels, i: torch.stack([loss(a, b) for a, b in zip(s.stages, t.stages, strict=True)]).sum()


def _stage(loss: Callable[..., Tensor], k: int) -> Hand:
    return lambda s, t, labels, i: loss(s.stages[k], t.stages[k])


def _representations(loss: Callable[..., Tensor]) -> Hand:
    return lambda s, t, labels, i: loss(s.representation, t.representation)


def _vid(labels: Tensor) -> Hand:
    parts = [losses.VID(s, t, batch_norm=True) for s, t in zip(STUDENT_MAPS, TEACHER_MAPS, strict=True)]
    return lambda s, t, labels, i: sum(p(a, b) for p, a, b in zip(parts, s.stages, t.stages, strict=True))


def _vid_logits(labels: Tensor) -> Hand:
    loss = losses.VIDLogits(STUDENT[-1], 3, reduction="sum")
    return lambda s, t, labels, i: loss(s.representation, t.logits)


def _vid_both(labels: Tensor) -> Hand:
    maps, logits = _vid(labels), losses.VIDLogits(STUDENT[-1], 3)
    return lambda s, t, labels, i: maps(s, t, labels, i) + 2.5 * logits(s.representation, t.logits)


def _lwf(labels: Tensor) -> Hand:
    loss = losses.LwF(STUDENT[-1], 3, tau=3.0)
    return lambda s, t, labels, i: loss(s.representation, t.logits)


def _contrast(loss: Callable[..., Tensor]) -> Hand:
    return lambda s, t, labels, i: loss(s.representation, t.representation, i)


def _reviewkd(labels: Tensor) -> Hand:
    loss = losses.ReviewKD([*STUDENT_MAPS, (STUDENT[-1], 1, 1)], [*TEACHER_MAPS, (TEACHER[-1], 1, 1)])
    return lambda s, t, labels, i: loss(
        *([*o.stages, rearrange(o.representation, "n d -> n d 1 1")] for o in (s, t)),
    )


DIMS = STUDENT[-1], TEACHER[-1]
# name, configuration without its schedule, and what makes the bare loss (with its parameters) of the training labels
TERMS: list[tuple[str, Any, Callable[[Tensor], Hand]]] = [
    ("kd", dc.KDConfig(weight=0.7, tau=3.0), lambda y: lambda s, t, c, i: losses.soft_kl(s.logits, t.logits, tau=3.0)),
    (
        "dkd",
        dc.DKDConfig(weight=0.7, warmup_epochs=0, alpha=0.5, beta=6.0, tau=2.0),
        lambda y: lambda s, t, c, i: losses.dkd_loss(s.logits, t.logits, c, alpha=0.5, beta=6.0, tau=2.0),
    ),
    (
        "dist",
        dc.DISTConfig(weight=0.7, beta=2.0, gamma=0.5, tau=4.0),
        lambda y: lambda s, t, c, i: losses.dist_loss(s.logits, t.logits, beta=2.0, gamma=0.5, tau=4.0),
    ),
    (
        "itrd",
        dc.ITRDConfig(weight=0.7, alpha=1.5, beta_corr=0.5, beta_mi=3.0),
        lambda y: _representations(losses.ITRD(*DIMS, alpha=1.5, beta_corr=0.5, beta_mi=3.0)),
    ),
    ("cc", dc.CCConfig(weight=0.5, embed_dim=9), lambda y: _representations(losses.CC(*DIMS, embed_dim=9))),
    (
        "cc",
        dc.CCConfig(weight=0.5, embed_dim=9, form="kernel"),
        lambda y: _representations(losses.CC(*DIMS, embed_dim=9, form="kernel")),
    ),
    (
        "rkd",
        dc.RKDConfig(weight=0.5, distance=3.0, angle=2.0),
        lambda y: _representations(losses.RKD(distance=3.0, angle=2.0)),
    ),
    ("pkt", dc.PKTConfig(weight=2e3), lambda y: _representations(losses.pkt_loss)),
    ("srd", dc.SRDConfig(weight=0.5, exponent=2.0), lambda y: _representations(losses.SRD(*DIMS, exponent=2.0))),
    (
        "crd",
        dc.CRDConfig(weight=0.5, embed_dim=7, negatives=20, temperature=0.2, momentum=0.3),
        lambda y: _contrast(losses.CRD(*DIMS, y, embed_dim=7, num_negatives=20, temperature=0.2, momentum=0.3)),
    ),
    (
        "wcord",
        dc.WCoRDConfig(weight=0.5, embed_dim=7, negatives=20, beta_local=0.6, epsilon=0.2, iterations=9),
        lambda y: _contrast(
            losses.WCoRD(*DIMS, y, embed_dim=7, num_negatives=20, beta_local=0.6, epsilon=0.2, iterations=9)
        ),
    ),
    ("vid", dc.VIDConfig(weight=0.5, batch_norm=True), _vid),
    ("vid", dc.VIDConfig(weight=0.5, form="logits", reduction="sum"), _vid_logits),
    ("vid", dc.VIDConfig(weight=0.5, form="both", batch_norm=True, logits_weight=2.5), _vid_both),
    ("lwf", dc.LwFConfig(weight=0.5, tau=3.0), _lwf),
    ("fitnet", dc.FitNetConfig(weight=9.0), lambda y: _stage(losses.FitNet(STUDENT_MAPS[1], TEACHER_MAPS[1]), 1)),
    (
        "fitnet",
        dc.FitNetConfig(weight=9.0, stage=0),
        lambda y: _stage(losses.FitNet(STUDENT_MAPS[0], TEACHER_MAPS[0]), 0),
    ),
    ("at", dc.ATConfig(weight=9.0, p=3.0), lambda y: _maps(lambda s, t: losses.at_loss(s, t, p=3.0))),
    ("sp", dc.SPConfig(weight=9.0), lambda y: _stage(losses.sp_loss, 2)),
    ("nst", dc.NSTConfig(weight=9.0), lambda y: _maps(losses.nst_loss)),
    ("ickd", dc.ICKDConfig(weight=9.0, stage=-2), lambda y: _stage(losses.ICKD(STUDENT_MAPS[1], TEACHER_MAPS[1]), 1)),
    (
        "fsp",
        dc.FSPConfig(weight=9.0),
        lambda y: lambda s, t, c, i: losses.FSP(TEACHER_MAPS, TEACHER_MAPS)(s.stages, t.stages),
    ),
    ("reviewkd", dc.ReviewKDConfig(weight=3.0, warmup_epochs=0), _reviewkd),
]


def test_every_method_has_its_term_here_or_in_a_file_of_its_own() -> None:
    files = {path.stem.removeprefix("test_") for path in Path(__file__).parent.rglob("test_*.py")}
    assert set(METHODS) - files == {name for name, _, _ in TERMS} | {"ab", "ft"}


def test_the_names_are_those_of_the_classes() -> None:
    assert {kind().name: kind for kind in METHODS.values()} == METHODS


@pytest.mark.parametrize(("name", "config", "make"), TERMS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(TERMS)])
def test_the_term_is_weight_times_schedule_times_the_loss(
    data: ImageData, tmp_path: Path, name: str, config: Any, make: Callable[[Tensor], Hand]
) -> None:
    widths = TEACHER if name == "fsp" else STUDENT  # FSP wants the teacher's channels
    student, teacher = made(1, Net, widths), made(2, Net, TEACHER).eval()
    torch.manual_seed(mix_seed(0, 1))  # where the trainer starts the distillers' parameters
    hand = make(data.train.labels)
    expected = []
    s_seen, t_seen = observe(student), observe(teacher)
    for epoch in range(2):
        (images, labels, indices), *more = data.train.train_batches(96, seed=0, epoch=epoch, device=torch.device("cpu"))
        assert not more
        torch.manual_seed(mix_seed(0, epoch, 2))
        with torch.no_grad():
            expected.append(float(hand(s_seen(images), t_seen(images), labels, indices)))
    s_seen.remove()
    t_seen.remove()
    scheduled = type(config)(**{**vars(config), "final": 0.5})
    fitted = distilled(
        data, tmp_path, DistillConfig(**{name: scheduled}), student=student, teacher=teacher, batch_size=96, lr=STILL
    )
    # one step an epoch: of two epochs, at 0 and 1, the factor is 1 and 1 + (0.5 - 1) / 2
    for row, factor, value in zip(fitted.history, (1.0, 0.75), expected, strict=True):
        assert abs(value) > 1e-6
        assert row[f"loss_{name}"] == pytest.approx(config.weight * factor * value, rel=1e-4)
        assert row["loss"] == pytest.approx(row["loss_ce"] + row[f"loss_{name}"], rel=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        *(DistillConfig(**{name: config}) for name, config, _ in TERMS),
        DistillConfig(ab=dc.ABConfig(), ft=dc.FTConfig()),
        DistillConfig(itrd=dc.ITRDConfig(beta_corr=0, beta_mi=0)),
        DistillConfig(wcord=dc.WCoRDConfig(beta_global=0, negatives=9)),
    ],
)
def test_every_parameter_that_is_not_frozen_has_a_gradient(data: ImageData, config: DistillConfig) -> None:
    # data-parallel training waits for all of them
    trainer = Trainer(
        made(1, Net, TEACHER), made(2, Net, TEACHER).eval(), input_shape=SHAPE, train=settings(), distill=config,
        fabric=make_fabric(CPU), labels=data.train.labels,
    )  # fmt: skip
    trainer.end_preparation()
    trainer.objective.train()
    loss, _, _ = trainer.objective(*next(data.train.train_batches(32, seed=0, epoch=0, device=torch.device("cpu"))))
    loss.backward()
    lacking = [n for n, p in trainer.objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not lacking


def test_the_phases_are_weight_times_the_loss(data: ImageData, tmp_path: Path) -> None:
    student, teacher = made(1, Net, TEACHER), made(2, Net, TEACHER).eval()
    torch.manual_seed(mix_seed(0, 1))
    factors = losses.FT(TEACHER_MAPS[0], TEACHER_MAPS[0], rate=0.4)
    expected: list[dict[str, float]] = []
    s_seen, t_seen = observe(student), observe(teacher)
    for epoch in (PREPARATION, PREPARATION + 1, 0):
        images, _, _ = next(data.train.train_batches(96, seed=0, epoch=epoch, device=torch.device("cpu")))
        with torch.no_grad():
            s, t = s_seen(images).stages, t_seen(images).stages
            expected.append(
                {
                    "fsp": 7 * float(losses.FSP(TEACHER_MAPS, TEACHER_MAPS)(s, t)),
                    "ab": 5 * sum(2.0 ** (k - 2) * float(losses.ab_loss(s[k], t[k], margin=0.3)) for k in range(3)),
                    "ft": 3 * float(factors(s[0], t[0])) if epoch == 0 else float(factors.paraphraser_loss(t[0])),
                }
            )
    s_seen.remove()
    t_seen.remove()
    distill = DistillConfig(
        fsp=dc.FSPConfig(weight=7, preparation_epochs=1),
        ab=dc.ABConfig(weight=5, margin=0.3, preparation_epochs=2),
        ft=dc.FTConfig(weight=3, rate=0.4, stage=0, preparation_epochs=2),
    )
    fitted = distilled(data, tmp_path, distill, student=student, teacher=teacher, epochs=1, batch_size=96, lr=STILL)
    rows = read_metrics(tmp_path / "preparation.csv")
    assert [row["epoch"] for row in rows] == [1, 2] and "train_top1" not in rows[0]
    for name in ("fsp", "ab", "ft"):
        assert rows[0][f"loss_{name}"] == pytest.approx(expected[0][name], rel=1e-4)
    # the phase of FSP was one epoch shorter
    assert rows[1]["loss_fsp"] is None
    assert rows[1]["loss"] == pytest.approx(rows[1]["loss_ab"] + rows[1]["loss_ft"], rel=1e-4)
    assert rows[1]["loss_ab"] == pytest.approx(expected[1]["ab"], rel=1e-4)
    row = fitted.history[0]
    assert row["loss_ab"] == 0 and row["loss_fsp"] == 0
    assert row["loss_ft"] == pytest.approx(expected[2]["ft"], rel=1e-4)


# ---- phases: who moves when


class Stop(Exception):
    pass


def _stop_after(monkeypatch: pytest.MonkeyPatch, preparation: int, training: int) -> None:
    """The run breaks off when it begins another epoch than these."""
    for name, most in (("prepare_epoch", preparation), ("train_epoch", training)):
        real = getattr(Trainer, name)

        def counted(self: Trainer, *args: Any, real: Any = real, most: int = most, name: str = name) -> Any:
            if (len(self.preparation) if name == "prepare_epoch" else self.epoch) >= most:
                raise Stop
            return real(self, *args)

        monkeypatch.setattr(Trainer, name, counted)


def _between_and_end(
    data: ImageData, out: Path, distill: DistillConfig, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> Any:
    """The objective's state before the training and after it, and the history."""
    teacher = made(2, Net, TEACHER).eval()
    with monkeypatch.context() as patch, pytest.raises(Stop):
        _stop_after(patch, 99, 0)
        distilled(data, out, distill, student=made(1, Net, TEACHER), teacher=teacher, **changes)
    between = load_checkpoint(out / "last.pt")
    assert between["epoch"] == 0 and not between["optimizer"]["state"]  # no momentum is taken along
    fitted = distilled(data, out, distill, student=made(1, Net, TEACHER), teacher=teacher, **changes)
    return between["objective"], load_checkpoint(out / "last.pt")["objective"], fitted.history


def test_the_paraphraser_learns_in_its_phase_and_the_student_after_it(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = made(1, Net, TEACHER).state_dict()
    torch.manual_seed(mix_seed(0, 1))
    factors = losses.FT(TEACHER_MAPS[2], TEACHER_MAPS[2]).state_dict()
    config = DistillConfig(ft=dc.FTConfig(preparation_epochs=4))
    between, end, history = _between_and_end(data, tmp_path, config, monkeypatch, lr=0.2)
    assert all(torch.equal(between[f"student.{key}"], value) for key, value in start.items())
    assert not any(torch.equal(end[f"student.{key}"], value) for key, value in start.items())
    for key, value in factors.items():
        now, later = (state[f"distillers.ft.factors.{key}"] for state in (between, end))
        if key.startswith("paraphraser"):
            assert not torch.equal(value, now) and torch.equal(now, later), key
        elif key.endswith(("weight", "bias")):
            assert torch.equal(value, now) and not torch.equal(now, later), key
    rows = read_metrics(tmp_path / "preparation.csv")
    assert len(rows) == 4 and rows[3]["loss_ft"] < rows[0]["loss_ft"]
    assert all(row["loss_ft"] > 0 for row in history)


@pytest.mark.parametrize(
    ("name", "config"),
    [("ab", dc.ABConfig(weight=1e-3, preparation_epochs=2)), ("fsp", dc.FSPConfig(weight=1, preparation_epochs=2))],
)
def test_a_phase_of_the_student_adds_nothing_later(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, config: Any
) -> None:
    start = made(1, Net, TEACHER).state_dict()
    between, end, history = _between_and_end(data, tmp_path, DistillConfig(**{name: config}), monkeypatch)
    for key, value in start.items():
        # nothing of the phase reaches the classifier, not even weight decay
        assert torch.equal(between[f"student.{key}"], value) == key.startswith("linear."), key
    assert [row[f"loss_{name}"] for row in history] == [0.0, 0.0]
    # from there on it is the training of a plain student
    plain = made(1, Net, TEACHER)
    plain.load_state_dict({key: between[f"student.{key}"] for key in start})
    fitted = bnn_itrd.distill(
        plain, None, data, train=settings(), distill=DistillConfig(), out=tmp_path / "plain", fabric=CPU, log=QUIET
    )
    for key, value in fitted.model.state_dict().items():
        torch.testing.assert_close(end[f"student.{key}"], value, rtol=1e-5, atol=1e-7)


def test_connectors_are_frozen_after_the_phase(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DistillConfig(ab=dc.ABConfig(preparation_epochs=1))
    teacher = made(2, Net, TEACHER).eval()
    states = []
    for training in (0, 9):
        with monkeypatch.context() as patch:
            _stop_after(patch, 9, training)
            with contextlib.suppress(Stop):
                distilled(data, tmp_path, config, student=made(1), teacher=teacher)
        states.append(load_checkpoint(tmp_path / "last.pt")["objective"])
    keys = [key for key in states[0] if "connectors" in key]
    assert keys and all(torch.equal(states[0][key], states[1][key]) for key in keys)


def test_a_run_in_its_preparation_is_no_network_yet(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stop):
        _stop_after(patch, 1, 0)
        config = DistillConfig(ft=dc.FTConfig(preparation_epochs=2))
        distilled(data, tmp_path, config, student=made(1), teacher=made(2, Net, TEACHER))
    with pytest.raises(UserError, match="has no epoch of training yet, only its distillers' preparation"):
        bnn_itrd.load(tmp_path, model=made(1))
    assert not (tmp_path / "best.pt").exists() and not (tmp_path / "metrics.csv").exists()


def test_a_phase_has_a_learning_rate_of_its_own(data: ImageData, tmp_path: Path) -> None:
    """A rate of the phase alone, as a step of plain gradient descent shows; the training keeps its own."""
    teacher = made(2, Net, TEACHER).eval()
    torch.manual_seed(mix_seed(0, 1))
    factors = losses.FT(TEACHER_MAPS[2], TEACHER_MAPS[2])
    images, _, _ = next(data.train.train_batches(96, seed=0, epoch=PREPARATION, device=torch.device("cpu")))
    seen = observe(teacher)
    factors.paraphraser_loss(seen(images).stages[2].detach()).backward()
    seen.remove()
    config = DistillConfig(ft=dc.FTConfig(preparation_epochs=1, preparation_lr=0.25))
    student = made(1, Net, TEACHER)
    changes = {"epochs": 1, "batch_size": 96, "lr": STILL, "momentum": 0.0, "weight_decay": 0.0}
    distilled(data, tmp_path, config, student=student, teacher=teacher, **changes)
    assert read_metrics(tmp_path / "preparation.csv")[0]["lr"] == 0.25
    assert read_metrics(tmp_path / "metrics.csv")[0]["lr"] == pytest.approx(STILL)
    end = load_checkpoint(tmp_path / "last.pt")["objective"]
    for name, parameter in factors.named_parameters():
        if name.startswith("paraphraser"):
            expected = parameter.detach() - 0.25 * parameter.grad
            torch.testing.assert_close(end[f"distillers.ft.factors.{name}"], expected, rtol=1e-4, atol=1e-6)


def test_phases_side_by_side_have_one_rate(data: ImageData, tmp_path: Path) -> None:
    config = DistillConfig(ft=dc.FTConfig(preparation_lr=0.25), ab=dc.ABConfig())
    with pytest.raises(UserError, match=r"preparation_lr must be the same .*, got ab none, ft 0\.25: give"):
        distilled(data, tmp_path, config, student=made(1), teacher=made(2, Net, TEACHER))
    assert not (tmp_path / "last.pt").exists()
    with pytest.raises(UserError, match=r"^fsp\.preparation_lr must be none without preparation_epochs, got 0\.1"):
        dc.FSPConfig(preparation_lr=0.1)


def test_a_preparation_that_is_not_finite_stops_and_names_its_part(data: ImageData, tmp_path: Path) -> None:
    config = DistillConfig(ft=dc.FTConfig(preparation_epochs=2))
    with pytest.raises(UserError, match=r"'ft' was not finite at step \d .*last\.pt holds 0 of 2 epochs"):
        distilled(data, tmp_path, config, student=made(1), teacher=made(2, Net, TEACHER), lr=1e30)
    assert not (tmp_path / "last.pt").exists()


# ---- stopping and continuing

MANY = DistillConfig(
    kd=dc.KDConfig(warmup_epochs=1.5, final=0.3),
    crd=dc.CRDConfig(embed_dim=6, negatives=16),
    wcord=dc.WCoRDConfig(embed_dim=6, negatives=16, iterations=5),
    itrd=dc.ITRDConfig(order=1.5, decorrelation=0.1),
    srd=dc.SRDConfig(projector="mlp"),
    vid=dc.VIDConfig(form="both", batch_norm=True),
    lwf=dc.LwFConfig(),
    fsp=dc.FSPConfig(weight=1.0, preparation_epochs=1, preparation_lr=0.01),
    ab=dc.ABConfig(weight=1e-3, preparation_epochs=2, preparation_lr=0.01),
    ft=dc.FTConfig(weight=5.0, preparation_epochs=2, preparation_lr=0.01),
    reviewkd=dc.ReviewKDConfig(warmup_epochs=1),
)


def _fit(data: ImageData, out: Path, seed: int, **changes: Any) -> dict[str, Any]:
    student, teacher = made(1, Net, TEACHER, dropout=0.2), made(2, Net, TEACHER).eval()
    torch.manual_seed(seed)  # what a new process starts from must not matter
    fit(
        student,
        teacher,
        data,
        train=settings(**changes),
        distill=MANY,
        fabric=make_fabric(CPU),
        log=QUIET,
        out=out,
        identity={},
    )
    return load_checkpoint(out / "last.pt")


@pytest.fixture(scope="module")
def whole(data: ImageData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _fit(data, tmp_path_factory.mktemp("whole"), 0, epochs=3, ema=0.9)


def _same(a: Any, b: Any, where: str) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in ("seconds", "images_per_s"):
                _same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _same(x, y, f"{where}.{i}")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.mark.parametrize(("preparation", "training"), [(1, 0), (2, 0), (2, 1), (2, 2)])
def test_stopping_anywhere_and_continuing_changes_nothing(
    data: ImageData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, Any],
    preparation: int,
    training: int,
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stop):
        _stop_after(patch, preparation, training)
        _fit(data, tmp_path, 0, epochs=3, ema=0.9)
    stopped = load_checkpoint(tmp_path / "last.pt")
    assert (len(stopped["preparation"]), stopped["epoch"]) == (preparation, training)
    (tmp_path / "preparation.csv").unlink()
    parts = _fit(data, tmp_path, 5, epochs=3, ema=0.9)
    for key in ("objective", "model", "optimizer", "ema", "history", "preparation"):
        _same(whole[key], parts[key], key)
    assert any("crd.loss.memory.bank_s" in key for key in parts["objective"])
    assert len(read_metrics(tmp_path / "preparation.csv")) == 2


# ---- schedules, penalties, what happens before an epoch


@pytest.mark.compiles
@pytest.mark.parametrize("compiled", [False, True])
def test_a_schedule_reaches_the_loss(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    # traced as ever, but without a minute of C++ compilation
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **_: real(module, backend="eager"))
    # without augmentation and without steps the bare loss of the whole batch is the same in every epoch
    still = load_data(DataConfig(name="cifar10", root=str(npz), crop_padding=0, flip=False))
    distill = DistillConfig(
        kd=dc.KDConfig(weight=2.0, warmup_epochs=2, final=0.2),
        at=dc.ATConfig(weight=3.0),
        ft=dc.FTConfig(preparation_epochs=2),
    )
    fitted = distilled(
        still, tmp_path, distill, student=made(1), teacher=made(2, Net, TEACHER),
        epochs=6, batch_size=96, lr=STILL, compile=compiled,
    )  # fmt: skip
    terms = [row["loss_kd"] for row in fitted.history]
    factors = [0.0, 0.5, 1.0, 0.8, 0.6, 0.4]  # from 1 at epoch 2 towards 0.2 at epoch 6
    assert terms == pytest.approx([terms[2] * factor for factor in factors], rel=1e-4)
    for name in ("loss_at", "loss_ft"):
        values = [row[name] for row in fitted.history]
        assert values[0] > 0 and values == pytest.approx([values[0]] * 6, rel=1e-4)
    assert [row["loss_ft"] > 0 for row in read_metrics(tmp_path / "preparation.csv")] == [True, True]


@pytest.mark.parametrize(
    ("config", "epoch", "epochs", "factor"),
    [
        (dc.KDConfig(), 3.7, 10, 1.0),
        (dc.KDConfig(warmup_epochs=4), 0.0, 10, 0.0),
        (dc.KDConfig(warmup_epochs=4), 1.0, 10, 0.25),
        (dc.KDConfig(warmup_epochs=4), 4.0, 10, 1.0),
        (dc.KDConfig(final=0.0), 5.0, 10, 0.5),
        (dc.KDConfig(warmup_epochs=2, final=3.0), 6.0, 10, 2.0),
        (dc.KDConfig(warmup_epochs=20), 4.0, 5, 0.2),
    ],
)
def test_factors(config: Any, epoch: float, epochs: int, factor: float) -> None:
    assert config.factor(epoch, epochs) == pytest.approx(factor)


def _objective(data: ImageData, scheme: SchemeConfig, distill: DistillConfig) -> tuple[Any, nn.Module]:
    torch.manual_seed(0)
    network = NetworkConfig("resnet8", width=0.25)
    student = build(network, scheme, num_classes=3, input_shape=SHAPE)
    trainer = Trainer(student, None, input_shape=SHAPE, train=settings(), distill=distill, fabric=make_fabric(CPU))
    trainer.objective.train()
    batch = next(data.train.train_batches(32, seed=0, epoch=0, device=torch.device("cpu")))
    loss, parts, _ = trainer.objective(*batch)
    loss.backward()
    return dict(zip(trainer.objective.names, parts.tolist(), strict=True)), student


def test_a_penalty_of_the_weights_is_a_part_of_the_loss(data: ImageData) -> None:
    # the cross-entropy off: all gradients are the penalty's
    parts, student = _objective(
        data, SchemeConfig(weight="biper", tau_min=0.3, tau_max=0.99, omega=5.0), DistillConfig(ce=0.0)
    )
    layers = [m for m in student.modules() if isinstance(m, BinaryConv2d)]
    waves = [(0.5 - 0.5 * torch.cos(10 * layer.weight.detach().double())).mean() for layer in layers]
    assert parts["penalty"] == pytest.approx(0.3 * float(sum(waves)), rel=1e-4)
    for layer in layers:
        # d/dw of tau mean(0.5 - 0.5 cos(2 omega w))
        wanted = 0.3 * 5.0 * torch.sin(10 * layer.weight.detach()) / layer.weight.numel()
        torch.testing.assert_close(layer.weight.grad, wanted, rtol=1e-3, atol=1e-7)


def test_a_penalty_of_the_activations_is_a_part_of_the_loss(data: ImageData) -> None:
    parts, student = _objective(data, SchemeConfig(rad=2.0), DistillConfig(ce=0.0))
    assert parts["penalty"] > 0 and parts["ce"] == 0
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in student.parameters())
    twice, _ = _objective(data, SchemeConfig(rad=4.0), DistillConfig(ce=0.0))
    assert twice["penalty"] == pytest.approx(2 * parts["penalty"], rel=1e-4)
    assert "penalty" not in _objective(data, SchemeConfig(), DistillConfig())[0]


class Counting(Net):
    """Counts in a buffer how often an epoch began."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("began", torch.zeros(()))

    def start_epoch(self) -> None:
        self.began += 1


@pytest.mark.parametrize(
    ("distill", "began"),
    [
        (DistillConfig(), 2),
        (DistillConfig(ab=dc.ABConfig(weight=1e-3, preparation_epochs=3)), 5),
        (DistillConfig(ft=dc.FTConfig(preparation_epochs=3)), 2),  # the student takes no part in this phase
    ],
)
def test_every_epoch_of_the_student_begins(data: ImageData, tmp_path: Path, distill: DistillConfig, began: int) -> None:
    fitted = distilled(data, tmp_path, distill, student=made(1, Counting), teacher=made(2, Net, TEACHER))
    assert fitted.model.began == began


def test_rotations_are_renewed(data: ImageData, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = NetworkConfig("resnet8", width=0.25)
    scheme = SchemeConfig(weight="rbnn", activation="rbnn")
    student = build(network, scheme, num_classes=3, input_shape=SHAPE)
    before = {k: v.clone() for k, v in student.state_dict().items() if "rot" in k or ".r1" in k or ".r2" in k}
    assert before
    fitted = distilled(data, tmp_path, DistillConfig(), student=student, teacher=Flat(), epochs=1)
    after = fitted.model.state_dict()
    assert any(not torch.equal(value, after[key]) for key, value in before.items())


# ---- what does not fit

REFUSED: list[tuple[DistillConfig, Callable[[], nn.Module], Callable[[], nn.Module], str]] = [
    (DistillConfig(at=dc.ATConfig()), Flat, Net, r"at compares the maps of stages, and the student shows 0 of them"),
    (DistillConfig(ft=dc.FTConfig()), Net, Flat, r"ft compares the maps of stages, and the teacher shows 0 of them"),
    (DistillConfig(reviewkd=dc.ReviewKDConfig()), Flat, Flat, r"reviewkd compares the maps .*representation"),
    (DistillConfig(sp=dc.SPConfig(stage=3)), Net, Net, r"sp\.stage must be in \[-3, 3\), got 3"),
    (DistillConfig(ft=dc.FTConfig(stage=-4)), Net, Net, r"ft\.stage must be in \[-3, 3\), got -4"),
    (DistillConfig(ft=dc.FTConfig(rate=0.05)), Net, Net, r"ft\.rate must be .*leave a factor channel.*12, got 0.05"),
    (
        DistillConfig(fsp=dc.FSPConfig()),
        Net,
        lambda: Net(TEACHER),
        r"fsp: student_shapes\[0\] must have the teacher's 8 channels, got 6",
    ),
    (
        DistillConfig(ab=dc.ABConfig()),
        lambda: Net(stride=8),
        lambda: Net(TEACHER),
        r"ab: student_shapes\[1\] must be at least as large as, or half of, the teacher's \(8, 8\), got \(2, 2\)",
    ),
    (
        DistillConfig(crd=dc.CRDConfig()),
        Net,
        Net,
        r"crd\.negatives must be in \[1, 64\] \(the samples outside the largest class\), got 16384",
    ),
    (DistillConfig(wcord=dc.WCoRDConfig(negatives=65)), Net, Net, r"wcord\.negatives must be in \[1, 64\]"),
    *(
        (
            DistillConfig(**{name: METHODS[name]()}),
            Net,
            lambda: Net(classes=4),
            f"{name} compares logits, and the student has 3 classes, the teacher 4",
        )
        for name in ("kd", "dkd", "dist")
    ),
]


@pytest.mark.parametrize(("distill", "student", "teacher", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_is_told_before_anything_is_written(
    data: ImageData,
    tmp_path: Path,
    distill: DistillConfig,
    student: Callable[[], nn.Module],
    teacher: Callable[[], nn.Module],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        distilled(data, tmp_path / "run", distill, student=student(), teacher=teacher())
    assert not (tmp_path / "run").exists()


def test_other_numbers_of_stages(data: ImageData, tmp_path: Path) -> None:
    teacher = made(2, Net, TEACHER)
    teacher.stages = ("a", "b")  # type: ignore[assignment]
    with pytest.raises(UserError, match="nst compares .* the student has 3 of them, the teacher 2"):
        distilled(data, tmp_path / "run", DistillConfig(nst=dc.NSTConfig()), student=made(1), teacher=teacher)
    # the maps of a stage that is no map cannot be counted on
    teacher.stages = ("a", "b", "linear")  # type: ignore[assignment]
    with pytest.raises(UserError, match="the teacher shows 0 of them"):
        distilled(data, tmp_path / "run", DistillConfig(sp=dc.SPConfig()), student=made(1), teacher=teacher)


def test_a_run_tells_it_before_its_teacher_is_trained(npz: Path, tmp_path: Path) -> None:
    config = RunConfig(
        data=DataConfig(name="cifar10", root=str(npz)),
        network=NetworkConfig("resnet8", width=0.25),
        students={"plain": DistillConfig(), "mine": DistillConfig(crd=dc.CRDConfig())},
        fabric=CPU,
        log=QUIET,
    )
    with pytest.raises(UserError, match=r"students\.mine\.crd\.negatives must be in \[1, 64\]"):
        run_recipe(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "field", "value", "rule"),
    [
        ("crd", "momentum", 1.0, r"in \[0, 1\)"),
        ("wcord", "momentum", 1.5, r"in \[0, 1\)"),
        ("wcord", "epsilon", 0.0, "> 0"),
        ("crd", "negatives", 0, "an integer >= 1"),
        ("crd", "embed_dim", 1.5, "an integer >= 1"),
        ("kd", "tau", 0.0, "> 0"),
        ("kd", "weight", -1.0, ">= 0"),
        ("kd", "weight", math.nan, "finite"),
        ("kd", "final", math.inf, "finite"),
        ("kd", "warmup_epochs", -1.0, ">= 0"),
        ("itrd", "alpha", 0.0, "> 0"),
        ("at", "p", 0.5, ">= 1"),
        ("srd", "exponent", 0.5, ">= 1"),
        ("ft", "rate", 0.0, r"in \(0, 1\]"),
        ("ft", "rate", 1.1, r"in \(0, 1\]"),
        ("ft", "preparation_epochs", 0, ">= 1"),
        ("ab", "preparation_epochs", 0, ">= 1"),
        ("ab", "warmup_epochs", 2.0, "0.0: the term ends before"),
        ("ab", "final", 0.5, "1.0: the term ends before"),
        ("fsp", "preparation_epochs", -1, "an integer >= 0"),
        ("vid", "batch_norm", True, "false with form logits"),
        ("vid", "logits_weight", 2.0, "1 without form both"),
        ("lwf", "tau", 0.0, "> 0"),
        ("ft", "preparation_lr", 0.0, "> 0"),
        ("ab", "preparation_lr", math.inf, "> 0"),
        ("fsp", "warmup_epochs", 2.0, "0.0: the term ends before"),
        ("fsp", "final", 0.5, "1.0: the term ends before"),
        ("cc", "form", "other", "one of consecutive, kernel"),
        ("vid", "reduction", "max", "one of mean, sum"),
    ],
)
def test_values_out_of_range(name: str, field: str, value: Any, rule: str) -> None:
    # what makes the value wrong, where it is right by itself
    others = {"vid": {"form": "logits"}, "fsp": {"preparation_epochs": 1}}.get(name, {})
    with pytest.raises(UserError, match=rf"^{name}\.{field} must be {rule}.*, got "):
        METHODS[name](**{**others, field: value})


def test_values_at_the_edge_are_taken() -> None:
    dc.DKDConfig(alpha=0.0, beta=0.0), dc.FTConfig(rate=1.0), dc.CRDConfig(momentum=0.0), dc.ATConfig(p=1.0)
    dc.FSPConfig(preparation_epochs=0), dc.SPConfig(stage=-1), dc.KDConfig(final=0.0)


# ---- the command line


def _students(*argv: str) -> dict[str, DistillConfig]:
    return run_config("run", "", {"students": {"plain": {}}}, argv, extra={})[0].students


def test_options_of_a_method() -> None:
    students = _students("--students.mine.crd.negatives", "64", "--students.mine.kd.final=0.5", "--students.mine.ce=2")
    assert students["mine"] == DistillConfig(ce=2.0, crd=dc.CRDConfig(negatives=64), kd=dc.KDConfig(final=0.5))
    assert students["plain"] == DistillConfig()
    every = _students(*(f"--students.{name}.{name}={{}}" for name in METHODS))
    assert {name: student.methods for name, student in every.items() if name != "plain"} == {
        name: {name: kind()} for name, kind in METHODS.items()
    }


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("mine.crdd.negatives", "64", r"unknown field of students\.mine 'crdd'.*mean 'crd'"),
        ("mine.crd.negative", "64", r"unknown field of students\.mine\.crd 'negative'.*mean 'negatives'"),
        ("mine.reviewkdd", "{}", r"mean 'reviewkd'"),
        ("mine.crd.negatives", "many", r"students\.mine\.crd\.negatives must be int, got many"),
        ("mine.crd.momentum", "1", r"students\.mine\.crd\.momentum must be in \[0, 1\) .*, got 1"),
        ("mine.cc.form", "other", r"students\.mine\.cc\.form must be"),
        ("mine.kd", "5", r"students\.mine\.kd must hold fields \(weight, warmup_epochs, final, tau\), got 5"),
        ("mine.fitnet.stage", "1.5", r"^students\.mine\.fitnet\.stage must be int or null, got 1\.5$"),
        ("mine.ce", ".inf", r"students\.mine\.ce must be .*got inf"),
    ],
)
def test_bad_options_of_a_method(option: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _students(f"--students.{option}", value)


def test_help_names_every_method_and_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help", "all"])
    text = " ".join(capsys.readouterr().out.split())
    for name, kind in METHODS.items():
        assert f" {name}:" in text
        for field in (f.name for f in dataclasses.fields(kind)):
            assert f"{field} {getattr(kind(), field)}" in text, (name, field)


# ---- images without labels


def _mixed(npz: Path, **more: Any) -> ImageData:
    return load_data(DataConfig(name="cifar10", root=str(npz), per_class=4, unlabelled=True, **more))


def _cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> float:
    """Of the labelled rows, in float64: the definition, row by row."""
    terms = []
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        if label == UNLABELLED:
            continue
        log_p = row - row.exp().sum().log()
        wanted = torch.full_like(log_p, smoothing / len(log_p))
        wanted[label] += 1 - smoothing
        terms.append(float(-(wanted * log_p).sum()))
    return sum(terms) / len(terms)


def test_labels_teach_the_labelled_and_the_teacher_all(npz: Path, tmp_path: Path) -> None:
    data = _mixed(npz)
    student, teacher = made(1), made(2, Net, TEACHER).eval()
    images, labels, _ = next(data.train.train_batches(96, seed=0, epoch=0, device=torch.device("cpu")))
    assert (labels == UNLABELLED).sum() == 84
    with torch.no_grad():
        s, t = student(images), teacher(images)
    kd = 0.9 * float(losses.soft_kl(s, t, tau=4.0))
    right = int((s.argmax(1) == labels).sum())
    fitted = distilled(
        data, tmp_path, DistillConfig(ce=0.3, kd=dc.KDConfig()), student=student, teacher=teacher,
        batch_size=96, lr=STILL, epochs=1, label_smoothing=0.2,
    )  # fmt: skip
    row = fitted.history[0]
    assert row["loss_ce"] == pytest.approx(0.3 * _cross_entropy(s, labels, 0.2), rel=1e-5)
    assert row["loss_kd"] == pytest.approx(kd, rel=1e-5)
    assert row["train_top1"] == pytest.approx(100 * right / 12)


def test_a_batch_without_labels_teaches_nothing_but_the_teachers_terms(npz: Path) -> None:
    data = _mixed(npz)
    trainer = Trainer(
        made(1), made(2, Net, TEACHER).eval(), input_shape=SHAPE, train=settings(), distill=DistillConfig(
            itrd=dc.ITRDConfig()), fabric=make_fabric(CPU), labels=data.train.labels,
    )  # fmt: skip
    assert isinstance(data.train, TensorSplit)
    images = data.train.images[:8].float()
    labels = torch.full((8,), UNLABELLED)
    loss, parts, correct = trainer.objective(images, labels, torch.arange(8))
    assert parts[0] == 0 and parts[1] != 0 and correct == 0 and loss == parts[1]
    loss.backward()
    gradients = [p.grad for p in trainer.student.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    # of the classifier the labels alone would know anything
    assert not trainer.student.linear.weight.grad.any() and trainer.student.c.weight.grad.any()
    # one labelled image: its own cross-entropy, whatever the rest
    labels[3] = 2
    _, parts, _ = trainer.objective(images, labels, torch.arange(8))
    with torch.no_grad():
        logits = trainer.student(images)
    assert float(parts[0]) == pytest.approx(_cross_entropy(logits, labels, 0.0), rel=1e-5)


def test_a_run_with_few_labels_continues_exactly(npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, changes = _mixed(npz, val_fraction=0.25), {"epochs": 3, "batch_size": 8, "ema": 0.5}
    config = DistillConfig(ce=0.5, kd=dc.KDConfig(), ft=dc.FTConfig(preparation_epochs=1))
    states = []
    for stops in ([9], [1, 9]):
        out = tmp_path / str(len(stops))
        for stop in stops:
            with monkeypatch.context() as patch, contextlib.suppress(Stop):
                _stop_after(patch, 9, stop)
                distilled(data, out, config, student=made(1), teacher=made(2, Net, TEACHER), **changes)
        states.append(load_checkpoint(out / "last.pt"))
    for key in ("objective", "model", "optimizer", "ema", "history", "preparation"):
        _same(states[0][key], states[1][key], key)
    assert len(states[0]["history"]) == 3 and all(math.isfinite(row["loss"]) for row in states[0]["history"])


@pytest.mark.parametrize("name", ["dkd", "crd", "wcord"])
def test_a_distiller_that_reads_labels_is_refused_without_them(npz: Path, tmp_path: Path, name: str) -> None:
    config = RunConfig(
        data=DataConfig(name="cifar10", root=str(npz), per_class=4, unlabelled=True),
        network=NetworkConfig("resnet8", width=0.25),
        students={"mine": DistillConfig(**{name: METHODS[name]()})},
        fabric=CPU,
        log=QUIET,
    )
    message = rf"students\.mine: {name} reads the label of every training image, and 84 of 96 have none"
    with pytest.raises(UserError, match=message):
        run_recipe(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_other_distiller_reads_labels(npz: Path) -> None:
    """Its term is the same whatever the labels say."""
    labels = _mixed(npz).train.labels
    for name, config, _ in TERMS:
        if METHODS[name].reads_labels:
            assert name in ("dkd", "crd", "wcord")
            continue
        trainer = Trainer(
            made(1, Net, TEACHER), made(2, Net, TEACHER).eval(), input_shape=SHAPE, train=settings(),
            distill=DistillConfig(ce=0.0, **{name: config}), fabric=make_fabric(CPU), labels=labels,
        )  # fmt: skip
        images = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(0))
        terms = []
        for label in (UNLABELLED, 2):
            torch.manual_seed(0)
            terms.append(float(trainer.objective(images, torch.full((6,), label), torch.arange(6))[0].detach()))
        assert terms[0] == terms[1] and math.isfinite(terms[0])
