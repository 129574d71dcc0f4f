"""VID, variational information distillation: losses by which the student's features predict the teacher's."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._inputs import apply_linear, as_float, check_count, check_positive, check_rows, check_same_shape
from ._maps import check_map_pair, check_shape, pool_to_smaller, run_auxiliary

__all__ = ["VID", "VIDLogits", "vid_loss"]

_MIN_VARIANCE = 1e-5


def vid_loss(mean: Tensor, target: Tensor, variance: Tensor, *, reduction: str = "mean") -> Tensor:
    """Returns the negative log-likelihood of targets under Gaussians; (n, c, ...), (n, c, ...), (c,) -> (), in nats.

        log sigma_c + (target - mean)^2 / (2 sigma_c^2)    without the constant log(2 pi) / 2

    variance: sigma^2, one per channel. `reduction="mean"` averages over all elements (RepDistiller, weight 1). "sum"
    adds the elements of a sample and averages over the n samples, as the paper writes it, which is c * h * w times as
    large. The loss may be negative. Half-precision inputs are computed in float32, under autocast too. Gradients flow
    to all three: pass a detached target.

    Raises ValueError for another reduction, or unless mean and target share a shape (n, c, ...) and variance is (c,).
    Ahn, Hu, Damianou, Lawrence and Dai, Variational Information Distillation for Knowledge Transfer, CVPR 2019; eq. 3
    and 4 of its workshop version.

    >>> vid_loss(torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1)).item()
    0.5
    """
    _check_reduction(reduction)
    if mean.ndim < 2 or mean.shape != target.shape or 0 in mean.shape:
        raise ValueError(
            f"mean and target must have the same shape (n, c, ...), without an empty axis, "
            f"got {tuple(mean.shape)} and {tuple(target.shape)}"
        )
    if variance.shape != mean.shape[1:2]:
        raise ValueError(f"variance must be ({mean.shape[1]},), got {tuple(variance.shape)}")
    with torch.autocast(mean.device.type, enabled=False):
        mean, target, variance = as_float(mean, target, variance)
        variance = variance.reshape(1, -1, *[1] * (mean.ndim - 2))
        loss = 0.5 * ((target - mean).square() / variance + variance.log())
        return loss.mean() if reduction == "mean" else loss.sum() / len(loss)


class VID(nn.Module):
    """Predicts the teacher's map from the student's and returns `vid_loss`; (n, c_s, h, w), (n, c_t, h', w') -> ().

    `regressor`, a small network on the student's map, predicts the mean. The variance is one parameter per channel of
    the teacher, softplus(raw) + 1e-5, which starts at `init_variance`. Both are trained with the student's optimiser
    and dropped afterwards. The paper calls this loss MI-I. There are two published forms, each with its own weight:
    - `batch_norm=False, reduction="mean"`, RepDistiller's: three 1x1 convolutions without bias, ReLU between; weight 1.
    - `batch_norm=True, reduction="sum"`, the paper's: two 1x1 convolutions, batch normalisation and ReLU between them.
      (The paper does not say whether these follow the second one too. A mean behind a ReLU could not be negative.)

    Where the maps differ in size, the larger is average-pooled to the smaller (RepDistiller). This is the loss of one
    stage: RepDistiller's weight 1 and the paper's lambda_k belong to the sum over the stages. With `batch_norm`,
    training on a batch of one sample with 1x1 maps raises PyTorch's ValueError, because a single value has no variance.
    The regressor is computed in the dtype of its weights, float32 unless changed, and the rest in float32 at least,
    under autocast too.

    Raises ValueError for bad shapes, init_variance <= 1e-5 or another reduction; forward raises it for maps with other
    channels. Ahn et al., CVPR 2019; sec. 2 and 3 of its workshop version.

    >>> VID((4, 8, 8), (6, 4, 4))(torch.rand(2, 4, 8, 8), torch.rand(2, 6, 4, 4)).shape
    torch.Size([])
    """

    def __init__(
        self,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        *,
        batch_norm: bool = False,
        reduction: str = "mean",
        init_variance: float = 5.0,
    ) -> None:
        super().__init__()
        self.student_channels = check_shape("student_shape", student_shape)[0]
        self.teacher_channels = check_shape("teacher_shape", teacher_shape)[0]
        _check_reduction(reduction)
        self.reduction = reduction
        c_s, c_t = self.student_channels, self.teacher_channels
        self.regressor: nn.Sequential
        if batch_norm:
            first = [nn.Conv2d(c_s, c_t, 1, bias=False), nn.BatchNorm2d(c_t), nn.ReLU()]
            self.regressor = nn.Sequential(*first, nn.Conv2d(c_t, c_t, 1))
        else:
            first = [nn.Conv2d(c_s, c_t, 1, bias=False), nn.ReLU()]
            second = [nn.Conv2d(c_t, c_t, 1, bias=False), nn.ReLU()]
            self.regressor = nn.Sequential(*first, *second, nn.Conv2d(c_t, c_t, 1, bias=False))
        self.raw_variance = nn.Parameter(_raw_variance(c_t, init_variance))

    @property
    def variance(self) -> Tensor:
        """Returns sigma^2 per teacher channel, (c_t,)."""
        return F.softplus(self.raw_variance) + _MIN_VARIANCE

    def forward(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        check_map_pair(student_map, teacher_map, self.student_channels, self.teacher_channels)
        with torch.autocast(student_map.device.type, enabled=False):
            student_map, teacher_map = as_float(student_map, teacher_map)
            student_map, teacher_map = pool_to_smaller(student_map, teacher_map)
            mean = run_auxiliary(self.regressor, student_map)
            return vid_loss(mean, teacher_map, self.variance, reduction=self.reduction)


class VIDLogits(nn.Module):
    """Predicts the teacher's logits from the student's representation and returns `vid_loss`; (n, d), (n, k) -> ().

    It is for knowledge transfer between different tasks, because the teacher's k classes need not be the student's. One
    Linear(d, k) predicts the mean, and the variance is one parameter per logit, as in `VID`. The paper calls this loss
    MI-L. The usual weight is 1 with `reduction="mean"`; "sum", over the logits, is the paper's. The loss is computed in
    float32 at least, under autocast too.

    Raises ValueError for sizes < 1, init_variance <= 1e-5 or another reduction; forward raises it for inputs of other
    widths. Ahn et al., CVPR 2019; sec. 3.2 of its workshop version.

    >>> VIDLogits(4, 10)(torch.rand(2, 4), torch.rand(2, 10)).shape
    torch.Size([])
    """

    def __init__(
        self, student_dim: int, teacher_dim: int, *, reduction: str = "mean", init_variance: float = 5.0
    ) -> None:
        super().__init__()
        check_count("student_dim", student_dim)
        check_count("teacher_dim", teacher_dim)
        _check_reduction(reduction)
        self.student_dim, self.teacher_dim, self.reduction = student_dim, teacher_dim, reduction
        self.regressor = nn.Linear(student_dim, teacher_dim)
        self.raw_variance = nn.Parameter(_raw_variance(teacher_dim, init_variance))

    @property
    def variance(self) -> Tensor:
        """Returns sigma^2 per logit, (k,)."""
        return F.softplus(self.raw_variance) + _MIN_VARIANCE

    def forward(self, z_s: Tensor, teacher_logits: Tensor) -> Tensor:
        check_rows("z_s", z_s, self.student_dim)
        check_rows("teacher_logits", teacher_logits, self.teacher_dim)
        with torch.autocast(z_s.device.type, enabled=False):
            mean = apply_linear(self.regressor, z_s)
            check_same_shape("the mean of z_s", mean, "teacher_logits", teacher_logits, "(n, k)")
            return vid_loss(mean, teacher_logits, self.variance, reduction=self.reduction)


def _check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise ValueError(f'reduction must be "mean" or "sum", got {reduction!r}')


def _raw_variance(size: int, variance: float) -> Tensor:
    """Returns a parameter (size,), softplus of which, plus 1e-5, is this variance."""
    check_positive("init_variance", variance)
    if variance <= _MIN_VARIANCE:
        raise ValueError(f"init_variance must be > {_MIN_VARIANCE}, got {variance}")
    # log(exp(x) - 1) without the overflow.
    excess = variance - _MIN_VARIANCE
    return torch.full((size,), excess + math.log(-math.expm1(-excess)))
