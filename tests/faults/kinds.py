"""The kinds of files that are damaged: how good ones are made, what is done to them, what opening them must give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faults import exports, pictures, states, texts

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    prepare(folder) makes the good ones; mutate(folder, rng) gives a damaged one, (name, bytes, how it was made);
    open(file, folder, how, number) returns how it ended, and raises `Silent` on another answer. Whatever else it
    raises is what a user would see.
    """

    prepare: Callable[[Path], None]
    mutate: Callable[[Path, np.random.Generator], tuple[str, bytes, str]]
    open: Callable[[Path, Path, str, int], str]


KINDS = {
    "onnx": Kind(exports.prepare_onnx, exports.mutate_onnx, exports.open_onnx),
    "tflite": Kind(exports.prepare_tflite, exports.mutate_tflite, exports.open_tflite),
    "checkpoints": Kind(states.prepare, states.mutate, states.open_checkpoint),
    "images": Kind(pictures.prepare, pictures.mutate, pictures.open_image),
    "yaml": Kind(texts.prepare_yaml, texts.mutate_yaml, texts.open_yaml),
    "json": Kind(texts.prepare_json, texts.mutate_json, texts.open_json),
    "states": Kind(texts.prepare_states, texts.mutate_states, texts.open_states),
}
