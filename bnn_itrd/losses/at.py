"""AT, attention transfer: a loss that matches the positions in a map where activations are large."""

import math

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from ._inputs import as_float
from ._maps import check_map_pair, pool_to_smaller
from ._scale import by_peak, unit

__all__ = ["AT", "at_loss"]


def at_loss(student_map: Tensor, teacher_map: Tensor, *, p: float = 2.0) -> Tensor:
    """Returns how much the attention maps of two maps differ; (n, c_s, h_s, w_s), (n, c_t, h_t, w_t) -> ().

    It is ``mean (q_s / ||q_s|| - q_t / ||q_t||)^2``. q = mean_c |x|^p is the attention map of a sample, (h, w), and
    ||q|| its norm over all h w positions. The mean is over samples and positions. The usual weight is 1000
    (RepDistiller, and the authors' code). The paper writes the unsquared norm of the difference, with weight beta / 2,
    where beta is 1000 divided by n h w. (Its q is a sum over channels; after the division by ||q|| that is the same.)

    This is the loss of one pair of maps; the paper and RepDistiller add those of all stages. Where the maps differ in
    size, the larger is average-pooled to the smaller, before the power. A factor per sample, or another order of
    channels, does not change the loss. A sample whose map is zero (|x| <= 1e-8) has q / ||q|| = 0 and a zero gradient.
    Half-precision inputs are computed in float32, under autocast too. Gradients flow to both inputs: pass a detached
    teacher.

    Raises ValueError unless both are maps of the same n, and p >= 1 (below, the gradient is infinite at 0).
    Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017, eq. 2, F_sum^p of sec. 3.1.

    >>> x = torch.rand(2, 3, 4, 4)
    >>> round(at_loss(x, 2 * x).item(), 6)
    0.0
    """
    _check_p(p)
    check_map_pair(student_map, teacher_map)
    with torch.autocast(student_map.device.type, enabled=False):
        student_map, teacher_map = pool_to_smaller(*as_float(student_map, teacher_map))
        return (_attention(student_map, p) - _attention(teacher_map, p)).square().mean()


class AT(nn.Module):
    """Computes `at_loss` with a fixed p, and raises as it does; (n, c_s, h_s, w_s), (n, c_t, h_t, w_t) -> ().

    >>> AT()(torch.rand(2, 3, 4, 4), torch.rand(2, 5, 8, 8)).shape
    torch.Size([])
    """

    def __init__(self, p: float = 2.0) -> None:
        super().__init__()
        _check_p(p)
        self.p = p

    def forward(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        return at_loss(student_map, teacher_map, p=self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _check_p(p: float) -> None:
    if not 1 <= p < math.inf:
        raise ValueError(f"p must be >= 1 and finite, got {p}")


def _attention(x: Tensor, p: float) -> Tensor:
    """Returns each sample's attention map, divided by its norm; (n, c, h, w) -> (n, h w)."""
    # The scale of x cancels, so x is scaled first: the powers then neither overflow nor vanish.
    x = by_peak(x, (1, 2, 3))
    return unit(rearrange(reduce(x.abs().pow(p), "n c h w -> n h w", "mean"), "n h w -> n (h w)"))
