"""LwF, and VID on maps and logits at once: against loops, and from a teacher of other classes."""

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
from bnn_itrd.losses import LwF
from bnn_itrd.models import Outputs


def _softened(row: Any, tau: float) -> list[float]:
    powers = [math.exp(value / tau) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_lwf_is_the_papers_cross_entropy_less_the_teachers_entropy(tau: float) -> None:
    """Eq. 2 and 3: -sum_i y'_i log yhat'_i with y'_i = y_i^(1/T) / sum_j y_j^(1/T), of probabilities y."""
    torch.manual_seed(0)
    loss = LwF(3, 4, tau=tau).double()
    rng = np.random.default_rng(1)
    z, teacher = rng.normal(size=(5, 3)), rng.normal(0, 2, size=(5, 4))
    answers = z @ loss.head.weight.detach().numpy().T + loss.head.bias.detach().numpy()
    want = 0.0
    for own, theirs in zip(answers, teacher, strict=True):
        y, yhat = _softened(theirs, 1.0), _softened(own, 1.0)
        recorded = [p ** (1 / tau) / sum(q ** (1 / tau) for q in y) for p in y]
        answered = [p ** (1 / tau) / sum(q ** (1 / tau) for q in yhat) for p in yhat]
        crossed = -sum(p * math.log(q) for p, q in zip(recorded, answered, strict=True))
        want += (crossed + sum(p * math.log(p) for p in recorded)) / 5
    assert loss(torch.from_numpy(z), torch.from_numpy(teacher)).item() == pytest.approx(want, rel=1e-10)


def test_lwf_says_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"tau must be > 0 and finite, got 0"):
        LwF(3, 4, tau=0)
    with pytest.raises(ValueError, match=r"z_s must be \(n, 3\)"):
        LwF(3, 4)(torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"the head's answers and teacher_logits"):
        LwF(3, 4)(torch.zeros(2, 3), torch.zeros(3, 4))


@pytest.mark.parametrize("options", [{"lwf": METHODS["lwf"]()}, {"vid": METHODS["vid"](form="both")}])
def test_a_teacher_may_know_other_classes(options: Any) -> None:
    config = DistillConfig(**options)
    assert not config.compares_logits
    shapes = ((3, 4, 4), (5, 2, 2))
    setting = Setting(Sizes(7, 6, shapes), Sizes(11, 9, shapes), torch.zeros(0))
    (made,) = make_distillers(config, setting).values()
    maps = tuple(torch.randn(4, *shape) for shape in shapes)
    student, teacher = (Outputs(torch.randn(4, c), torch.randn(4, d), maps) for c, d in ((7, 6), (11, 9)))
    value = made(student, teacher, torch.zeros(4), torch.arange(4))
    value.backward()
    assert value.isfinite() and all(p.grad is not None for p in made.parameters())
    # The teacher's 11 classes: a head, or a mean and a variance for each.
    assert {tuple(p.shape) for p in made.parameters()} >= {(11, 6), (11,)}


def test_a_run_from_before_the_weight_goes_on() -> None:
    saved = {"distill": DistillConfig(vid=METHODS["vid"](), ft=METHODS["ft"]()).tree()}
    del saved["distill"]["vid"]["logits_weight"], saved["distill"]["ft"]["preparation_lr"], saved["distill"]["lwf"]
    assert differences(saved, {"distill": DistillConfig(vid=METHODS["vid"](), ft=METHODS["ft"]()).tree()}) == []
