"""Defaults of the losses, of their modules and of the methods' settings agree with each other and with the papers."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import bnn_itrd.losses
from bnn_itrd.distillers import METHODS, Weighted
from bnn_itrd.losses import (
    AB,
    AT,
    CC,
    CRD,
    DIST,
    DKD,
    FT,
    ITRD,
    KD,
    RKD,
    SRD,
    VID,
    FitNet,
    VIDLogits,
    WCoRD,
    ab_loss,
    at_loss,
    cc_loss,
    correlation_loss,
    dist_loss,
    dkd_loss,
    factor_loss,
    sinkhorn,
    soft_kl,
    srd_loss,
    vid_loss,
)

# Published weights, each for the reduction of its loss here (RepDistiller's, or the method's own code).
WEIGHTS = {
    "kd": 0.9, "dkd": 1, "dist": 1, "itrd": 1, "cc": 0.02, "rkd": 1, "pkt": 3e4, "srd": 2, "crd": 0.8, "wcord": 1,
    "vid": 1, "fitnet": 100, "at": 1000, "sp": 3000, "nst": 50, "ickd": 2.5, "fsp": 50, "ab": 3e-3, "ft": 200,
    "reviewkd": 1,
}  # fmt: skip


def test_weights_are_the_published_ones() -> None:
    assert {name: METHODS[name]().weight for name in WEIGHTS} == WEIGHTS
    assert {name for name in WEIGHTS if METHODS[name]().warmup_epochs == 20} == {"dkd", "reviewkd"}


def _defaults(call: Callable[..., object]) -> dict[str, Any]:
    parameters = inspect.signature(call).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


@pytest.mark.parametrize("name", METHODS)
def test_settings_have_the_defaults_of_their_loss(name: str) -> None:
    loss = {m.lower(): getattr(bnn_itrd.losses, m) for m in bnn_itrd.losses.__all__}.get(name)
    kept = {"embed_dim", "num_negatives", "temperature", "momentum"} if name in ("crd", "wcord") else set()
    if loss is None:  # a function without settings
        options = {field.name for field in fields(METHODS[name])} - {field.name for field in fields(Weighted)}
        assert options <= {"stage"}
        return
    config = METHODS[name]()
    own = {{"negatives": "num_negatives"}.get(f.name, f.name): getattr(config, f.name) for f in fields(config)}
    both = own.keys() & _defaults(loss).keys()
    assert both >= kept
    assert {k: own[k] for k in both} == {k: _defaults(loss)[k] for k in both}


@pytest.mark.parametrize(
    ("module", "function", "shared"),
    [
        (KD, soft_kl, {"tau": 4}),
        (DIST, dist_loss, {"beta": 1, "gamma": 1, "tau": 1}),
        (DKD, dkd_loss, {"alpha": 1, "beta": 8, "tau": 4}),
        (AT, at_loss, {"p": 2}),
        (CC, cc_loss, {"gamma": 0.4, "order": 2}),
        (SRD, srd_loss, {"exponent": 4}),
        (AB, ab_loss, {"margin": 1}),
        (FT, factor_loss, {"attention": True}),
        (VID, vid_loss, {"reduction": "mean"}),
        (VIDLogits, vid_loss, {"reduction": "mean"}),
        (WCoRD, sinkhorn, {"epsilon": 0.1, "iterations": 50}),
        (ITRD, correlation_loss, {"alpha": 1.01}),
    ],
)
def test_module_and_function_have_the_same_defaults(
    module: Callable[..., object], function: Callable[..., object], shared: dict[str, Any]
) -> None:
    for call in (module, function):
        assert {k: v for k, v in _defaults(call).items() if k in shared} == shared


def test_defaults_of_modules_alone() -> None:
    bank = {"embed_dim": 128, "num_negatives": 16384, "temperature": 0.07, "momentum": 0.5}
    assert _defaults(CRD) == bank
    assert _defaults(WCoRD) == {**bank, "beta_global": 0.8, "beta_local": 0.05, "epsilon": 0.1, "iterations": 50}
    for vid in (VID, VIDLogits):
        assert _defaults(vid)["init_variance"] == 5
    assert not _defaults(VID)["batch_norm"] and not _defaults(FitNet)["batch_norm"]
    assert _defaults(FT)["rate"] == 0.5
    assert _defaults(CC)["form"] == "consecutive"
    correlation = {"corr_log": True, "off_diagonal": 0, "decorrelation": 0}
    information = {"log": False, "order": 2, "degree": 1}
    assert _defaults(ITRD) == {"alpha": 1.01, "beta_corr": 2, "beta_mi": 1, **correlation, **information}
    assert _defaults(SRD) == {"exponent": 4, "norm": "batch", "projector": "linear", "form": "log_sum"}
    assert _defaults(RKD) == {"distance": 25, "angle": 50}


def test_every_loss_has_public_names_which_its_file_names_too() -> None:
    folder = Path(bnn_itrd.losses.__file__).parent
    files = {f"bnn_itrd.losses.{path.stem}" for path in folder.glob("*.py") if not path.stem.startswith("_")}
    found = {name: getattr(bnn_itrd.losses, name).__module__ for name in bnn_itrd.losses.__all__}
    assert set(found.values()) == files
    for name, module in found.items():
        assert name in importlib.import_module(module).__all__
