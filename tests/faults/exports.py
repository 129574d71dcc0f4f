"""Exported files, damaged: ONNX and .tflite.

A changed file is refused, or gives the answers of the good one. One that is sealed again is another network, since a
seal is no signature; but then the native library and a stock onnxruntime must still give the same answers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from helpers import write_npz

from faults.mutations import mutate_bytes, mutate_message, mutate_object, mutate_operators
from faults.outcomes import OPENED, REFUSED, Silent, run_command

__all__ = ["mutate_onnx", "mutate_tflite", "open_onnx", "open_tflite", "prepare_onnx", "prepare_tflite"]

# Those of the tiny data set of `helpers.write_npz`.
SHAPE, CLASSES = (3, 8, 8), ["class0", "class1", "class2"]
_NORMALIZATION = ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
# A case in so many also goes through what takes longer: another process, a whole data set.
_SELDOM = 25


def small_network(*, prelu: bool = False) -> Any:
    """A trained-looking network of a few layers whose binary part becomes one chain."""
    import torch
    from torch import nn

    from bnn_itrd.quant import BinaryConv2d

    torch.manual_seed(0)
    bend = nn.PReLU(8) if prelu else nn.Hardtanh()
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardtanh(),
        BinaryConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), bend,
        nn.AvgPool2d(2), BinaryConv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip
    network.train()(torch.randn(16, *SHAPE))
    return network.eval()


def _images(kind: type = np.float32) -> np.ndarray:
    rng = np.random.default_rng(1)
    if kind is np.uint8:
        return rng.integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    return rng.standard_normal((4, *SHAPE), np.float32)


def prepare_onnx(folder: Path) -> None:
    """Writes an ONNX file of each form, the logits of each, and an image."""
    from PIL import Image

    from bnn_itrd.export import to_onnx

    write_npz(folder / "tiny.npz")
    common: dict[str, Any] = {"input_shape": SHAPE, "normalization": _NORMALIZATION, "classes": CLASSES}
    common["metadata"] = {"dataset": "cifar10"}
    network, other = small_network(), small_network(prelu=True)
    to_onnx(network, folder / "chain.onnx", **common)
    to_onnx(other, folder / "single.onnx", chains=False, **common)
    to_onnx(network, folder / "raw.onnx", bake_normalization=True, **common)
    to_onnx(other, folder / "standard.plain.onnx", functions=False, **common)
    for file in folder.glob("*.onnx"):
        np.savez(file.with_suffix(".logits.npz"), native=_logits(file, None), stock=_logits(file, False))
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / "image.png")


def _logits(file: Path, native: bool | None) -> np.ndarray:
    from bnn_itrd.export import predict_file, session

    opened = session(file, native=native)
    kind = np.uint8 if opened.get_inputs()[0].type == "tensor(uint8)" else np.float32
    return predict_file(opened, _images(kind))


def _sealed_again(model: Any) -> bytes | None:
    """The file with a checksum that fits; None where there is no place for one."""
    from bnn_itrd.export import ExportError
    from bnn_itrd.export.runtime.checksum import NO_DIGEST, seal

    for entry in model.metadata_props:
        if entry.key == "sha256":
            entry.value = NO_DIGEST
    try:
        return seal(model.SerializeToString())
    except ExportError:
        return None


def mutate_onnx(folder: Path, rng: np.random.Generator) -> tuple[str, bytes, str]:
    """Damages bytes, or fields of the protobuf with or without a new seal."""
    import onnx

    files = sorted(folder.glob("*.onnx"))
    file = files[int(rng.integers(len(files)))]
    data, how = file.read_bytes(), str(rng.choice(["bytes", "bytes", "bytes", "fields", "resealed", "resealed"]))
    if how == "bytes":
        return file.name, mutate_bytes(data, rng), how
    model = onnx.load_model_from_string(data)
    operators = any(node.domain and node.attribute for node in model.graph.node)
    if operators and rng.random() < 0.4:
        mutate_operators(model, rng)
    else:
        mutate_message(model, rng)
    again = _sealed_again(model) if how == "resealed" else None
    return file.name, again or model.SerializeToString(), "resealed" if again else "fields"


def open_onnx(path: Path, folder: Path, how: str, number: int) -> str:
    """Opens it as `predict` does, and with the native library and without it."""
    from bnn_itrd.export import ExportError

    status, _ = run_command("predict", path, folder / "image.png")
    if number % _SELDOM == 0:
        run_command("evaluate", path, f"--data.root={folder / 'tiny.npz'}")
        run_command("bench", path, "--repeats=1")
    good = next(f for f in folder.glob("*.onnx") if path.name.endswith(f.name))
    plain = good.name.endswith(".plain.onnx")
    try:
        native, stock = _logits(path, None if plain else True), _logits(path, False)
    except (ExportError, ValueError):
        return REFUSED
    if how == "resealed":
        if not np.array_equal(native, stock, equal_nan=True):
            raise Silent(f"native and stock differ by {np.nanmax(np.abs(native - stock)):.3g}")
        return OPENED if status == 0 else REFUSED
    with np.load(good.with_suffix(".logits.npz")) as expected:
        if native.tobytes() != expected["native"].tobytes() or stock.tobytes() != expected["stock"].tobytes():
            raise Silent("a changed file opened and gave other logits")
    return OPENED


# .tflite


def prepare_tflite(folder: Path) -> None:
    """Writes a .tflite file."""
    from bnn_itrd.export.lce import to_lce

    write_npz(folder / "tiny.npz")
    to_lce(small_network(), folder / "good.tflite", input_shape=SHAPE, normalization=_NORMALIZATION, classes=CLASSES)


def mutate_tflite(folder: Path, rng: np.random.Generator) -> tuple[str, bytes, str]:
    """Damages bytes, or fields of the flatbuffer with or without a new seal."""
    data = (folder / "good.tflite").read_bytes()
    if rng.random() < 0.5:
        return "good.tflite", mutate_bytes(data, rng), "bytes"
    packed = _packed_again(data, rng)
    if packed is None:  # the schema itself refused what was put in
        return "good.tflite", mutate_bytes(data, rng), "bytes"
    return ("good.tflite", *packed)


def _packed_again(data: bytes, rng: np.random.Generator) -> tuple[bytes, str] | None:
    import json

    import flatbuffers

    from bnn_itrd.export.lce.schema import load_schema
    from bnn_itrd.export.runtime.checksum import NO_DIGEST, seal

    model = load_schema().ModelT.InitFromPackedBuf(data, 0)
    place = next(model.buffers[m.buffer] for m in model.metadata if m.name == b"bnn_itrd")
    resealed = rng.random() < 0.8
    if resealed:
        known = json.loads(bytes(place.data))
        place.data = np.frombuffer(json.dumps({**known, "sha256": NO_DIGEST}).encode(), np.uint8)
    try:
        mutate_object(model, rng)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        packed = bytes(builder.Output())
        return (seal(packed), "resealed") if resealed else (packed, "fields")
    except Exception:
        return None


def open_tflite(path: Path, folder: Path, how: str, number: int) -> str:
    """Reads it as every command does; now and then LCE's interpreter runs it, where its environment is there."""
    from bnn_itrd.export import ExportError
    from bnn_itrd.export.lce import read_lce_metadata, run_lce
    from bnn_itrd.export.runtimes import environments

    try:
        known = read_lce_metadata(path)
    except ExportError:
        return REFUSED
    if how != "resealed" and known != read_lce_metadata(folder / "good.tflite"):
        raise Silent("a changed file was read as another")
    if how != "resealed" and path.read_bytes() != (folder / "good.tflite").read_bytes():
        raise Silent("a changed file was read")
    if number % _SELDOM == 0:
        run_command("evaluate", path, "--data.name=cifar10", f"--data.root={folder / 'tiny.npz'}")
    there = os.environ.get("BNN_ITRD_CAMPAIGN_LCE") != "0" and environments.find("lce") is not None
    if there and number % _SELDOM == 0:
        try:
            run_lce(path, _images())
        except (ExportError, ValueError):
            return REFUSED
    return OPENED
