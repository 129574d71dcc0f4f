"""benchmarks/losses.py measures every method, in turns, and takes the teacher's time off."""

from typing import Any, ClassVar

import pytest
import torch
from helpers.scripts import load_script

from bnn_itrd.distillers import METHODS


@pytest.fixture(scope="module")
def benchmark() -> Any:
    return load_script("benchmarks/losses.py")


def test_benchmark_has_every_method_between_two_plain_steps(benchmark: Any) -> None:
    ways = benchmark._ways()
    names = list(ways)
    assert (names[0], names[-1]) == ("plain", "plain again")
    assert {name for config, _ in ways.values() for name in config.methods} == METHODS.keys()


class _Costly:
    """A way whose step takes `cost`, and its teacher 1, on a clock that doubles its pace from turn to turn."""

    log: ClassVar[list[str]]
    now: ClassVar[float]
    pace: ClassVar[float]

    def __init__(self, name: str, cost: float) -> None:
        self.name, self.cost = name, cost

    def _take(self, name: str, cost: float) -> None:
        if name == "plain" and _Costly.log and _Costly.log[-1] != "plain":
            _Costly.pace *= 2
        _Costly.log.append(name)
        _Costly.now += _Costly.pace * cost

    def step(self, batch: object) -> None:
        self._take(self.name, self.cost)

    def look(self, batch: object) -> None:
        self._take("teacher", 1.0)


def test_benchmark_takes_turns_and_takes_the_teacher_off(benchmark: Any) -> None:
    _Costly.log, _Costly.now, _Costly.pace = [], 0.0, 1.0
    ways = {name: _Costly(name, cost) for name, cost in (("plain", 2.0), ("kd", 4.0), ("plain again", 2.0))}
    rows = benchmark.measure(ways, (torch.zeros(1),), turns=3, steps=2, clock=lambda: _Costly.now)
    order = ["plain", "kd", "plain again", "teacher"]
    warm_up, turn = ([name for name in order for _ in range(times)] for times in (2, 3))
    assert _Costly.log == warm_up + 3 * turn + order, "and once each for the memory"
    for name, want in (("plain", 1), ("plain again", 1), ("kd", (4 - 1) / 2), ("teacher forward", 1 / 2)):
        assert rows[name]["over_plain"] == pytest.approx(want)
        assert rows[name]["over_plain_range"] == pytest.approx([want, want])
    assert rows["plain"]["step_ms"] == pytest.approx(1000 * 2 * 4)  # the median turn, at 4 times the first pace
