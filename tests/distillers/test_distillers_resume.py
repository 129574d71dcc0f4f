"""A run with distillers that have state and phases continues exactly, wherever it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.distilled_runs import CPU, QUIET, TEACHER, Net, Stop, assert_same, dc, made, settings, stop_after

from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.data.splits import ImageData
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.fit import fit
from bnn_itrd.training.metrics import read_metrics

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
        stop_after(patch, preparation, training)
        _fit(data, tmp_path, 0, epochs=3, ema=0.9)
    stopped = load_checkpoint(tmp_path / "last.pt")
    assert (len(stopped["preparation"]), stopped["epoch"]) == (preparation, training)
    (tmp_path / "preparation.csv").unlink()
    parts = _fit(data, tmp_path, 5, epochs=3, ema=0.9)
    for key in ("objective", "model", "optimizer", "ema", "history", "preparation"):
        assert_same(whole[key], parts[key], key)
    assert any("crd.loss.memory.bank_s" in key for key in parts["objective"])
    assert len(read_metrics(tmp_path / "preparation.csv")) == 2
