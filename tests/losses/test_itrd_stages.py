"""ITRD on more stages than the last (`itrd.stages`): what it compares, and whose runs go on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.trees import differences
from bnn_itrd.distillers import METHODS
from bnn_itrd.distillers.factory import make_distillers
from bnn_itrd.distillers.setting import Setting, Sizes
from bnn_itrd.errors import UserError
from bnn_itrd.losses import correlation_loss, mutual_information_loss
from bnn_itrd.models import Outputs

STUDENT = Sizes(10, 6, ((3, 8, 8), (4, 4, 4), (5, 2, 2)))
TEACHER = Sizes(10, 7, ((3, 8, 8), (4, 4, 4), (9, 2, 2)))


def term(sizes: tuple[Sizes, Sizes] = (STUDENT, TEACHER), **options: Any) -> Any:
    torch.manual_seed(0)
    config = DistillConfig(itrd=METHODS["itrd"](weight=0.5, **options))
    return make_distillers(config, Setting(*sizes, torch.zeros(0)))["itrd"]


def outputs(sizes: Sizes, seed: int, dtype: torch.dtype = torch.float32) -> Outputs:
    random = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(8, *shape, generator=random).to(dtype).requires_grad_()

    return Outputs(drawn(sizes.logits), drawn(sizes.representation), tuple(drawn(*shape) for shape in sizes.stages))


@pytest.mark.parametrize("stages", [1, 2])
def test_the_stages_before_the_last_are_compared_by_the_means_of_their_channels(stages: int) -> None:
    itrd, student, teacher = term(stages=stages), outputs(STUDENT, 1), outputs(TEACHER, 2)
    pairs = [(student.representation, teacher.representation)]
    for place in range(2 - stages, 2):
        pairs.append((student.stages[place].mean((2, 3)), teacher.stages[place].mean((2, 3))))
    expected = 0.0
    for (z_s, z_t), loss in zip(pairs, itrd.loss, strict=True):
        embedded = z_s @ loss.embed.weight.T + loss.embed.bias
        compared = z_s if z_s.shape == z_t.shape else embedded
        expected += 2.0 * correlation_loss(embedded, z_t, alpha=1.01) + mutual_information_loss(compared, z_t)
    value = itrd(student, teacher, torch.zeros(8), torch.arange(8))
    torch.testing.assert_close(value, 0.5 * expected)
    value.backward()
    reached = [stage.grad is not None for stage in student.stages]
    assert reached == [place >= 2 - stages for place in range(2)] + [False]
    assert all(loss.embed.weight.grad.abs().sum() > 0 for loss in itrd.loss)


def test_half_precision_and_a_dead_channel() -> None:
    itrd, student, teacher = term(stages=1), outputs(STUDENT, 1, torch.bfloat16), outputs(TEACHER, 2, torch.bfloat16)
    with torch.no_grad():
        student.stages[1][:, 2] = 0.25
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = itrd(student, teacher, torch.zeros(8), torch.arange(8))
    value.backward()
    assert value.dtype == torch.float32 and student.stages[1].grad.isfinite().all()


def test_what_is_watched_is_of_the_representation() -> None:
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    assert term(stages=2).watch(student, teacher) == term().watch(student, teacher)


def test_runs_from_before_go_on() -> None:
    assert [*term().state_dict()] == ["loss.embed.weight", "loss.embed.bias"]
    saved, given = ({"distill": DistillConfig(itrd=METHODS["itrd"](stages=n)).tree()} for n in (0, 1))
    assert differences(saved, given) == ["distill.itrd.stages: 0 there, 1 given"]
    now = {"distill": DistillConfig(itrd=METHODS["itrd"]()).tree()}
    del saved["distill"]["itrd"]["stages"]
    assert differences(saved, now) == []


def test_networks_with_too_few_stages_are_refused() -> None:
    with pytest.raises(UserError, match="itrd compares the outputs .* of 4 or more stages, but the student has 3"):
        term(stages=3)
    fewer = Sizes(10, 7, TEACHER.stages[1:])
    with pytest.raises(UserError, match="the student has 3 stages and the teacher 2"):
        term((STUDENT, fewer), stages=1)
    with pytest.raises(UserError, match="itrd.stages must be"):
        METHODS["itrd"](stages=-1)
