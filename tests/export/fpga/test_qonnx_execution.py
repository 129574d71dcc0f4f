"""QONNX files give in qonnx what the network gives; if an image differs, the first layer that differs is named."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fpga import SHAPE, Mixed, assert_agrees, rand, small, small_vgg, trained
from torch import Tensor

from bnn_itrd.deploy.agreement import compare_split
from bnn_itrd.deploy.targets import TARGETS, judge, open_file
from bnn_itrd.export import ExportError, predict_model
from bnn_itrd.export.fpga import compare_values, inference_cost, qonnx_values, run_qonnx, to_qonnx, validate_qonnx
from bnn_itrd.export.runtimes import environments
from bnn_itrd.models import resnet18, vgg_small


def test_qonnx_gives_what_the_network_gives(files: dict[str, Path], qonnx: Path) -> None:
    vgg = trained(small_vgg(first_last_bits=8))
    for name, model in (("resnet", trained(small())), ("vgg", vgg)):
        x = rand(50, *SHAPE)
        result = validate_qonnx(model, files[f"{name}.qonnx"], x, python=qonnx)
        assert_agrees(result)
        assert all(outlier.layer and outlier.differing for outlier in result.outliers)


def test_every_sign_and_integer_on_the_way(files: dict[str, Path], qonnx: Path) -> None:
    x = rand(3, *SHAPE)
    values = qonnx_values(files["resnet.qonnx"], x, python=qonnx, batch_size=2)
    assert [path for path, _ in values.levels][:3] == ["conv1.input_quantizer", "act1", "layer1.0.conv1"]
    assert len(values.levels) == 5 + 6 + 2
    levels = dict(values.levels)
    assert set(np.unique(levels["layer1.0.conv1"])) == {-1, 1}
    stem = np.rint(x.numpy() / np.float32(4 / 128 * math.exp(0.1))).clip(-128, 127)
    assert (levels["conv1.input_quantizer"] == stem).mean() > 0.999
    # In another batch size onnxruntime may round otherwise.
    np.testing.assert_allclose(values.logits, run_qonnx(files["resnet.qonnx"], x, python=qonnx), atol=1e-5)


def test_an_outlier_names_its_first_layer(files: dict[str, Path], qonnx: Path) -> None:
    """The network's second layer is changed after the export: the message names this layer."""
    model = trained(small())
    with torch.no_grad():
        model.layer1[0].bn1.bias += 0.5
    result = validate_qonnx(model, files["resnet.qonnx"], rand(6, *SHAPE), python=qonnx)
    assert len(result.outliers) >= 4
    assert {outlier.layer for outlier in result.outliers} == {"layer1.0.conv2"}
    sizes = [outlier.difference for outlier in result.outliers]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 1e-4


def test_networks_of_other_kinds(tmp_path: Path, qonnx: Path) -> None:
    torch.manual_seed(0)
    model = Mixed().eval()
    file = to_qonnx(model, tmp_path / "mixed.onnx", input_shape=(3, 12, 12))
    result = validate_qonnx(model, file, rand(20, 3, 12, 12), python=qonnx)
    assert_agrees(result, median=1e-5)
    with pytest.raises(ExportError, match=r"a pads with 1.*padding_value=-1"):
        to_qonnx(model, tmp_path / "mixed.onnx", input_shape=(3, 12, 12), flavor="finn")
    assert validate_qonnx(model, file, rand(3, 3, 12, 12), python=qonnx).agreement.images == 3  # the old file stands


@pytest.mark.parametrize(
    ("make", "bops", "bits"),
    [
        (lambda: resnet18(binary="recu"), 2.36e9, 11.2e6),
        (lambda: vgg_small(binary="recu", padding_value=-1, first_last_bits=8), 0.83e9, 5.25e6),
    ],
    ids=["resnet18", "vgg_small"],
)
def test_the_published_costs(make: Any, bops: float, bits: float, tmp_path: Path, qonnx: Path) -> None:
    cost = inference_cost(to_qonnx(make(), tmp_path / "net.onnx"), python=qonnx)
    assert cost["total_bops"] == pytest.approx(bops, rel=0.008)
    assert cost["total_mem_w_bits"] == pytest.approx(bits, rel=0.002)
    assert all(isinstance(value, float) for value in cost.values())


def test_a_file_for_finn_is_executed_with_its_borders_put_back(files: dict[str, Path], qonnx: Path) -> None:
    """In the file for FINN padding means -1, and a pooling follows the quantiser that it precedes in the network."""
    vgg = trained(small_vgg(first_last_bits=8))
    x = rand(40, *SHAPE)
    for name, model in (("resnet", trained(small())), ("vgg", vgg)):
        before = files[f"{name}.finn"].read_bytes()
        result = validate_qonnx(model, files[f"{name}.finn"], x, python=qonnx)
        assert_agrees(result)
        np.testing.assert_allclose(
            run_qonnx(files[f"{name}.finn"], x, python=qonnx),
            run_qonnx(files[f"{name}.qonnx"], x, python=qonnx),
            atol=1e-5,
        )
        assert files[f"{name}.finn"].read_bytes() == before
        ours, theirs = (qonnx_values(files[f"{name}.{f}"], x[:3], python=qonnx).levels for f in ("qonnx", "finn"))
        assert [path for path, _ in ours] == [path for path, _ in theirs]
        for (path, a), (_, b) in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=path)


class _Few:
    """Stands for a data set: it gives six images in batches."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def eval_batches(self, size: int, *, device: torch.device) -> Iterator[tuple[Tensor, Tensor, None]]:
        for part in self.images.split(4):
            yield part, torch.zeros(len(part), dtype=torch.int64), None


@pytest.mark.parametrize("flavor", ["qonnx", "finn"])
def test_one_execution_gives_agreement_and_outliers(
    flavor: str, files: dict[str, Path], qonnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"student.{flavor}.onnx"
    file.write_bytes(files[f"resnet.{flavor}"].read_bytes())
    x = rand(6, *SHAPE)
    data: Any = SimpleNamespace(name="few", input_shape=SHAPE, test=_Few(x))
    model = trained(small())
    with torch.no_grad():
        model.layer1[0].bn1.bias += 0.5
    executed = []
    call = environments.call

    def counted(*args: Any, arrays: Any, **more: Any) -> Any:
        executed.append(len(arrays["images"]))
        return call(*args, arrays=arrays, **more)

    monkeypatch.setattr(environments, "call", counted)
    found = compare_split(model, open_file(file, python=str(qonnx)), data)
    assert executed == [4, 2]
    monkeypatch.undo()
    np.testing.assert_allclose(found.theirs, predict_model(model, x), atol=1e-5)
    np.testing.assert_allclose(found.ours, run_qonnx(file, x, python=qonnx), atol=1e-5)
    expected = validate_qonnx(model, file, x, python=qonnx).outliers
    assert found.outliers is not None and len(found.outliers) >= 4
    assert [(o.image, o.layer, o.differing) for o in found.outliers] == [
        (o.image, o.layer, o.differing) for o in expected
    ]
    limited = compare_split(model, open_file(file, python=str(qonnx)), data, limit=5)
    assert len(limited.labels) == len(limited.ours) == 5


@pytest.mark.parametrize(
    ("name", "agreement", "images", "median", "least", "reason"),
    [
        ("onnx", 100.0, 10, 0.0, None, None),
        ("onnx", 98.0, 50, 0.0, None, None),  # one image of 50
        ("onnx", 96.0, 50, 0.0, None, "agreement 96.000 % is below 99.9 %"),  # two
        ("qonnx", 99.5, 200, 1e-6, None, None),
        ("qonnx", 99.0, 200, 1e-6, None, "below 99.9 %"),
        ("qonnx", 100.0, 200, 1.1e-4, None, "median difference 0.00011 is above 0.0001"),
        ("finn", 100.0, 200, math.nan, None, "median difference nan"),
        ("lce", 99.0, 10_000, 1e-6, None, None),
        ("lce", 98.99, 10_000, 1e-6, None, "below 99.0 %"),
        ("lce", 99.5, 200, 1e-6, 99.9, None),
        ("lce", 99.5, 200, 1e-6, 100.0, "below 100.0 %"),  # who asks for all means all
        ("onnx", 100.0, 10, 5.0, None, None),
        ("onnx", math.nan, 10, 0.0, None, "agreement nan"),
        ("onnx", 0.0, 1, 0.0, None, None),
    ],
)
def test_what_validate_lets_pass(
    name: str, agreement: float, images: int, median: float, least: float | None, reason: str | None
) -> None:
    found = judge(TARGETS[name], agreement, images, median, min_agreement=least)
    assert found is None if reason is None else found is not None and reason in found


def test_values_that_were_executed_already(files: dict[str, Path], qonnx: Path) -> None:
    """Comparing values that were executed before gives the same result as executing them for the comparison."""
    model, x = trained(small()), rand(6, *SHAPE)
    with torch.no_grad():
        model.layer1[0].bn1.bias += 0.5
    values = qonnx_values(files["resnet.qonnx"], x, python=qonnx)
    again = compare_values(model, values, predict_model(model, x, batch_size=32), x)
    assert again == validate_qonnx(model, files["resnet.qonnx"], x, python=qonnx)


def test_without_an_environment(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ExportError, match="validate --setup fpga"):
        run_qonnx(files["resnet.qonnx"], rand(1, *SHAPE))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.zeros(2, 3, 9, 8), {}, r"images must be \(n, 3, 8, 8\) for this file, got \(2, 3, 9, 8\)"),
        (torch.zeros(0, *SHAPE), {}, "images must be"),
        (torch.zeros(1, *SHAPE, dtype=torch.uint8), {}, "images must be normalised float32 numbers, got uint8"),
        (torch.zeros(1, *SHAPE), {"batch_size": 0}, "batch_size must be >= 1, got 0"),
    ],
)
def test_images_that_do_not_fit(files: dict[str, Path], images: Tensor, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_qonnx(files["resnet.qonnx"], images, **options)
