"""ReviewKD: fuses the student's stages from deep to shallow, and matches each to the teacher's at several scales."""

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
    """Returns the weighted mean MSE of the maps and of their average-poolings to 4x4, 2x2, 1x1; two (n, c, h, w) -> ().

    The maps themselves have weight 1, each pooled size l < min(h, w) half of the weight before it; the sum is divided
    by the sum of the weights. Each MSE is a mean over all elements. 0 where the maps are equal. Half-precision inputs
    are computed in float32, under autocast too. Gradients flow to both inputs: pass a detached teacher.

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
    """Computes sum_k `hierarchical_context_loss`(fused student stage k, teacher stage k); lists of (n, c, h, w) -> ().

    From the deepest stage to the shallowest, the `Fusion` (ABF) of stage k turns student stage k and the residual of
    stage k + 1 into a map of the teacher's shape and the next residual. Stages are listed from shallow to deep. As
    published, the last one is the pooled representation, a map of (d, 1, 1), and the teacher's maps are those before
    the activation. All residuals have min(512, channels of the deepest student stage) channels. Sizes are read from the
    maps.

    The fusions are trained with the student's optimiser and dropped afterwards. Usual weight 0.6 to 8 by the pair of
    networks, rising linearly from 0 over the first 20 epochs. They are computed in the dtype of their weights, float32
    unless changed, and the rest in float32 at least, under autocast too. Training on a batch of one sample raises
    where a stage is 1x1 (PyTorch's ValueError: no variance).

    Raises ValueError for bad shapes or lists of unequal length; in forward for other stages.
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
    """Computes ABF: a student map, a deeper residual -> (map of the teacher's shape, residual), both of the given size.

        x = BN(conv1x1(map)), c -> middle        a_x, a_y = sigmoid(conv1x1([x, y])), y = residual resized to x
        r = a_x x + a_y y, resized to `size`     output = BN(conv3x3(r)), middle -> out_channels

    Resizing is nearest-neighbour; without `fuse` (the deepest stage) r = x. Chen et al., CVPR 2021, fig. 3(a).

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
