"""Every kernel of the native library, called by itself, against torch and NumPy bit for bit."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.native import run_kernels
from helpers.kernels import kernels, packed, rprelu, signs_of, sums
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_itrd.export.runtime.native import kernel, library_path, why_unavailable
from bnn_itrd.export.runtime.native.direct import DirectConvolution, direct_signs, load_library

pytestmark = pytest.mark.skipif(library_path() is None, reason=f"no native library: {why_unavailable()}")


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    """Draws shapes and attributes of a convolution, also unusual ones."""
    group = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    kernel_shape = draw(st.one_of(st.sampled_from([(1, 1), (3, 3)]), st.tuples(st.integers(1, 7), st.integers(1, 7))))
    pads = draw(st.one_of(st.just((1, 1, 1, 1)), st.tuples(*[st.integers(0, 4)] * 4)))
    dilations = draw(st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 3), st.integers(1, 3))))
    spans = [dilations[i] * (kernel_shape[i] - 1) + 1 - pads[i] - pads[i + 2] for i in range(2)]
    return {
        "group": group,
        "group_channels": draw(st.one_of(st.integers(1, 70), st.sampled_from([4, 16, 32, 64, 128]))),
        "group_outputs": draw(st.one_of(st.integers(1, 40), st.sampled_from([16, 32, 64]))),
        "kernel_shape": kernel_shape,
        "strides": draw(st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 4), st.integers(1, 4)))),
        "dilations": dilations,
        "pads": pads,
        "padding_value": draw(st.sampled_from([0, 0, 1, -1])),
        "images": draw(st.integers(1, 2)),
        "sides": tuple(max(1, spans[i]) + draw(st.integers(0, 10)) for i in range(2)),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


def tensors(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, dict[str, Any], np.random.Generator]:
    """Returns (signs, weights, attributes of the convolution, random generator) for a drawn case."""
    generator = np.random.default_rng(case["seed"])
    channels = case["group"] * case["group_channels"]
    x = signs_of((case["images"], *case["sides"], channels), generator)
    weights = signs_of(
        (*case["kernel_shape"], case["group_channels"], case["group"] * case["group_outputs"]), generator
    )
    names = ("group", "padding_value", "strides", "dilations", "pads")
    return x, weights, {name: case[name] for name in names}, generator


@settings(max_examples=1500, deadline=None)
@given(convolutions())
def test_raw_sums_are_those_of_conv2d(case: dict[str, Any]) -> None:
    x, weights, attributes, _ = tensors(case)
    expected = sums(x, weights, attributes)
    for name in kernels():
        convolution = DirectConvolution(
            load_library(), name, packed(weights, axis=2), channels=x.shape[-1], **attributes
        )
        outputs, _ = convolution(packed(x))
        np.testing.assert_array_equal(outputs["raw"], expected, err_msg=name)


@settings(max_examples=600, deadline=None)
@given(convolutions(), st.booleans(), st.sampled_from(["", "Clip", "RPReLU"]), st.booleans())
def test_epilogues_are_those_of_numpy_bit_for_bit(case: dict[str, Any], add: bool, bend: str, rsign: bool) -> None:
    x, weights, attributes, generator = tensors(case)
    expected = sums(x, weights, attributes)
    outputs = weights.shape[-1]
    threshold = generator.integers(-20, 21, outputs, np.int32)
    threshold[int(generator.integers(outputs))] = generator.choice([-(2**30), 2**30, -(2**31), 2**31 - 1])
    scale, bias = generator.standard_normal((2, outputs), np.float32)
    residual = generator.standard_normal(expected.shape, np.float32) if add else None
    y = expected.astype(np.float32) * scale + bias
    y = y + residual if residual is not None else y
    y = np.clip(y, np.float32(-0.7), np.float32(0.9)) if bend == "Clip" else y
    numbers = generator.standard_normal((3, outputs), np.float32) if bend == "RPReLU" else None
    y = y if numbers is None else rprelu(y, *numbers)
    # One of the values that there are: ties are met.
    level = np.ascontiguousarray(y.reshape(-1, outputs)[len(y) // 2]) if rsign else None
    for name in kernels():
        common = {"channels": x.shape[-1], **attributes}
        bits = packed(weights, axis=2)
        thresholded, _ = DirectConvolution(load_library(), name, bits, threshold=threshold, **common)(packed(x))
        signs = np.where(expected.astype(np.int64) >= threshold, 1, -1)
        np.testing.assert_array_equal(thresholded["signs"], packed(signs), err_msg=name)
        limits = (-0.7, 0.9) if bend == "Clip" else None
        bends: dict[str, Any] = {"limits": limits, "rprelu": numbers, "level": level}
        scaled = DirectConvolution(load_library(), name, bits, scale=scale, bias=bias, add=add, **bends, **common)
        results, _ = scaled(packed(x), residual)
        np.testing.assert_array_equal(results["y"].view(np.int32), y.view(np.int32), err_msg=name)
        signs = np.where(y >= (0 if level is None else level), 1, -1)
        np.testing.assert_array_equal(results["signs"], packed(signs), err_msg=name)


def test_a_window_too_large_for_the_stack_and_images_too_many_for_the_cache() -> None:
    generator = np.random.default_rng(0)
    for kernel_shape, channels, images, side in (((7, 7), 900, 2, 9), ((3, 3), 64, 40, 64)):
        x, weights = (
            signs_of((images, side, side, channels), generator),
            signs_of((*kernel_shape, channels, 16), generator),
        )
        attributes = {"group": 1, "padding_value": 0, "strides": (1, 2), "dilations": (1, 1), "pads": (1, 1, 1, 1)}
        expected = sums(x, weights, attributes)
        for name in kernels()[1:]:
            convolution = DirectConvolution(
                load_library(), name, packed(weights, axis=2), channels=channels, **attributes
            )
            np.testing.assert_array_equal(convolution(packed(x))[0]["raw"], expected, err_msg=name)


def test_one_convolution_takes_images_of_changing_size() -> None:
    generator = np.random.default_rng(0)
    weights = signs_of((3, 3, 40, 20), generator)
    attributes = {"group": 1, "padding_value": 1, "strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1)}
    for name in kernels():
        convolution = DirectConvolution(load_library(), name, packed(weights, axis=2), channels=40, **attributes)
        for shape in ((1, 8, 8), (3, 8, 8), (2, 5, 17), (1, 8, 8), (1, 1, 1)):
            x = signs_of((*shape, 40), generator)
            expected = sums(x, weights, attributes)
            np.testing.assert_array_equal(convolution(packed(x))[0]["raw"], expected, err_msg=name)


def test_signs_of_special_floats() -> None:
    values = np.array([0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, -np.nan, 3, -3, -0.0], np.float32)
    for channels in (1, 7, 8, 11, 16, 24, 64, 100):
        x = np.resize(values, (3, 5, channels))
        for name in kernels():
            np.testing.assert_array_equal(
                direct_signs(load_library(), name, x), packed(np.where(x >= 0, 1, -1)), err_msg=name
            )
            level = np.resize(np.array([0.0, 3, -1e-45, np.inf, -3], np.float32), channels)
            expected = packed(np.where(x >= level, 1, -1))
            np.testing.assert_array_equal(direct_signs(load_library(), name, x, level), expected, err_msg=name)


@pytest.mark.parametrize("form", [{}, {"limits": (-1, 1)}, {"rprelu"}])
def test_special_constants_give_the_same_bits_but_those_of_a_nan(form: Any) -> None:
    generator = np.random.default_rng(0)
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 1e-45, 3e38, 0], np.float32)
    special.view(np.uint32)[-1] = 0xFFC12345  # a NaN with a sign and a payload
    for add in [False, True] * 20:
        weights, x = signs_of((1, 1, 8, 24), generator), packed(signs_of((1, 4, 5, 8), generator))
        scale, bias, level, *bent = generator.choice(special, (6, 24))
        residual = generator.choice(special, (1, 4, 5, 24))
        arguments: dict[str, Any] = {"rprelu": bent} if "rprelu" in form else form
        arguments = {"scale": scale, "bias": bias, "level": level, "add": add, **arguments}
        results = [
            DirectConvolution(load_library(), name, packed(weights, axis=2), channels=8, **arguments)(x, residual)[0]
            for name in kernels()
        ]
        for result in results[1:]:
            np.testing.assert_array_equal(result["signs"], results[0]["signs"])
            nan = np.isnan(results[0]["y"])
            np.testing.assert_array_equal(np.isnan(result["y"]), nan)
            ours, theirs = (np.where(nan, 0, y["y"].view(np.int32)) for y in (result, results[0]))
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "channels must be in"),
        ({"channels": 2**40}, "channels must be in"),
        ({"channels": 65}, "weights must have shape \\(3, 3, 9, outputs\\)"),
        ({"group": 3}, "channels must be a multiple of group"),
        ({"group": 64}, "weights must have shape \\(3, 3, 1, outputs\\)"),
        ({"padding_value": 2}, "padding_value must be -1, 0 or 1, got 2"),
        ({"strides": (0, 1)}, "strides must be in"),
        ({"dilations": (1, -1)}, "dilations must be in"),
        ({"pads": (0, 0, -1, 0)}, "pads must be in"),
    ],
)
def test_impossible_attributes_are_named(change: dict[str, Any], message: str) -> None:
    weights = np.zeros((3, 3, 8, 16), np.uint8)
    with pytest.raises(ValueError, match=message):
        DirectConvolution(load_library(), "portable", weights, **{"channels": 64, **change})


def test_impossible_images_are_named() -> None:
    convolution = DirectConvolution(load_library(), kernel(), np.zeros((5, 5, 8, 16), np.uint8), channels=64)
    with pytest.raises(ValueError, match="the window is larger than the padded image: 5 against 4 pixels along axis 1"):
        convolution(np.zeros((1, 4, 9, 8), np.uint8))
    huge = DirectConvolution(
        load_library(), kernel(), np.zeros((1, 1, 8, 16), np.uint8), channels=64, pads=(2**30,) * 4
    )
    with pytest.raises(ValueError, match="the image is too large"):
        _run_blind(huge)


def _run_blind(convolution: DirectConvolution) -> None:
    """Runs a convolution that must fail before it writes, so that its outputs need not be allocated."""
    shape, x = np.array([1, 1, 1], np.int64), np.zeros((1, 1, 1, 8), np.uint8)
    message = ctypes.create_string_buffer(256)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, shape)]
    arguments = [*pointers, None, None, None, None, ctypes.c_int64(1), None, message, ctypes.c_int64(256)]
    assert convolution._library.bnn_itrd_run(convolution._handle, *arguments)
    raise ValueError(message.value.decode())


@pytest.mark.exhaustive
def test_kernels_under_address_and_undefined_behaviour_sanitizers(sanitized: Path) -> None:
    """The kernels are compiled with sanitizers, which end the process with an error if memory is used wrongly."""
    assert run_kernels(sanitized, kernels(), 200) == 200
