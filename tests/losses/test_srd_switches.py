"""The parts of SRD that its poster compares, against NumPy, and as options of a run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.trees import differences
from bnn_itrd.distillers import METHODS
from bnn_itrd.distillers.factory import make_distillers
from bnn_itrd.distillers.setting import Setting, Sizes
from bnn_itrd.errors import UserError
from bnn_itrd.losses import SRD

Array = np.ndarray[Any, np.dtype[np.float64]]


def _normalised(z: Array, norm: str) -> Array:
    if norm == "batch":
        return np.stack([(x - x.mean()) / math.sqrt(x.var() + 1e-4) for x in z.T], axis=1)
    if norm == "l2":
        return np.stack([x / math.sqrt(sum(x * x)) for x in z])
    return z


@pytest.mark.parametrize("form", ["log_sum", "l2"])
@pytest.mark.parametrize("projector", ["linear", "mlp"])
@pytest.mark.parametrize("norm", ["none", "l2", "batch"])
def test_every_combination_equals_numpy(norm: Any, projector: Any, form: Any) -> None:
    torch.manual_seed(0)
    srd = SRD(3, 4, norm=norm, projector=projector, form=form, exponent=2.5).double()
    rng = np.random.default_rng(1)
    z_s, z_t = rng.normal(0.3, 1.2, (6, 3)), rng.normal(0.3, 1.2, (6, 4))
    weights = {name: value.detach().numpy() for name, value in srd.named_parameters()}
    if projector == "mlp":
        assert {*weights} == {"projector.0.weight", "projector.0.bias", "projector.2.weight"}
        hidden = z_s @ weights["projector.0.weight"].T + weights["projector.0.bias"]
        projected = np.maximum(hidden, 0) @ weights["projector.2.weight"].T
    else:
        projected = z_s @ weights["projector.weight"].T
    a, b = _normalised(projected, norm), _normalised(z_t, norm)
    if form == "l2":
        want = 0.5 * sum((x - y) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)) / 6
    else:
        want = math.log(sum(abs(x - y) ** 2.5 for x, y in zip(a.ravel(), b.ravel(), strict=True)))
    assert srd(torch.from_numpy(z_s), torch.from_numpy(z_t)).item() == pytest.approx(want, rel=1e-10)
    # BN's running statistics are the only state, and belong to that norm alone.
    assert {*srd.state_dict()} - {*weights} == (
        {f"norm_{side}.{name}" for side in "st" for name in ("running_mean", "running_var", "num_batches_tracked")}
        if norm == "batch"
        else set()
    )


def test_the_gradient_of_the_projection_is_that_of_the_poster() -> None:
    """-dD/dW = C_st - C_s W (eq. 3), D summed over the samples."""
    srd = SRD(3, 4, norm="none", form="l2").double()
    rng = np.random.default_rng(2)
    z_s, z_t = rng.normal(size=(7, 3)), rng.normal(size=(7, 4))
    srd(torch.from_numpy(z_s), torch.from_numpy(z_t)).backward()
    weight = srd.projector.weight
    assert isinstance(weight, torch.nn.Parameter) and weight.grad is not None
    want = z_s.T @ z_t - z_s.T @ z_s @ weight.detach().numpy().T
    np.testing.assert_allclose(-7 * weight.grad.numpy().T, want, rtol=1e-10)


def test_a_single_sample_needs_no_batch_norm() -> None:
    z = torch.ones(1, 3)
    assert SRD(3, 3, norm="l2")(z, z).isfinite()
    with pytest.raises(ValueError, match="for the variance of BatchNorm, got 1"):
        SRD(3, 3)(z, z)


def _made(**options: Any) -> Any:
    class Learning:
        methods: dict[str, Any] = {"srd": METHODS["srd"](**options)}  # noqa: RUF012

    sizes = Sizes(10, 4, ())
    distiller: Any = make_distillers(Learning(), Setting(sizes, sizes, torch.zeros(0)))["srd"]
    return distiller.loss


def test_the_options_reach_the_loss() -> None:
    loss = _made(norm="none", projector="mlp", form="l2")
    assert (loss.norm, loss.form, type(loss.projector)) == ("none", "l2", torch.nn.Sequential)
    torch.manual_seed(3)
    plain = _made()
    torch.manual_seed(3)
    assert torch.equal(torch.nn.Linear(4, 4, bias=False).weight, plain.projector.weight)


def test_a_run_from_before_the_switches_goes_on_and_one_with_another_switch_does_not() -> None:
    saved = {"distill": DistillConfig(srd=METHODS["srd"]()).tree()}
    for name in ("norm", "projector", "form"):
        del saved["distill"]["srd"][name]
    assert differences(saved, {"distill": DistillConfig(srd=METHODS["srd"]()).tree()}) == []
    other = {"distill": DistillConfig(srd=METHODS["srd"](norm="none")).tree()}
    assert differences(saved, other) == ["distill.srd.norm: 'batch' there, 'none' given"]


def test_what_is_no_norm_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"srd.norm must be one of none, l2, batch, got 'layer'"):
        METHODS["srd"](norm="layer")


def test_the_words_of_the_options_are_read_from_a_recipe() -> None:
    from bnn_itrd.config.parse import run_config

    recipe = {"students": {"a": {"srd": {"norm": "none"}}}}
    config, _ = run_config("run", "", recipe, ["--students.a.srd.form=l2"], extra={})
    assert (config.students["a"].srd.norm, config.students["a"].srd.form) == ("none", "l2")
