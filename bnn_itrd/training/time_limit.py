"""A training that ends by itself before a time that was set."""

from __future__ import annotations

import time

from lightning.fabric import Fabric

from bnn_itrd.errors import Unfinished

__all__ = ["TimeLimit"]


class TimeLimit:
    """Stops a training before the epoch that would pass a deadline, a time of `time.monotonic`.

    An epoch is taken to be as long as the longest of this network so far in this call, evaluation and all; the first,
    in which much is compiled, does not count once there is a second. The first begins wherever the deadline has not
    passed yet. Of several processes the first decides for all.
    """

    def __init__(self, deadline: float, title: str, fabric: Fabric) -> None:
        self.deadline, self.title, self.fabric = deadline, title, fabric
        self._began: float | None = None
        self._lengths: list[float] = []

    def check(self, epoch: int, epochs: int) -> None:
        """Is called before each epoch. Raises Unfinished where that would end too late."""
        now = time.monotonic()
        if self._began is not None:
            self._lengths.append(now - self._began)
        self._began = now
        expected = max(self._lengths[1:] or self._lengths, default=0.0)
        if self.fabric.broadcast(now + expected >= self.deadline):
            raise Unfinished(self.title, epoch, epochs)
