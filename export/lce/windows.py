"""Windows along one axis: whether TFLite's paddings SAME or VALID give those of PyTorch's padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["WindowAxis", "named_padding"]


class WindowAxis(NamedTuple):
    """The windows of a convolution or pooling along one axis.

    size: size of the input; reach: size of a window, (kernel - 1) * dilation + 1; before: how far the first window
    starts in front of the image; out: number of windows.
    """

    size: int
    reach: int
    stride: int
    before: int
    out: int

    @property
    def after(self) -> int:
        """How far the last window ends behind the image; negative where rows at the end are not used."""
        return (self.out - 1) * self.stride + self.reach - self.size - self.before

    def reversed(self) -> WindowAxis:
        """Returns the same windows on the reversed axis."""
        return self._replace(before=self.after)

    def is_valid(self) -> bool:
        """Whether TFLite's VALID gives these windows."""
        return self.before == 0 and -self.stride < self.after <= 0

    def is_same(self) -> bool:
        """Whether TFLite's SAME gives them: ceil(size / stride) windows, the smaller half of the border in front."""
        border = max((self.out - 1) * self.stride + self.reach - self.size, 0)
        return self.out == -(-self.size // self.stride) and self.before == border // 2


def named_padding(axes: Sequence[WindowAxis]) -> str | None:
    """Returns ``VALID`` or ``SAME`` where that gives exactly these windows, else None."""
    if all(axis.is_valid() for axis in axes):
        return "VALID"
    if all(axis.is_same() for axis in axes):
        return "SAME"
    return None
