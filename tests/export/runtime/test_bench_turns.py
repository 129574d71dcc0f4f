"""The number of turns that a benchmark makes, by `repeats` and `budget`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bnn_itrd.export import interleaved_seconds


class Session:
    """Stands for an onnxruntime session: it takes no time and counts its calls."""

    calls = 0

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="images", shape=["batch", 1, 2, 2], type="tensor(float)")]

    def run(self, *_: Any) -> list[Any]:
        self.calls += 1
        return []


@pytest.mark.parametrize(("budget", "turns"), [(0.0, 3), (1e9, 9)])
def test_a_budget_ends_the_turns_but_not_before_the_third(budget: float, turns: int) -> None:
    sessions: Any = {"a": Session(), "b": Session()}
    seconds = interleaved_seconds(sessions, repeats=9, budget=budget)
    assert {name: len(values) for name, values in seconds.items()} == {"a": turns, "b": turns}
    assert all(session.calls > turns for session in sessions.values())
    assert len(interleaved_seconds(sessions, repeats=2, budget=0.0)["a"]) == 2


def test_a_budget_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="budget must be >= 0, got -1"):
        interleaved_seconds({}, budget=-1)
