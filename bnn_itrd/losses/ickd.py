"""ICKD: a loss that matches the correlations between the channels of a map."""

from collections.abc import Sequence

import torch
from einops import einsum, rearrange, reduce
from torch import Tensor, nn

from ._inputs import as_float
from ._maps import check_map_pair, check_shape, run_auxiliary
from ._scale import by_peak, unit

__all__ = ["ICKD", "ickd_loss"]


def ickd_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Returns how much the correlations between channels differ; (n, c, h_s, w_s), (n, c, h_t, w_t) -> ().

        mean_{n, i} ||G_s[n, i] - G_t[n, i]||^2    G = F F^T (c, c), each row L2-normalised    F = the map as (c, h * w)

    The squared differences are summed over a row i of G and averaged over its c rows and the n samples. The loss is 0
    where the maps are equal up to a positive factor. The shape of G does not depend on h and w, so the maps may differ
    in size. A zero channel (values up to 1e-8 of the sample's largest, or a sample of values up to 1e-8) has a zero row
    in G and a zero gradient. Half-precision inputs are computed in float32, under autocast too. Gradients flow to both
    inputs: pass a detached teacher.

    Raises ValueError unless both are (n, c, h, w) with the same n and c.
    Liu et al., Exploring Inter-Channel Correlation for Diversity-Preserved Knowledge Distillation, ICCV 2021, sec. 3;
    the row normalisation and the divisor are those of its published code.

    >>> x = torch.ones(1, 2, 2, 2)
    >>> ickd_loss(x, 3 * torch.ones(1, 2, 4, 4)).item()
    0.0
    """
    check_map_pair(student_map, teacher_map)
    if student_map.shape[1] != teacher_map.shape[1]:
        raise ValueError(
            "student_map and teacher_map must have the same number of channels, got "
            f"{student_map.shape[1]} and {teacher_map.shape[1]}: use ICKD, which projects the student's map"
        )
    with torch.autocast(student_map.device.type, enabled=False):
        student_map, teacher_map = as_float(student_map, teacher_map)
        difference = _channel_correlation(student_map) - _channel_correlation(teacher_map)
        return reduce(difference.square(), "n i j -> n i", "sum").mean()


class ICKD(nn.Module):
    """Computes `ickd_loss` after a projection of the student's map; (n, c_s, h_s, w_s), (n, c_t, h_t, w_t) -> ().

    The projection `embed`, a 1x1 convolution without bias and a BatchNorm2d, gives the student's map the teacher's
    number of channels. It is used where c_s = c_t too, as published. Train it with the student's optimiser and drop it
    afterwards. The usual weight is 2.5, for the maps of the last stage, before the pooling. Training on a batch of one
    sample with a 1x1 map raises PyTorch's ValueError, because a single value has no variance. `embed` is computed in
    the dtype of its weights, float32 unless changed, and the rest in float32 at least, under autocast too.

    Raises ValueError for bad shapes; forward raises it for maps with other channels. Liu et al., ICCV 2021 (see
    `ickd_loss`).

    >>> ICKD((4, 4, 4), (6, 4, 4))(torch.rand(2, 4, 4, 4), torch.rand(2, 6, 4, 4)).shape
    torch.Size([])
    """

    def __init__(self, student_shape: Sequence[int], teacher_shape: Sequence[int]) -> None:
        super().__init__()
        self.student_channels = check_shape("student_shape", student_shape)[0]
        self.teacher_channels = check_shape("teacher_shape", teacher_shape)[0]
        convolution = nn.Conv2d(self.student_channels, self.teacher_channels, 1, bias=False)
        self.embed = nn.Sequential(convolution, nn.BatchNorm2d(self.teacher_channels))

    def forward(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        check_map_pair(student_map, teacher_map, self.student_channels, self.teacher_channels)
        with torch.autocast(student_map.device.type, enabled=False):
            return ickd_loss(run_auxiliary(self.embed, student_map), teacher_map)


def _channel_correlation(x: Tensor) -> Tensor:
    """Returns the Gram matrix of the channels with L2-normalised rows, (n, c, h, w) -> (n, c, c)."""
    # Only the directions of the rows matter, and fourth powers would leave the range of float32.
    flat = by_peak(rearrange(x, "n c h w -> n c (h w)"), dim=(1, 2))
    return unit(einsum(flat, flat, "n i p, n j p -> n i j"))
