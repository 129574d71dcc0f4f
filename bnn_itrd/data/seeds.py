"""Random numbers that depend on (seed, epoch, ...) alone, so that an epoch can be repeated without earlier ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

__all__ = ["kept_generators", "mix_seed", "seed_all", "shuffled"]


def mix_seed(*parts: int) -> int:
    """Returns one seed in [0, 2^63) from several numbers: the run's seed, the epoch, a number for its purpose.

    >>> mix_seed(0, 3) == mix_seed(0, 3), mix_seed(0, 3) == mix_seed(3, 0)
    (True, False)
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def shuffled(n: int, *, seed: int, epoch: int) -> Tensor:
    """Returns the order of the images in an epoch, a permutation (n,) int64 that depends on (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch, 0))
    return torch.randperm(n, generator=generator)


def seed_all(seed: int) -> None:
    """Seeds the global generators of torch (the CPU's), NumPy and Python."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Restores the states that `seed_all` changes at the end of a ``with`` block.

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
