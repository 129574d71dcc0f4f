"""Thresholds on integer sums give the signs of the float arithmetic that they replace; signs are packed to bits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_itrd.export.passes.thresholds import NEVER, fold_into_threshold, pack_weights


def _by_hand(scale: np.float32, bias: np.float32, largest: int) -> list[bool]:
    return [bool(np.float32(np.float32(acc) * scale) + bias >= 0) for acc in range(-largest, largest + 1)]


@settings(max_examples=300, deadline=None)
@given(
    scale=st.floats(-4, 4, width=32),
    bias=st.floats(-64, 64, width=32) | st.sampled_from([0.0, -0.0]),
    largest=st.integers(1, 60),
)
def test_thresholds_for_every_sum(scale: float, bias: float, largest: int) -> None:
    threshold, flip = fold_into_threshold(np.array([scale], np.float32), np.array([bias], np.float32), largest)
    sums = np.arange(-largest, largest + 1)
    ours = (-sums if flip[0] else sums) >= threshold[0]
    assert ours.tolist() == _by_hand(np.float32(scale), np.float32(bias), largest)


@settings(max_examples=200, deadline=None)
@given(
    scale=st.floats(-4, 4, width=32),
    bias=st.floats(-9, 9, width=32),
    numbers=st.tuples(*[st.floats(-4, 4, width=32)] * 3, st.floats(0, 4, width=32)),
)
def test_thresholds_through_an_rprelu(scale: float, bias: float, numbers: tuple[float, ...]) -> None:
    before, after, level, slope = (np.array([number], np.float32) for number in numbers)

    def positive(y: np.ndarray) -> np.ndarray:
        moved = y + before
        signs: np.ndarray = np.where(moved <= 0, moved * slope, moved) + after >= level
        return signs

    scales, biases = np.array([scale], np.float32), np.array([bias], np.float32)
    threshold, flip = fold_into_threshold(scales, biases, 30, positive)
    for total in range(-30, 31):
        expected = positive(np.array([total], np.float32) * scales + biases)
        assert ((-total if flip[0] else total) >= threshold[0]) == expected[0]


def test_thresholds_at_ties_and_without_a_scale() -> None:
    scale = np.array([0.1, -0.1, 0, 0, 0.1, 1e-30], np.float32)
    bias = np.array([-0.3, 0.3, 0, -1e-9, 1e9, -1], np.float32)
    threshold, flip = fold_into_threshold(scale, bias, 9)
    # 3 * 0.1 rounds to 0.3 in float32, so the sum 3 is a tie, and a tie is +1; -0.0 is no negative scale.
    assert threshold.tolist() == [3, -3, -NEVER, NEVER, -NEVER, NEVER]
    assert flip.tolist() == [False, True, False, False, False, False]
    assert threshold.dtype == np.int32


def test_packing_puts_channel_k_at_bit_k() -> None:
    signs = -np.ones((2, 11, 1, 2), np.int8)
    signs[0, 0, 0, 0] = signs[0, 9, 0, 1] = signs[1, 7, 0, 1] = 1
    packed = pack_weights(signs)
    assert packed.shape == (1, 2, 2, 2) and packed.dtype == np.uint8
    expected = np.zeros_like(packed)
    expected[0, 0, 0, 0], expected[0, 1, 1, 0], expected[0, 1, 0, 1] = 1, 2, 128
    np.testing.assert_array_equal(packed, expected)
