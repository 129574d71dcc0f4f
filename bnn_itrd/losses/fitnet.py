"""FitNet: losses by which a map of the student predicts one of the teacher, which the paper calls the hint."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._inputs import as_float
from ._maps import check_map_pair, check_shape, pool_to_smaller, run_auxiliary

__all__ = ["FitNet", "hint_loss"]


def hint_loss(guided: Tensor, hint: Tensor) -> Tensor:
    """Returns the mean squared difference of two maps; (n, c, h_s, w_s), (n, c, h_t, w_t) -> ().

    guided: the student's map, after a learned convolution (the regressor) has given it the teacher's number of
    channels. hint: the teacher's map. If they differ in size, the larger is average-pooled to the size of the smaller.
    The paper and RepDistiller (the code of Tian et al. 2020) do not pool: their regressors give the student's map the
    teacher's size, in the paper as a convolution without padding, in RepDistiller as a strided or transposed one.

    The usual weight of the loss is 100 (RepDistiller). The paper's loss, half the sum over the elements of a sample, is
    c h w / 2 times as large. Half-precision inputs are computed in float32, under autocast too. Gradients flow to both
    inputs: pass a detached hint.

    Raises ValueError unless both are maps of the same n and c.
    Romero, Ballas, Ebrahimi Kahou, Chassang, Gatta and Bengio, FitNets: Hints for Thin Deep Nets, ICLR 2015, eq. 3.

    >>> hint_loss(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 2, 2)).item()
    1.0
    """
    check_map_pair(guided, hint, names=("guided", "hint"))
    if guided.shape[1] != hint.shape[1]:
        raise ValueError(
            f"guided and hint must have the same number of channels, got {guided.shape[1]} and {hint.shape[1]}"
        )
    with torch.autocast(guided.device.type, enabled=False):
        guided, hint = pool_to_smaller(*as_float(guided, hint))
        return (guided - hint).square().mean()


class FitNet(nn.Module):
    """Predicts the teacher's map from the student's and returns `hint_loss`; (n, c_s, h, w), (n, c_t, h', w') -> ().

    `regressor` is a trainable 1x1 convolution from c_s to c_t channels, which is used where they are equal too. Train
    it with the student's optimiser and drop it afterwards. Where the maps differ in size, the larger is average-pooled
    first. `batch_norm=True` appends batch normalisation and ReLU (RepDistiller). Use it only for hints taken behind a
    ReLU. In training, a batch of one sample with 1x1 maps then raises PyTorch's ValueError, because a single value has
    no variance.

    This is the loss of one pair of maps; the paper and RepDistiller use one in the middle of the network. The paper
    trains on the hint first, and on the labels and KD afterwards. RepDistiller trains on all together, with weight 100.
    The loss is computed in float32 at least, under autocast too.

    Raises ValueError for bad shapes; forward raises it for maps with other channels.
    Romero et al., ICLR 2015, eq. 3 and sec. 2.2.

    >>> FitNet((4, 8, 8), (6, 4, 4))(torch.rand(2, 4, 8, 8), torch.rand(2, 6, 4, 4)).shape
    torch.Size([])
    """

    def __init__(self, student_shape: Sequence[int], teacher_shape: Sequence[int], *, batch_norm: bool = False) -> None:
        super().__init__()
        self.student_channels = check_shape("student_shape", student_shape)[0]
        self.teacher_channels = check_shape("teacher_shape", teacher_shape)[0]
        # Behind batch normalisation a bias has no effect.
        layers: list[nn.Module] = [nn.Conv2d(self.student_channels, self.teacher_channels, 1, bias=not batch_norm)]
        if batch_norm:
            layers += [nn.BatchNorm2d(self.teacher_channels), nn.ReLU()]
        self.regressor = nn.Sequential(*layers)

    def forward(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        check_map_pair(student_map, teacher_map, self.student_channels, self.teacher_channels)
        with torch.autocast(student_map.device.type, enabled=False):
            student_map, teacher_map = pool_to_smaller(*as_float(student_map, teacher_map))
            return hint_loss(run_auxiliary(self.regressor, student_map), teacher_map)
