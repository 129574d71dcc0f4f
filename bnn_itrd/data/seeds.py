"""Functions for random numbers that depend on (seed, epoch, ...) alone.

So a resumed training continues exactly, because an epoch's random numbers do not depend on the epochs before it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

__all__ = ["kept_generators", "mix_seed", "seed_all", "shuffled"]


def mix_seed(*parts: int) -> int:
    """Returns a single seed, in [0, 2^63), that is mixed from several numbers: a run's seed, the epoch, a purpose.

    The order of the numbers matters. Different numbers give unrelated seeds.

    >>> mix_seed(0, 3) == mix_seed(0, 3), mix_seed(0, 3) == mix_seed(3, 0)
    (True, False)
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def shuffled(n: int, *, seed: int, epoch: int) -> Tensor:
    """Returns the order of n images in an epoch: a permutation, int64 (n,), that depends on (seed, epoch) alone.

    >>> torch.equal(shuffled(10, seed=0, epoch=3), shuffled(10, seed=0, epoch=3))
    True
    """
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch, 0))
    return torch.randperm(n, generator=generator)


def seed_all(seed: int) -> None:
    """Seeds the global random generators of torch (on the CPU), NumPy and Python, for code that draws from them.

    >>> with kept_generators():
    ...     seed_all(7)
    """
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Returns a context manager that restores the global random generators, those of `seed_all`, at its end.

    >>> with kept_generators():
    ...     seed_all(7)
    ...     first = torch.rand(2), np.random.rand(), random.random()
    >>> with kept_generators():
    ...     seed_all(7)
    ...     second = torch.rand(2), np.random.rand(), random.random()
    >>> torch.equal(first[0], second[0]), first[1:] == second[1:]
    (True, True)
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
