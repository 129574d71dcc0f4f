"""Each loss with parameters or state, in one or more configurations, and random arguments for it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.losses.ab import AB
from bnn_itrd.losses.crd import CRD
from bnn_itrd.losses.dist import DIST
from bnn_itrd.losses.fsp import FSP
from bnn_itrd.losses.ft import FT
from bnn_itrd.losses.ickd import ICKD
from bnn_itrd.losses.lwf import LwF
from bnn_itrd.losses.reviewkd import ReviewKD
from bnn_itrd.losses.srd import SRD
from bnn_itrd.losses.vid import VID, VIDLogits
from bnn_itrd.losses.wcord import WCoRD

Array = np.ndarray[Any, np.dtype[np.float64]]
Args = tuple[Any, ...]
S_SHAPES = [(3, 8, 8), (4, 4, 4), (5, 2, 2)]
T_SHAPES = [(4, 8, 8), (4, 8, 8), (3, 2, 2)]
LABELS = torch.tensor([0, 1, 2, 1, 0, 3, 3, 1, 2, 2, 1, 0, 3, 0, 1, 1, 2, 3, 0, 1])


def random_map(n: int, shape: tuple[int, ...], seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(0.3, 1.2, (n, *shape)))


def random_maps(n: int, shapes: list[tuple[int, int, int]], seed: int) -> list[Tensor]:
    return [random_map(n, shape, seed + i) for i, shape in enumerate(shapes)]


def bank_args(n: int = 4) -> Args:
    return random_map(n, (6,), 1), random_map(n, (5,), 2), torch.tensor([3, 17, 0, 9, 5, 11])[:n]


def random_pair(n: int, student: tuple[int, ...], teacher: tuple[int, ...]) -> Args:
    return random_map(n, student, 1), random_map(n, teacher, 2)


# Name -> (a function that builds the loss, a function that returns its arguments for a batch of n, in float64).
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Args]]] = {
    "vid": (lambda: VID((3, 8, 8), (4, 4, 4)), lambda n: random_pair(n, (3, 8, 8), (4, 4, 4))),
    "vid_paper": (
        lambda: VID((3, 4, 4), (4, 8, 8), batch_norm=True, reduction="sum"),
        lambda n: random_pair(n, (3, 4, 4), (4, 8, 8)),
    ),
    "vid_logits": (lambda: VIDLogits(6, 5), lambda n: random_pair(n, (6,), (5,))),
    "lwf": (lambda: LwF(6, 5), lambda n: random_pair(n, (6,), (5,))),
    "crd": (lambda: CRD(6, 5, LABELS, embed_dim=8, num_negatives=7), bank_args),
    "wcord": (
        lambda: WCoRD(6, 5, LABELS, embed_dim=8, num_negatives=7, beta_local=0.5),
        bank_args,
    ),
    "reviewkd": (
        lambda: ReviewKD(S_SHAPES, T_SHAPES),
        lambda n: (random_maps(n, S_SHAPES, 1), random_maps(n, T_SHAPES, 11)),
    ),
    "srd": (lambda: SRD(6, 5), lambda n: random_pair(n, (6,), (5,))),
    "srd_linear": (lambda: SRD(5, 5, exponent=1.0), lambda n: random_pair(n, (5,), (5,))),
    "srd_rows": (lambda: SRD(6, 5, norm="l2", projector="mlp"), lambda n: random_pair(n, (6,), (5,))),
    "srd_plain": (lambda: SRD(6, 5, norm="none", form="l2"), lambda n: random_pair(n, (6,), (5,))),
    "ickd": (lambda: ICKD((3, 8, 8), (4, 4, 4)), lambda n: random_pair(n, (3, 8, 8), (4, 4, 4))),
    "fsp": (
        lambda: FSP([(3, 8, 8), (4, 4, 4), (2, 4, 4)], [(3, 4, 4), (4, 4, 4), (2, 8, 8)]),
        lambda n: (
            random_maps(n, [(3, 8, 8), (4, 4, 4), (2, 4, 4)], 1),
            random_maps(n, [(3, 4, 4), (4, 4, 4), (2, 8, 8)], 11),
        ),
    ),
    "ab": (
        lambda: AB(S_SHAPES, T_SHAPES, margin=0.5),
        lambda n: (random_maps(n, S_SHAPES, 1), random_maps(n, T_SHAPES, 11)),
    ),
    "ft": (lambda: FT((3, 4, 4), (4, 8, 8)), lambda n: random_pair(n, (3, 4, 4), (4, 8, 8))),
    "ft_paper": (
        lambda: FT((3, 8, 8), (5, 4, 4), rate=0.7, attention=False),
        lambda n: random_pair(n, (3, 8, 8), (5, 4, 4)),
    ),
    "dist": (lambda: DIST(beta=2.0, gamma=0.5, tau=3.0), lambda n: random_pair(n, (5,), (5,))),
}


def build_module(name: str, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return CASES[name][0]()


def apply_to_floats(args: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Returns nested arguments with `change` applied to each floating-point tensor."""
    if isinstance(args, Tensor):
        return change(args) if args.is_floating_point() else args
    return type(args)(apply_to_floats(arg, change) for arg in args)


def seeded_loss(module: nn.Module, args: Args) -> Tensor:
    """Returns module(*args) with a fixed random seed, which CRD needs because it draws samples."""
    torch.manual_seed(7)
    loss: Tensor = module(*args)
    return loss


def crd_reference(v_s: Array, v_t: Array, banks: list[Array], samples: Array, z: list[float], t: float) -> Array:
    """Computes h of equation 19 of the CRD paper by loops, for both directions: (2, n, 1 + number of negatives).

    v_s, v_t: embeddings of student and teacher; banks: their memory banks; samples: indices into these, the positive
    first; z: the normalisation constants; t: the temperature.
    """
    n, columns = samples.shape
    h = np.zeros((2, n, columns))
    for d, (v, bank) in enumerate(((v_s, banks[1]), (v_t, banks[0]))):
        for i, k in np.ndindex(n, columns):
            x = math.exp(float(v[i] @ bank[samples[i, k]]) / t) / z[d]
            h[d, i, k] = x / (x + (columns - 1) / len(bank))
    return h
