"""A script that `environments.call` runs in the environment of qonnx; it executes a file or computes its cost."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["main"]


def _run(images: np.ndarray, arguments: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Executes the file batch by batch; returns the logits and the tensors in ``watched`` by name, and no results."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.change_batchsize import ChangeBatchSize
    from qonnx.transformation.infer_shapes import InferShapes

    watched, size = dict(arguments["watched"]), arguments["batch_size"]
    parts: dict[str, list[np.ndarray]] = {"logits": [], **{name: [] for name in watched}}
    model, prepared = None, 0
    for start in range(0, len(images), size):
        batch = np.ascontiguousarray(images[start : start + size])
        if len(batch) != prepared:
            model = ModelWrapper(arguments["path"]).transform(ChangeBatchSize(len(batch))).transform(InferShapes())
            prepared = len(batch)
        assert model is not None
        values = execute_onnx(model, {model.graph.input[0].name: batch}, return_full_exec_context=bool(watched))
        parts["logits"].append(values[model.graph.output[0].name])
        for name, scale in watched.items():
            # The tensor holds the scale times signs or integers.
            step = model.get_initializer(scale) if scale else np.float32(1)
            parts[name].append(np.rint(values[name] / step).astype(np.int16))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}, {}


def _cost(arguments: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns no arrays, and the counts of qonnx's inference_cost for the file."""
    from qonnx.util.inference_cost import inference_cost

    total = inference_cost(arguments["path"], discount_sparsity=False)["total_cost"]
    # The other entries are no numbers, or repeat the option discount_sparsity.
    return {}, {key: float(value) for key, value in total.items() if key.startswith(("total_", "op_mac_", "mem_"))}


def main(arrays: dict[str, np.ndarray], arguments: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns (arrays, results) for the task in ``arguments["task"]``, ``run`` or ``cost``, on the file ``path``.

    ``run`` executes the file on the array ``images`` in batches of ``batch_size``. It returns the array ``logits``, and
    for each entry (tensor's name, name of its scale or "") of ``watched`` an array with that tensor's integers.
    ``cost`` returns the counts of qonnx's inference_cost as results.
    """
    if arguments["task"] == "cost":
        return _cost(arguments)
    return _run(arrays["images"], arguments)
