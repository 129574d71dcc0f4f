"""`WindowAxis` describes a convolution's or pooling's windows along one axis; `named_padding` finds TFLite's padding.

TFLite has only two kinds of padding, SAME and VALID, where PyTorch pads by any number of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["WindowAxis", "named_padding"]


class WindowAxis(NamedTuple):
    """The windows of a convolution or pooling along height or width; all numbers are pixels.

    size: size of the image; reach: size of a window, (kernel - 1) * dilation + 1; stride: from one window to the next;
    before: how far the first window starts before the image's first pixel; out: number of windows.
    """

    size: int
    reach: int
    stride: int
    before: int
    out: int

    @property
    def after(self) -> int:
        """Returns by how many pixels the last window reaches beyond the image; negative if pixels are left unused."""
        return (self.out - 1) * self.stride + self.reach - self.size - self.before

    def reversed(self) -> WindowAxis:
        """Returns the same windows on an image that is reversed along this axis."""
        return self._replace(before=self.after)

    def is_valid(self) -> bool:
        """Returns whether these are the windows with TFLite's padding ``VALID``, which is no padding."""
        return self.before == 0 and -self.stride < self.after <= 0

    def is_same(self) -> bool:
        """Returns whether these are the windows with TFLite's padding ``SAME``.

        It has ceil(size / stride) windows, and pads both ends alike, or by one pixel less before the image.
        """
        border = max((self.out - 1) * self.stride + self.reach - self.size, 0)
        return self.out == -(-self.size // self.stride) and self.before == border // 2


def named_padding(axes: Sequence[WindowAxis]) -> str | None:
    """Returns the padding of TFLite, ``VALID`` or ``SAME``, with which an operation has exactly the windows `axes`.

    Returns None if neither fits. axes: the windows along height and along width.
    """
    if all(axis.is_valid() for axis in axes):
        return "VALID"
    if all(axis.is_same() for axis in axes):
        return "SAME"
    return None
