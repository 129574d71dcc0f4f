"""Distillers with a phase before the training: who learns in it, at which rate, and what is frozen after it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.distilled_runs import (
    CPU,
    PREPARATION,
    QUIET,
    STILL,
    TEACHER,
    TEACHER_MAPS,
    Net,
    Stop,
    dc,
    distilled,
    made,
    settings,
    stop_after,
)

import bnn_itrd
import bnn_itrd.losses as losses
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import UserError
from bnn_itrd.models import observe
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.metrics import read_metrics


def _between_and_end(
    data: ImageData, out: Path, distill: DistillConfig, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> Any:
    """The objective's state before the training and after it, and the history."""
    teacher = made(2, Net, TEACHER).eval()
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 99, 0)
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
            stop_after(patch, 9, training)
            with contextlib.suppress(Stop):
                distilled(data, tmp_path, config, student=made(1), teacher=teacher)
        states.append(load_checkpoint(tmp_path / "last.pt")["objective"])
    keys = [key for key in states[0] if "connectors" in key]
    assert keys and all(torch.equal(states[0][key], states[1][key]) for key in keys)


def test_a_run_in_its_preparation_is_no_network_yet(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 1, 0)
        config = DistillConfig(ft=dc.FTConfig(preparation_epochs=2))
        distilled(data, tmp_path, config, student=made(1), teacher=made(2, Net, TEACHER))
    with pytest.raises(UserError, match="has no finished epoch of training yet, only its distillers' preparation"):
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
    with pytest.raises(UserError, match=r"preparation_lr differs between distillers \(ab none, ft 0\.25\), .*: give"):
        distilled(data, tmp_path, config, student=made(1), teacher=made(2, Net, TEACHER))
    assert not (tmp_path / "last.pt").exists()
    with pytest.raises(
        UserError, match=r"^fsp\.preparation_lr must be null unless preparation_epochs is above 0, got 0\.1"
    ):
        dc.FSPConfig(preparation_lr=0.1)


def test_a_preparation_that_is_not_finite_stops_and_names_its_part(data: ImageData, tmp_path: Path) -> None:
    config = DistillConfig(ft=dc.FTConfig(preparation_epochs=2))
    with pytest.raises(UserError, match=r"'ft' was not finite at step \d .*last\.pt has 0 of its 2 epochs"):
        distilled(data, tmp_path, config, student=made(1), teacher=made(2, Net, TEACHER), lr=1e30)
    assert not (tmp_path / "last.pt").exists()
