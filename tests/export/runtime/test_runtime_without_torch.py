"""A process that cannot import torch, nor the modules for training, opens, runs and times a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import bnn_itrd.export
from bnn_itrd.export import predict_model, to_onnx
from bnn_itrd.quant import BinaryConv2d

# The first words of every program below: from here on these imports raise.
BLOCKED = """
import sys

class Blocked:
    names = {"torch", "torchvision", "lightning", "onnxscript", "sklearn", "onnx", "onnx_ir"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} is not for this process")

sys.meta_path.insert(0, Blocked())
"""

RUN = """
import json
import numpy as np
from bnn_itrd.export import (
    ExportError, classify_images, compare_milliseconds, interleaved_seconds, milliseconds_per_image, predict_file,
    read_metadata, session, uses_native,
)

file, images, picture = sys.argv[1:]
portable, best = session(file, native=False), session(file, threads=2)
x = np.load(images)
logits = predict_file(portable, x, batch_size=4)
assert np.array_equal(logits, predict_file(best, x))
seconds = interleaved_seconds({"portable": portable, "best": best}, batch=2, repeats=3)
assert {name: len(values) for name, values in seconds.items()} == {"portable": 3, "best": 3}
assert compare_milliseconds({"portable": portable}, repeats=1)["portable"] > 0
assert milliseconds_per_image(best, repeats=1) > 0 and not uses_native(portable)
try:
    session(images)
except ExportError as error:
    refused = str(error)
metadata = read_metadata(file)
seen = [str(found) for found in classify_images(file, [picture])]
loaded = sorted(name for name in Blocked.names if name in sys.modules)
print(json.dumps({"logits": logits.tolist(), "metadata": metadata, "refused": refused, "loaded": loaded, "seen": seen}))
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), BinaryConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8 * 64, 2)).eval()


def test_a_file_is_opened_run_and_timed(network: nn.Module, tmp_path: Path) -> None:
    file = to_onnx(
        network,
        tmp_path / "net.onnx",
        input_shape=(3, 8, 8),
        classes=["cat", "dog"],
        normalization=([0.5, 0.5, 0.5], [0.25, 0.25, 0.25]),
    )
    x = np.random.default_rng(0).standard_normal((6, 3, 8, 8), np.float32)
    np.save(tmp_path / "x.npy", x)
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(tmp_path / "white.png")
    done = run(RUN, str(file), str(tmp_path / "x.npy"), str(tmp_path / "white.png"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["loaded"] == []
    np.testing.assert_allclose(found["logits"], predict_model(network, x), rtol=1e-4, atol=1e-5)
    white = np.full((1, 3, 8, 8), 2, np.float32)  # (1 - 0.5) / 0.25
    cat, dog = np.exp(predict_model(network, white)[0])
    shares = sorted([(cat / (cat + dog), "cat"), (dog / (cat + dog), "dog")], reverse=True)
    words = ", ".join(f"{name} {100 * share:.1f} %" for share, name in shares)
    assert found["seen"] == [f"{tmp_path / 'white.png'}: {words}"]
    assert found["metadata"]["classes"] == ["cat", "dog"] and found["metadata"]["std"] == [0.25, 0.25, 0.25]
    assert found["metadata"]["input_shape"] == [3, 8, 8] and found["metadata"]["format_version"] == 3
    assert found["refused"].startswith(f"{tmp_path / 'x.npy'} is not an ONNX file")


def test_a_name_that_needs_torch_says_so_where_it_is_used() -> None:
    done = run("import bnn_itrd.export as e; e.session; print(sorted(e.__all__)); e.to_onnx")
    assert done.returncode == 1 and "torch is not for this process" in done.stderr.splitlines()[-1]
    assert done.stdout.strip() == str(sorted(bnn_itrd.export.__all__))


def test_the_folder_names_what_it_has_for_users() -> None:
    done = run(
        "from bnn_itrd.export import runtime; import bnn_itrd.export as e; "
        "assert all(getattr(e, n) is getattr(runtime, n) for n in runtime.__all__)"
    )
    assert done.returncode == 0, done.stderr


def test_every_name_of_the_stub_is_there() -> None:
    assert sorted(bnn_itrd.export.__all__) == bnn_itrd.export.__all__ == dir(bnn_itrd.export)
    for name in bnn_itrd.export.__all__:
        value = getattr(bnn_itrd.export, name)
        assert getattr(value, "__name__", name) == name
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = bnn_itrd.export.nothing_of_that_name  # type: ignore[attr-defined]
