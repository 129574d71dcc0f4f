"""Checks arguments and resizes maps for the losses on maps."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Shape",
    "check_map",
    "check_map_pair",
    "check_shape",
    "check_stage_maps",
    "check_stages",
    "pool_to_smaller",
    "run_auxiliary",
]

Shape = tuple[int, int, int]


def check_shape(name: str, shape: Sequence[int]) -> Shape:
    """Returns the (c, h, w) of a feature map as a tuple; raises ValueError unless these are three integers >= 1."""
    if len(shape) != 3 or not all(isinstance(size, int) and size >= 1 for size in shape):
        raise ValueError(f"{name} must be (c, h, w) with integers >= 1, got {tuple(shape)}")
    c, h, w = shape
    return c, h, w


def check_stages(
    student_shapes: Sequence[Sequence[int]], teacher_shapes: Sequence[Sequence[int]], *, least: int = 1
) -> tuple[list[Shape], list[Shape]]:
    """Returns both lists of stage shapes as (c, h, w); raises ValueError unless they are equally long, >= `least`."""
    if len(student_shapes) != len(teacher_shapes) or len(student_shapes) < least:
        raise ValueError(
            f"student_shapes and teacher_shapes must list the same stages, at least {least}, "
            f"got {len(student_shapes)} and {len(teacher_shapes)}"
        )
    student = [check_shape(f"student_shapes[{i}]", shape) for i, shape in enumerate(student_shapes)]
    teacher = [check_shape(f"teacher_shapes[{i}]", shape) for i, shape in enumerate(teacher_shapes)]
    return student, teacher


def check_map(name: str, x: Tensor, channels: int | None = None) -> None:
    """Raises ValueError unless x is a real (n, c, h, w) without an empty axis, and c = channels if that is given."""
    if x.ndim != 4 or 0 in x.shape or channels not in (None, x.shape[1]):
        c = "c" if channels is None else channels
        raise ValueError(f"{name} must be (n, {c}, h, w) without an empty axis, got {tuple(x.shape)}")
    if x.is_complex():
        raise ValueError(f"{name} must be real, got {x.dtype}")


def check_map_pair(
    student: Tensor,
    teacher: Tensor,
    student_channels: int | None = None,
    teacher_channels: int | None = None,
    *,
    names: tuple[str, str] = ("student_map", "teacher_map"),
) -> None:
    """Raises ValueError unless both are maps (see `check_map`) of the same n samples; `names` are for the message."""
    check_map(names[0], student, student_channels)
    check_map(names[1], teacher, teacher_channels)
    if student.shape[0] != teacher.shape[0]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same batch size, got {student.shape[0]} and {teacher.shape[0]}"
        )


def check_same_map(student: Tensor, teacher: Tensor) -> None:
    """Raises ValueError unless both are maps (see `check_map`) of one shape."""
    check_map_pair(student, teacher)
    if student.shape != teacher.shape:
        raise ValueError(
            f"student_map and teacher_map must have the same shape (n, c, h, w), "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )


def check_stage_maps(
    student_maps: Sequence[Tensor],
    teacher_maps: Sequence[Tensor],
    student_shapes: Sequence[Shape],
    teacher_shapes: Sequence[Shape],
) -> None:
    """Raises ValueError unless both networks give one map per stage, with as many channels as its shape says."""
    for name, maps, shapes in (
        ("student_maps", student_maps, student_shapes),
        ("teacher_maps", teacher_maps, teacher_shapes),
    ):
        if len(maps) != len(shapes):
            raise ValueError(f"{name} must hold {len(shapes)} stages, got {len(maps)}")
    for i, (student, teacher) in enumerate(zip(student_maps, teacher_maps, strict=True)):
        names = (f"student_maps[{i}]", f"teacher_maps[{i}]")
        check_map_pair(student, teacher, student_shapes[i][0], teacher_shapes[i][0], names=names)


def run_auxiliary(module: nn.Module, x: Tensor) -> Tensor:
    """Returns module(x), with x cast to the dtype of the module's parameters, of which it has at least one."""
    result: Tensor = module(x.to(next(module.parameters()).dtype))
    return result


def pool_to_smaller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pools the larger of two maps to the height and width of the smaller; returns both, in order."""
    size = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
    return _pool(a, size), _pool(b, size)


def _pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if tuple(x.shape[2:]) == size else F.adaptive_avg_pool2d(x, size)
