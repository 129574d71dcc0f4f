"""AB, activation boundaries: a loss that matches the signs of activations before their nonlinearity."""

from collections.abc import Sequence

import torch
from einops import reduce
from torch import Tensor, nn

from ._inputs import as_float, check_positive
from ._maps import Shape, check_same_map, check_stage_maps, check_stages, run_auxiliary

__all__ = ["AB", "ab_loss"]


def ab_loss(student_map: Tensor, teacher_map: Tensor, *, margin: float = 1.0) -> Tensor:
    """Penalises student values whose sign, with a margin, is not the teacher's; (n, c, h, w), (n, c, h, w) -> ().

        (s + margin)^2  where t <= 0 and s > -margin        (s - margin)^2  where t > 0 and s <= margin        else 0

    s and t are the values of both maps before their activation. The loss is summed over c, h, w and averaged over the n
    samples. It is 0 where every s has the sign of t and |s| >= margin. So for student = teacher it is 0 only if |t| >=
    margin everywhere. Only the teacher's signs are used, so no gradient flows to the teacher. Half-precision inputs are
    computed in float32, under autocast too.

    Raises ValueError unless both share (n, c, h, w) and margin > 0.
    Heo, Lee, Yun and Choi, Knowledge Transfer via Distillation of Activation Boundaries, AAAI 2019; the authors' code.

    >>> ab_loss(torch.full((1, 1, 1, 1), 0.5), torch.ones(1, 1, 1, 1)).item()
    0.25
    """
    check_positive("margin", margin)
    check_same_map(student_map, teacher_map)
    with torch.autocast(student_map.device.type, enabled=False):
        (student_map,) = as_float(student_map)
        shortfall = torch.where(teacher_map > 0, margin - student_map, margin + student_map).relu()
        return reduce(shortfall.square(), "n c h w -> n", "sum").mean()


class AB(nn.Module):
    """Computes the sum of `ab_loss` over the stages of two networks; lists of maps (n, c, h, w) -> ().

    It is ``sum_k 2^(k - last) ab_loss(connector_k(student_maps[k]), teacher_maps[k])``. Pass the maps of both networks
    BEFORE their activation, from the first stage to the last. `connectors` bring the student's maps to the teacher's
    shapes. A connector is the identity where the shapes are equal, else a convolution and a BatchNorm2d. The
    convolution is 1x1 at equal sizes, 3x3 with stride 2 to half the size, a transposed 4x4 with stride 2 to twice the
    size. Otherwise it has no padding, and its kernel is the difference of the sizes plus 1 (RepDistiller).

    Student and connectors are trained on this loss alone ("preparation"), before the ordinary training with
    cross-entropy or KD, which does not use it. The usual weight 3e-3 (the authors' code divides by 1000 and multiplies
    by 3) belongs to the sum over c, h, w. A connector is computed in the dtype of its weights, float32 unless changed,
    under autocast too. One with a 1x1 output raises PyTorch's ValueError in training on a batch of one, because a
    single value has no variance.

    Raises ValueError for bad shapes, a student map that no connector enlarges to the teacher's, or margin <= 0; in
    forward for other stages or sizes. Heo et al., AAAI 2019 (see `ab_loss`).

    >>> AB([(4, 2, 2)], [(8, 2, 2)])([torch.zeros(3, 4, 2, 2)], [torch.zeros(3, 8, 2, 2)]).shape
    torch.Size([])
    """

    def __init__(
        self,
        student_shapes: Sequence[Sequence[int]],
        teacher_shapes: Sequence[Sequence[int]],
        *,
        margin: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive("margin", margin)
        self.margin = margin
        self.student_shapes, self.teacher_shapes = check_stages(student_shapes, teacher_shapes)
        pairs = zip(self.student_shapes, self.teacher_shapes, strict=True)
        self.connectors = nn.ModuleList(_connector(i, student, teacher) for i, (student, teacher) in enumerate(pairs))

    def forward(self, student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
        check_stage_maps(student_maps, teacher_maps, self.student_shapes, self.teacher_shapes)
        losses = []
        last = len(self.connectors) - 1
        with torch.autocast(student_maps[0].device.type, enabled=False):
            for i, connector in enumerate(self.connectors):
                student = student_maps[i]
                if isinstance(connector, nn.Sequential):
                    student = run_auxiliary(connector, student)
                losses.append(2.0 ** (i - last) * ab_loss(student, teacher_maps[i], margin=self.margin))
        return torch.stack(as_float(*losses)).sum()

    def extra_repr(self) -> str:
        return f"margin={self.margin}"


def _connector(i: int, student: Shape, teacher: Shape) -> nn.Module:
    if student == teacher:
        return nn.Identity()
    (c_s, h_s, w_s), (c_t, h_t, w_t) = student, teacher
    convolution: nn.Module
    if (h_s, w_s) == (2 * h_t, 2 * w_t):
        convolution = nn.Conv2d(c_s, c_t, 3, stride=2, padding=1)
    elif (2 * h_s, 2 * w_s) == (h_t, w_t):
        convolution = nn.ConvTranspose2d(c_s, c_t, 4, stride=2, padding=1)
    elif h_s >= h_t and w_s >= w_t:
        convolution = nn.Conv2d(c_s, c_t, (1 + h_s - h_t, 1 + w_s - w_t))
    else:
        raise ValueError(
            f"student_shapes[{i}] must be at least as large as, or half of, the teacher's {(h_t, w_t)}, "
            f"got {(h_s, w_s)}"
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(c_t))
