"""The term of every distiller in a run is weight times schedule times its loss, made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from helpers.distilled_runs import (
    CPU,
    PREPARATION,
    SHAPE,
    STILL,
    STUDENT,
    TEACHER,
    TEACHER_MAPS,
    Net,
    dc,
    distilled,
    made,
    partly_labelled,
    settings,
)
from torch import Tensor

import bnn_itrd.losses as losses
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers import METHODS
from bnn_itrd.models import Outputs, observe
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.training.trainer import Trainer

STUDENT_MAPS = tuple(zip(STUDENT, (16, 8, 4), (16, 8, 4), strict=True))
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


def test_no_other_distiller_reads_labels(npz: Path) -> None:
    """Its term is the same whatever the labels say."""
    labels = partly_labelled(npz).train.labels
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
