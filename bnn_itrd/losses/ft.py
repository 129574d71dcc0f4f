"""FT, factor transfer: a loss that matches the code by which an auto-encoder describes the teacher's map."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from ._inputs import as_float
from ._maps import check_map, check_map_pair, check_shape, pool_to_smaller, run_auxiliary
from ._scale import unit

__all__ = ["FT", "factor_loss"]


def factor_loss(student_factor: Tensor, teacher_factor: Tensor, *, attention: bool = True) -> Tensor:
    """Returns the mean absolute difference of two normalised factors; (n, c, h_s, w_s), (n, c, h_t, w_t) -> ().

    A factor is the code of a map: what the paraphraser or the translator of `FT` returns. The loss is
    ``mean |f_s / ||f_s|| - f_t / ||f_t|| |``: each f is divided by its L2 norm per sample, and the mean is over all
    elements.
    `attention=True`, RepDistiller's (weight 200): f is the mean over channels of the squared factor, (h * w,).
    `attention=False`, the paper's and its authors' (weight 500): f is the whole factor, (c * h * w,).
    The larger factor is average-pooled to the size of the smaller. The loss is 0 where the factors are equal up to a
    positive number. An f whose entries are up to 1e-8 counts as 0, with a zero gradient. Half-precision inputs are
    computed in float32, under autocast too.

    Raises ValueError unless both are (n, c, h, w) with the same n and, without `attention`, the same c.
    Kim, Park and Kwak, Paraphrasing Complex Network: Network Compression via Factor Transfer, NeurIPS 2018, L_FT of
    sec. 3.

    >>> x = torch.ones(1, 2, 2, 2)
    >>> factor_loss(x, 3 * x).item()
    0.0
    """
    check_map_pair(student_factor, teacher_factor, names=("student_factor", "teacher_factor"))
    if not attention and student_factor.shape[1] != teacher_factor.shape[1]:
        raise ValueError(
            f"student_factor and teacher_factor must have the same number of channels, "
            f"got {student_factor.shape[1]} and {teacher_factor.shape[1]}"
        )
    with torch.autocast(student_factor.device.type, enabled=False):
        student_factor, teacher_factor = pool_to_smaller(*as_float(student_factor, teacher_factor))
        return F.l1_loss(_unit(student_factor, attention), _unit(teacher_factor, attention))


class FT(nn.Module):
    """Compares a learned code of the student's map with one of the teacher's; (n, c_s, h, w), (n, c_t, h', w') -> ().

    The teacher's map is encoded by `paraphraser`, an auto-encoder, and the student's by `translator`; the loss is
    `factor_loss` of both codes. There are two phases, with separate parameters:
    1. `paraphraser_loss(teacher_map)` trains `paraphraser` alone, without the student, on the maps of the frozen
       teacher. It is the auto-encoder's mean squared error.
    2. `forward(student_map, teacher_map)` trains the student and `translator`, together with the cross-entropy. The
       paraphraser gets no gradient, so leave it out of this phase's optimiser. Its decoder is not used.
    Both modules are dropped afterwards.

    The paraphraser's encoder has three 3x3 convolutions, c_t -> c_t -> m -> m channels with m = int(rate * c_t). Its
    decoder has three transposed ones, m -> m -> c_t -> c_t. Each is followed by LeakyReLU(0.1). The translator has
    three 3x3 convolutions, c_s -> c_s -> m -> m, each followed by BatchNorm2d (RepDistiller; the authors have none) and
    LeakyReLU(0.1). The usual weight is 200 with `attention`, 500 without. Both modules are computed in the dtype of
    their weights, float32 unless changed, and the rest in float32 at least, under autocast too. Training the translator
    on a batch of one sample with a 1x1 map raises PyTorch's ValueError, because a single value has no variance.

    Raises ValueError for bad shapes or a rate outside (0, 1]; in both methods for other channels.
    Kim, Park and Kwak, NeurIPS 2018, L_rec (phase 1) and L_FT (phase 2) of sec. 3; rate is their k, usually 0.5.

    >>> loss = FT((4, 4, 4), (6, 4, 4))
    >>> loss.paraphraser_loss(torch.rand(2, 6, 4, 4)).shape, loss(torch.rand(2, 4, 4, 4), torch.rand(2, 6, 4, 4)).shape
    (torch.Size([]), torch.Size([]))
    """

    def __init__(
        self,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        *,
        rate: float = 0.5,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.student_channels = check_shape("student_shape", student_shape)[0]
        self.teacher_channels = check_shape("teacher_shape", teacher_shape)[0]
        c_s, c_t = self.student_channels, self.teacher_channels
        if not (0 < rate <= 1 and int(rate * c_t) >= 1):
            raise ValueError(f"rate must be in (0, 1] and keep at least 1 of the teacher's {c_t} channels, got {rate}")
        self.rate, self.attention, m = rate, attention, int(rate * c_t)
        self.paraphraser = nn.ModuleDict(
            {
                "encoder": nn.Sequential(*_block(c_t, c_t), *_block(c_t, m), *_block(m, m)),
                "decoder": nn.Sequential(*_inverse(m, m), *_inverse(m, c_t), *_inverse(c_t, c_t)),
            }
        )
        blocks = (_block(*channels, norm=True) for channels in ((c_s, c_s), (c_s, m), (m, m)))
        self.translator = nn.Sequential(*itertools.chain(*blocks))

    def paraphraser_loss(self, teacher_map: Tensor) -> Tensor:
        """Returns the auto-encoder's mean squared error on a teacher's map, for phase 1; (n, c_t, h, w) -> ()."""
        check_map("teacher_map", teacher_map, self.teacher_channels)
        with torch.autocast(teacher_map.device.type, enabled=False):
            factor = run_auxiliary(self.paraphraser["encoder"], teacher_map)
            copy, teacher_map = as_float(run_auxiliary(self.paraphraser["decoder"], factor), teacher_map)
            return F.mse_loss(copy, teacher_map)

    def forward(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """Returns the loss of phase 2, `factor_loss`, which trains the student and `translator`; -> ()."""
        check_map_pair(student_map, teacher_map, self.student_channels, self.teacher_channels)
        with torch.autocast(student_map.device.type, enabled=False):
            with torch.no_grad():
                teacher_factor = run_auxiliary(self.paraphraser["encoder"], teacher_map)
            return factor_loss(run_auxiliary(self.translator, student_map), teacher_factor, attention=self.attention)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, attention={self.attention}"


def _unit(factor: Tensor, attention: bool) -> Tensor:
    if attention:
        flat = rearrange(reduce(factor.square(), "n c h w -> n h w", "mean"), "n h w -> n (h w)")
    else:
        flat = rearrange(factor, "n c h w -> n (c h w)")
    return unit(flat)


def _block(c_in: int, c_out: int, *, norm: bool = False) -> list[nn.Module]:
    middle: list[nn.Module] = [nn.BatchNorm2d(c_out)] if norm else []
    return [nn.Conv2d(c_in, c_out, 3, padding=1), *middle, nn.LeakyReLU(0.1)]


def _inverse(c_in: int, c_out: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(c_in, c_out, 3, padding=1), nn.LeakyReLU(0.1)]
