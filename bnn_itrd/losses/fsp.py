"""FSP, flow of solution procedure: a loss that matches the products between the channels of successive stages."""

import itertools
from collections.abc import Sequence

import torch
from einops import einsum
from torch import Tensor, nn

from ._inputs import as_float
from ._maps import check_map_pair, check_stage_maps, check_stages, pool_to_smaller

__all__ = ["FSP", "fsp_matrix"]


def fsp_matrix(bottom: Tensor, top: Tensor) -> Tensor:
    """Returns the mean products of each channel of one map with each of another, (n, c_1, h, w), (n, c_2, h', w').

    The result is ``G[n, i, j] = mean_{h, w} bottom[n, i, h, w] top[n, j, h, w]``, (n, c_1, c_2). bottom and top are two
    stages of one network. Where they differ in size, the larger map is average-pooled to the smaller (RepDistiller; the
    paper takes the maximum). Half-precision inputs are computed in float32, under autocast too.

    Raises ValueError unless both are (n, c, h, w) with the same n.
    Yim, Joo, Bae and Kim, A Gift from Knowledge Distillation, CVPR 2017, eq. 1.

    >>> fsp_matrix(torch.ones(1, 1, 4, 4), 2 * torch.ones(1, 2, 2, 2)).tolist()
    [[[2.0, 2.0]]]
    """
    check_map_pair(bottom, top, names=("bottom", "top"))
    with torch.autocast(bottom.device.type, enabled=False):
        bottom, top = pool_to_smaller(*as_float(bottom, top))
        return einsum(bottom, top, "n i h w, n j h w -> n i j") / (bottom.shape[2] * bottom.shape[3])


class FSP(nn.Module):
    """Computes how much the `fsp_matrix` of successive stages differ; two lists of maps (n, c, h, w) -> ().

    It is ``sum_k mean_{n, i, j} (G_k(student) - G_k(teacher))^2``, where G_k is the `fsp_matrix` of stages k and k + 1.
    (RepDistiller; the paper adds the entries of G instead of averaging.) The module has no parameters. So at each stage
    the student must have as many channels as the teacher; the sizes may differ.

    The paper and RepDistiller minimise this loss alone, with weight 1, over the student's convolutional stages, before
    the ordinary training ("preparation"). RepDistiller does not use it afterwards, so the weight 50 of its scripts has
    no effect. Here, a weight is that of the loss added to the cross-entropy. Half-precision inputs are computed in
    float32, under autocast too. Gradients flow to both sides: pass detached teacher maps.

    Raises ValueError for fewer than two stages, bad shapes or unequal channels; forward raises it for maps of other
    stages. Yim et al., CVPR 2017, eq. 2.

    >>> shapes = [(4, 8, 8), (6, 4, 4)]
    >>> maps = [torch.rand(2, *shape) for shape in shapes]
    >>> FSP(shapes, shapes)(maps, maps).item()
    0.0
    """

    def __init__(self, student_shapes: Sequence[Sequence[int]], teacher_shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.student_shapes, self.teacher_shapes = check_stages(student_shapes, teacher_shapes, least=2)
        for i, (student, teacher) in enumerate(zip(self.student_shapes, self.teacher_shapes, strict=True)):
            if student[0] != teacher[0]:
                raise ValueError(f"student_shapes[{i}] must have the teacher's {teacher[0]} channels, got {student[0]}")

    def forward(self, student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
        check_stage_maps(student_maps, teacher_maps, self.student_shapes, self.teacher_shapes)
        losses = []
        for student, teacher in zip(itertools.pairwise(student_maps), itertools.pairwise(teacher_maps), strict=True):
            g_s, g_t = as_float(fsp_matrix(*student), fsp_matrix(*teacher))
            losses.append((g_s - g_t).square().mean())
        return torch.stack(losses).sum()
