"""The NEON kernels, compiled for arm64 and run under qemu: bit for bit what portable.cpp gives, and the stock runtime.

Networks and what x86 gives for them are made here; arm64_guest.py, with numpy and onnxruntime alone, does the rest in
one process. `.ci/arm64 FOLDER` makes the arm64 Python, which is found through the environment variable BNN_ITRD_ARM64.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from faults.networks import network
from helpers.chains import opened, stem_model
from helpers.kernels import one_node
from helpers.scripts import load_script
from torch import nn

from bnn_itrd.export import session, to_onnx
from bnn_itrd.export.ort.functions import function_bodies
from bnn_itrd.export.passes.chains import chain
from bnn_itrd.export.runtime.format import CONVOLUTIONS, FLOAT_CONVOLUTIONS
from bnn_itrd.export.runtime.native import library_path, why_unavailable
from bnn_itrd.models import MODELS

ROOT = Path(__file__).resolve().parents[4]
ARM64 = os.environ.get("BNN_ITRD_ARM64", "")
TOOLS = ("qemu-aarch64-static", "aarch64-linux-gnu-g++")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not ARM64, reason="BNN_ITRD_ARM64 does not name an arm64 Python (`.ci/arm64 FOLDER` makes one)"),
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"not all of {', '.join(TOOLS)} are here"),
    pytest.mark.skipif(library_path() is None, reason=f"no native library: {why_unavailable()}"),
]

# Whole networks: the name in MODELS, the binariser, further arguments, the side of the images.
WHOLE: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "whole_resnet18_quarter": ("resnet18", "recu", {"width": 0.25}, 16),
    "whole_resnet20": ("resnet20", "recu", {}, 16),
    "whole_vgg_small": ("vgg_small", "recu", {}, 16),
    "whole_react": ("resnet18", "reactnet", {"width": 0.25}, 16),
}
ODD: dict[str, Any] = {"group": 1, "group_channels": 33, "group_outputs": 20, "kernel_shape": (3, 2), "sides": (7, 6)}
ODD |= {"strides": (1, 2), "dilations": (1, 1), "pads": (1, 0, 2, 1), "padding_value": 0}


def compile_for_arm64(folder: Path) -> None:
    """Compiles the native library for arm64 into a folder, as building.py does during an installation."""
    building = load_script("export/runtime/native/src/building.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "aarch64-linux-gnu-g++")
        building.compile_library(folder)


def write(folder: Path, name: str, model: onnx.ModelProto | Path, feeds: dict[str, np.ndarray]) -> None:
    """Writes NAME.onnx, and NAME.npz with its inputs and the outputs of the native library on this machine."""
    path = folder / f"{name}.onnx"
    if isinstance(model, Path):
        outputs = session(model)
    else:
        path.write_bytes(model.SerializeToString())
        outputs = opened(model)
    names = [output.name for output in outputs.get_outputs()]
    results = dict(zip(names, outputs.run(names, feeds), strict=True))
    arrays = {f"in.{key}": value for key, value in feeds.items()} | {f"out.{key}": a for key, a in results.items()}
    np.savez(folder / f"{name}.npz", **arrays)


def write_operators(folder: Path) -> None:
    """Writes a file for every operator by itself, with odd numbers of channels and three images."""
    rng = np.random.default_rng(0)
    for op in CONVOLUTIONS:
        case = {**ODD, "group": 3, "group_channels": 11, "group_outputs": 7} if op.startswith("Grouped") else ODD
        model, _ = one_node(op, case, rng)
        model.functions.extend(function_bodies(["Sign", op]))
        channels, outputs = (case["group"] * case[name] for name in ("group_channels", "group_outputs"))
        feeds = {"x": rng.standard_normal((3, 7, 6, channels), np.float32)}
        if "Add" in op:
            feeds["residual"] = rng.standard_normal((3, 8, 3, outputs), np.float32)
        write(folder, f"op_{op}", model, feeds)
    for op in FLOAT_CONVOLUTIONS:
        weights, bias = rng.standard_normal((3, 3, 3, 24), np.float32), rng.standard_normal(24, np.float32)
        model = stem_model(op, weights, bias, (9, 8), strides=[1, 2])
        shape = (3, 9, 8, 3) if op.startswith("Inner") else (3, 3, 9, 8)
        write(folder, f"float_{op}", model, {"images": rng.standard_normal(shape, np.float32)})


def write_chains(folder: Path) -> None:
    """Writes random networks, whose layers are chains where possible, for batches of 1 to 9 images."""
    made = 0
    for seed in range(100):
        net = network(seed, steps=8)
        model = net.model(chained=False)
        if chain(model) != 1:
            continue
        kind = "float_chain" if any(node.op_type in FLOAT_CONVOLUTIONS for node in net.nodes) else "chain"
        write(folder, f"{kind}_{seed}", model, net.feeds((1, 3, 9)[made % 3]))
        made += 1
        if made == 16:
            return


def write_whole(folder: Path) -> None:
    for name, (builder, binary, arguments, side) in WHOLE.items():
        torch.manual_seed(0)
        shape = (3, side, side)
        model: nn.Module = MODELS[builder](10, input_shape=shape, binary=binary, **arguments)
        for _ in range(2):
            model(torch.randn(8, *shape))  # statistics as training leaves them
        file = to_onnx(model.eval(), folder / f"{name}.onnx", input_shape=shape)
        write(folder, name, file, {"images": torch.randn(4, *shape).numpy()})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Runs arm64_guest.py on the arm64 Python and returns what it found."""
    folder = tmp_path_factory.mktemp("arm64")
    compile_for_arm64(folder)
    write_operators(folder)
    write_chains(folder)
    write_whole(folder)
    (folder / "packages").mkdir()
    (folder / "packages" / "runtime").symlink_to(ROOT / "export" / "runtime")
    guest, arm64 = Path(__file__).with_name("arm64_guest.py"), Path(ARM64).resolve()
    paths = f"PYTHONPATH={arm64 / 'site'}:{folder / 'packages'}"
    command = ["qemu-aarch64-static", "-cpu", "neoverse-n1", "-L", str(arm64 / "debian"), "-E", paths]
    command += ["-E", "PYTHONDONTWRITEBYTECODE=1", str(arm64 / "debian/usr/bin/python3"), str(guest), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def of(results: dict[str, Any], against: str, *kinds: str) -> dict[str, dict[str, Any]]:
    """Returns the comparisons of NEON with `against` for the networks whose names begin with one of `kinds`."""
    chosen = {name: found[against] for name, found in results["networks"].items() if name.startswith(kinds or "")}
    assert chosen
    return chosen


def different(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: numbers for name, numbers in found.items() if numbers["differ"]}


def test_arm64_takes_the_neon_kernel(results: dict[str, Any]) -> None:
    assert (results["machine"], results["kernel"]) == ("aarch64", "neon")
    ran = {name.partition("_")[2] for name in results["networks"]}
    assert ran >= {*CONVOLUTIONS, *FLOAT_CONVOLUTIONS}


def test_every_form_of_random_convolutions_has_the_bits_of_the_portable_kernel(results: dict[str, Any]) -> None:
    """Infinities, NaN, -0.0 and the ends of clips too."""
    assert results["wrong"] == []


def test_networks_have_the_bits_of_the_portable_kernel_and_of_any_number_of_threads(results: dict[str, Any]) -> None:
    assert different(of(results, "portable")) == {} and different(of(results, "threads")) == {}


def test_networks_have_the_bits_of_the_stock_runtime_on_arm64(results: dict[str, Any]) -> None:
    """As docs/reference/format.md promises: operators, poolings and chains of them."""
    assert different(of(results, "stock", "op_", "chain_")) == {}


def test_convolutions_of_floats_are_those_of_the_stock_runtime_up_to_rounding(results: dict[str, Any]) -> None:
    """Its matrix product may add in another order there; after a sign, one bit may change all that follows."""
    assert max(found["largest"] for found in of(results, "stock", "float_FloatConv", "float_Inner").values()) < 1e-5
    for name, found in of(results, "stock", "whole_").items():
        assert found["argmax"] >= 0.75, name


def test_x86_gives_the_same_bits(results: dict[str, Any]) -> None:
    assert different(of(results, "x86", "op_", "chain_", "float_")) == {}
    for name, found in of(results, "x86", "whole_").items():
        assert found["argmax"] >= 0.75, name
