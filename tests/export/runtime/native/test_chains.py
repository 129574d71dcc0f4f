"""A chain computes the same bits as its operations one by one, for any batch and number of threads; so do poolings."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest
from einops import rearrange
from faults.networks import Network, network
from helpers.chains import assert_same, opened
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_itrd.export.runtime.chain_program import check_chains
from bnn_itrd.export.runtime.format import POOLINGS
from bnn_itrd.export.runtime.native import library_path, why_unavailable
from bnn_itrd.export.runtime.onnx_file import read_model

pytestmark = pytest.mark.skipif(library_path() is None, reason=f"no native library: {why_unavailable()}")


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_a_chain_gives_the_bits_of_its_operations(seed: int, batch: int) -> None:
    net = network(seed)
    model, chained = net.model(chained=False), net.model(chained=True)
    feeds = net.feeds(batch)
    check_chains(read_model(chained.SerializeToString()), where="the file")
    expected = opened(model).run(None, feeds)
    assert_same(opened(chained).run(None, feeds), expected)
    assert_same(opened(chained, threads=2).run(None, feeds), expected)
    # The stock runtime holds signs in another form, so only floats are compared.
    stock = opened(chained, native=False).run([chained.graph.output[0].name], feeds)
    assert_same(stock, expected[:1])


@pytest.mark.parametrize("op", POOLINGS)
def test_poolings_have_the_bits_of_the_stock_runtime(op: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 16, 70), np.float32)
    sides = (1, 2, 4) if op.startswith("Average") else (1, 2, 4, 8)
    for kernel in itertools.product(sides, sides):
        net = Network(0)
        net.inputs["x"], net.floats["x"] = [8, 16, 70], (8, 16, 70)
        zeros: dict[str, Any] = {"zeros": [3, 5]} if op.endswith("Pad") else {}
        (y,) = net.add(op, ["x"], 1, input_size=[8, 16], channels=70, kernel_shape=kernel, **zeros)
        net.floats[y] = (8 // kernel[0], 16 // kernel[1], 78 if zeros else 70)
        model = net.model(chained=False)
        (native,), (stock,) = opened(model).run(None, {"x": x}), opened(model, native=False).run(None, {"x": x})
        assert_same([native], [stock])
        windows = rearrange(x.astype(np.float64), "n (h i) (w j) c -> n h w i j c", i=kernel[0], j=kernel[1])
        expected = windows.max((3, 4)) if op.startswith("Max") else windows.mean((3, 4))
        inner = native[..., 3:-5] if zeros else native
        np.testing.assert_allclose(inner, expected, rtol=1e-5, atol=1e-6)
        assert not zeros or not (native[..., :3].any() or native[..., -5:].any())


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("chained", [True, False])
def test_a_batch_of_none(native: bool, chained: bool) -> None:
    for seed in range(20):
        net = Network(seed)
        net.stem("FloatConvRPReLURSign" if seed % 2 else "FloatConvSign")
        for step in (net.convolve, net.convolve, net.pool):
            step()
        net.convolve(last=True)
        model = net.model(chained=chained)
        (y, *_) = opened(model, native=native).run(None, net.feeds(0))
        assert y.shape == (0, *net.floats[net.nodes[-1].output[0]])


def test_several_threads_run_one_chain() -> None:
    nets = [network(seed) for seed in range(400)]
    net = next(n for n in nets if "images" in n.inputs and "outside" not in n.inputs and len(n.nodes) > 5)
    session = opened(net.model(chained=True), threads=2)
    feeds = [net.feeds(batch) for batch in (1, 2, 8, 9)]
    expected = [session.run(None, feed)[0] for feed in feeds]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(50) if not np.array_equal(session.run(None, feeds[i])[0], expected[i]))

    threads = [threading.Thread(target=work, args=(i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_windows_that_do_not_fit_on_the_stack() -> None:
    """Wide windows need buffers of their own: also with few pixels and many outputs, and with several threads."""
    for sides, channels, outputs in (((20, 20), 1100, 16), ((2, 4), 1100, 256)):
        net = Network(1)
        net.inputs["x"], net.floats["x"] = [*sides, channels], (*sides, channels)
        net.sign()
        x = next(iter(net.signs))
        packed = net.rng.integers(0, 256, (3, 3, -(-channels // 8), outputs)).astype(np.uint8)
        packed[:, :, -1] &= (1 << (channels % 8 or 8)) - 1
        scale, bias = net.rng.standard_normal((2, outputs), np.float32)
        attributes: dict[str, Any] = {"input_size": sides, "channels": channels, "kernel_shape": [3, 3], "group": 1}
        attributes |= {"strides": [1, 1], "pads": [1] * 4, "dilations": [1, 1], "padding_value": 0}
        inputs = [x, net.constant(packed), net.constant(scale), net.constant(bias)]
        (y,) = net.add("BinaryConv", inputs, 1, **attributes)
        net.floats[y] = (*sides, outputs)
        feeds = net.feeds(2)
        expected = opened(net.model(chained=False), native=False).run(None, feeds)
        for threads, chained in itertools.product((1, 2), (False, True)):
            assert_same(opened(net.model(chained=chained), threads=threads).run(None, feeds), expected)
