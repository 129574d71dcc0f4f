"""The positions of windows: those of LCE's named paddings agree with those of PyTorch's padding."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from bnn_itrd.export.lce.windows import WindowAxis, named_padding

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13) or sys.platform != "linux", reason="larq-compute-engine has no wheels here"
)


def _positions(size: int, reach: int, stride: int, padding: str) -> tuple[int, int]:
    """Returns (first position, number) of TFLite's windows, as its documentation defines SAME and VALID."""
    if padding == "VALID":
        return 0, (size - reach) // stride + 1
    out = (size + stride - 1) // stride
    return -(max((out - 1) * stride + reach - size, 0) // 2), out


@pytest.mark.parametrize("turned", [False, True])
def test_named_paddings_mean_the_same_windows(turned: bool) -> None:
    found = Counter()
    for size in range(1, 12):
        for reach in range(1, 6):
            for stride in (1, 2, 3):
                for border in range(0, 3):
                    out = (size + 2 * border - reach) // stride + 1
                    if out < 1:
                        continue
                    axis = WindowAxis(size, reach, stride, border, out)
                    starts = [i * stride - border for i in range(out)]
                    if turned:
                        axis = axis.reversed()
                        starts = sorted(size - start - reach for start in starts)
                    name = named_padding([axis])
                    found[name] += 1
                    for padding in ("VALID", "SAME"):
                        first, number = _positions(size, reach, stride, padding)
                        same = starts == [first + i * stride for i in range(number)] and size >= 1
                        if name == padding:
                            assert same, (axis, name)
                        elif name is None:
                            assert not same, (axis, padding)
    # PyTorch's stride 2 fits where the image is reversed, and seldom where it is not.
    assert min(found["VALID"], found["SAME"], found[None]) > 20


def test_stride_two_with_padding_one_needs_the_reversed_image() -> None:
    axis = WindowAxis(32, 3, 2, 1, 16)
    assert named_padding([axis, axis]) is None
    assert named_padding([axis.reversed()] * 2) == "SAME"
