"""The learning rate falls at milestones, and two stages keep their proportions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bnn_itrd.config.run import RunConfig, member_config
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.config.trees import differences, to_dict
from bnn_itrd.errors import UserError
from bnn_itrd.training.optimizer import learning_rate


def test_the_rate_falls_at_the_milestones() -> None:
    """240 epochs of 3 steps, warm-up of 2 steps."""
    drops = [450, 540, 630]
    options: dict[str, Any] = {"steps": 720, "warmup": 2, "peak": 0.05, "schedule": "step", "decay": 0.1}
    rates = [learning_rate(s, drops=drops, **options) for s in range(720)]
    expected = [0.025, 0.05] + [0.05] * 448 + [0.005] * 90 + [0.0005] * 90 + [0.00005] * 90
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_a_shorter_first_stage_keeps_the_proportions() -> None:
    train = TrainConfig(epochs=240, schedule="step", warmup_epochs=0)
    assert train.of_first_stage(80).milestones == (50, 60, 70) and train.of_first_stage(80).epochs == 80
    assert train.of_first_stage(1).milestones == ()


@pytest.mark.parametrize("milestones", [(30, 20), (20, 20), (0, 20), (20, 60), (-5,)])
def test_milestones_rise_within_the_epochs(milestones: tuple[int, ...]) -> None:
    TrainConfig(epochs=60, milestones=milestones)  # of no use with the cosine
    with pytest.raises(UserError, match=r"train\.milestones must be whole numbers that rise within .*\(0, 60\)"):
        TrainConfig(epochs=60, schedule="step", milestones=milestones)


def test_a_run_of_before_the_fields_were_there_continues() -> None:
    def identity(**train: Any) -> dict[str, Any]:
        return to_dict(member_config(RunConfig(train=TrainConfig(**train)), "recu"))

    old = identity()
    for field in ("schedule", "milestones", "decay"):
        del old["train"][field]
    del old["scheme"]["binary"], old["network"]["teacher"]
    assert differences(old, identity()) == []
    taught = to_dict(member_config(RunConfig(), "recu-itrd"))
    older = to_dict(member_config(RunConfig(), "recu-itrd"))
    for field in ("weight", "warmup_epochs", "final"):
        del older["distill"]["itrd"][field]
    assert differences(older, taught) == []
    assert differences(old, identity(schedule="step", milestones=(5,))) == [
        "train.milestones: [150, 180, 210] there, [5] given",
        "train.schedule: 'cosine' there, 'step' given",
    ]
    # Images of the user's own have a name alone.
    assert differences({"data": {"name": "mine"}}, {"data": {"name": "mine"}}) == []
    # In full precision the whole group is absent: that is no default.
    assert differences({**old, "scheme": None}, identity())
