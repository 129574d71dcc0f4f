"""ReviewKD: a loss that combines the student's maps from deep to shallow, and matches each with the teacher's."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ._inputs import as_float
from ._maps import check_same_map, check_stage_maps, check_stages, run_auxiliary

__all__ = ["ReviewKD", "hierarchical_context_loss"]

_LEVELS = (4, 2, 1)
_MAX_MIDDLE_CHANNELS = 512


def hierarchical_context_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Returns the mean squared difference of two maps at several scales; (n, c, h, w), (n, c, h, w) -> ().

    The scales are the maps themselves and their average-poolings to 4x4, 2x2 and 1x1, as far as these are smaller than
    both h and w. The loss is the weighted mean of the mean squared errors at the scales: the maps themselves have
    weight 1, and each smaller scale has half the weight of the one before. Half-precision inputs are computed in
    float32, under autocast too. Gradients flow to both inputs: pass a detached teacher.

    Raises ValueError unless both share (n, c, h, w).
    Chen, Liu, Zhao and Jia, Distilling Knowledge via Knowledge Review, CVPR 2021, sec. 3.3; weights of the published
    code.

    >>> hierarchical_context_loss(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)).item()
    1.0
    """
    check_same_map(student_map, teacher_map)
    with torch.autocast(student_map.device.type, enabled=False):
        student_map, teacher_map = as_float(student_map, teacher_map)
        loss, weight, total = F.mse_loss(student_map, teacher_map), 1.0, 1.0
        # Pooling is linear, so the difference is pooled instead of both maps.
        difference = student_map - teacher_map
        for size in _LEVELS:
            if size < min(difference.shape[2:]):
                weight /= 2
                total += weight
                loss = loss + weight * F.adaptive_avg_pool2d(difference, size).square().mean()
        return loss / total


class ReviewKD(nn.Module):
    """Matches each teacher stage with the student's stages of the same and greater depth; two lists of maps -> ().

    The maps are (n, c, h, w), listed from the shallowest stage to the deepest. The loss goes from deep to shallow. At
    stage k, a `Fusion` combines the student's map with the residual of stage k + 1. It gives a map of the teacher's
    shape, which is compared by `hierarchical_context_loss`, and the residual for stage k - 1. The losses are added.
    All residuals have min(512, channels of the deepest student stage) channels. As published, the deepest stage is the
    pooled representation, a map of (d, 1, 1), and the teacher's maps are those before the activation.

    The fusions are trained with the student's optimiser and dropped afterwards. The usual weight is 0.6 to 8, different
    for each pair of networks, and rises linearly from 0 over the first 20 epochs. The fusions are computed in the dtype
    of their weights, float32 unless changed, and the rest in float32 at least, under autocast too. Training on a batch
    of one sample raises PyTorch's ValueError where a stage is 1x1, because a single value has no variance.

    Raises ValueError for bad shapes or lists of unequal length; forward raises it for maps of other stages.
    Chen et al., CVPR 2021, sec. 3.2 and fig. 3.

    >>> student, teacher = [(4, 8, 8), (6, 4, 4)], [(8, 8, 8), (12, 4, 4)]
    >>> loss = ReviewKD(student, teacher)
    >>> loss([torch.rand(2, *s) for s in student], [torch.rand(2, *t) for t in teacher]).shape
    torch.Size([])
    """

    def __init__(self, student_shapes: Sequence[Sequence[int]], teacher_shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.student_shapes, self.teacher_shapes = check_stages(student_shapes, teacher_shapes)
        middle = min(_MAX_MIDDLE_CHANNELS, self.student_shapes[-1][0])
        deepest = len(self.student_shapes) - 1
        self.fusions = nn.ModuleList(
            Fusion(student[0], middle, teacher[0], fuse=k < deepest)
            for k, (student, teacher) in enumerate(zip(self.student_shapes, self.teacher_shapes, strict=True))
        )

    def forward(self, student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
        check_stage_maps(student_maps, teacher_maps, self.student_shapes, self.teacher_shapes)
        losses: list[Tensor] = []
        residual: Tensor | None = None
        with torch.autocast(student_maps[0].device.type, enabled=False):
            for k in reversed(range(len(self.fusions))):
                height, width = teacher_maps[k].shape[2:]
                fused, residual = self.fusions[k](student_maps[k], residual, (height, width))
                losses.append(hierarchical_context_loss(fused, teacher_maps[k]))
        return torch.stack(as_float(*losses)).sum()


class Fusion(nn.Module):
    """Combines a student's map with the residual of the next deeper stage; returns a map of the teacher's shape and r.

        x = BN(conv1x1(map)), c -> middle        a_x, a_y = sigmoid(conv1x1([x, y])), y = residual resized to x
        r = a_x x + a_y y, resized to `size`     output = BN(conv3x3(r)), middle -> out_channels

    Map (n, channels, h, w), residual (n, middle, ...) -> output (n, out_channels, *size), r (n, middle, *size).
    Resizing is nearest-neighbour. With fuse=False, for the deepest stage, there is no residual, and r = x. The paper
    calls it ABF. Chen et al., CVPR 2021, fig. 3(a).

    >>> out, residual = Fusion(4, 6, 8, fuse=False)(torch.rand(2, 4, 4, 4), None, (8, 8))
    >>> out.shape, residual.shape
    (torch.Size([2, 8, 8, 8]), torch.Size([2, 6, 8, 8]))
    """

    def __init__(self, channels: int, middle: int, out_channels: int, *, fuse: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(channels, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.expand = nn.Sequential(
            nn.Conv2d(middle, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.attention = nn.Conv2d(2 * middle, 2, 1) if fuse else None
        for block in (self.reduce, self.expand):
            weight = block[0].weight
            assert isinstance(weight, Tensor)
            nn.init.kaiming_uniform_(weight, a=1)

    def forward(self, x: Tensor, residual: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        x = run_auxiliary(self.reduce, x)
        if self.attention is not None and residual is not None:
            y = _resize(residual, (x.shape[2], x.shape[3]))
            gates = self.attention(torch.cat([x, y], dim=1)).sigmoid()
            gate_x, gate_y = rearrange(gates, "n (two one) h w -> two n one h w", two=2)
            x = gate_x * x + gate_y * y
        x = _resize(x, size)
        return self.expand(x), x


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if tuple(x.shape[2:]) == size else F.interpolate(x, size, mode="nearest")
