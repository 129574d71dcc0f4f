"""BERT for question answering from local folders, and its students: the same architecture with fewer layers."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnn_itrd.errors import UserError, remedy
from bnn_itrd.words import counted

__all__ = ["layer_map", "load_bert", "load_tokenizer", "make_student", "save_bert", "transformers"]


def transformers() -> Any:
    """Imports and returns Hugging Face transformers. Raises UserError where it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            f'question answering needs Hugging Face transformers ({error}): pip install "bnn-itrd[nlp]"'
        ) from error


def layer_map(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Returns, for each student layer i = 1 ... L_s, the teacher layer that it is made from and compared with.

    It is i * L_t / L_s, so the last layers always match, as in TextBrewer (which also matches the embeddings). Layers
    count from 1. Raises UserError unless L_s divides L_t.

    >>> layer_map(6, 12), layer_map(3, 12)
    ((2, 4, 6, 8, 10, 12), (4, 8, 12))
    """
    if student_layers < 1 or teacher_layers % student_layers:
        raise UserError(f"layers must divide the teacher's {teacher_layers}, got {student_layers}")
    step = teacher_layers // student_layers
    return tuple(range(step, teacher_layers + 1, step))


def make_student(teacher: Any, layers: int) -> Any:
    """Returns a new BERT with `layers` layers, whose weights are copies of the teacher's (see `layer_map`).

    Embeddings and answer head are copied too. Raises UserError unless `layers` divides the teacher's number.
    """
    kept = layer_map(layers, len(teacher.bert.encoder.layer))
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = layers
    student = type(teacher)(config)
    student.bert.embeddings.load_state_dict(teacher.bert.embeddings.state_dict())
    for own, number in zip(student.bert.encoder.layer, kept, strict=True):
        own.load_state_dict(teacher.bert.encoder.layer[number - 1].state_dict())
    student.qa_outputs.load_state_dict(teacher.qa_outputs.state_dict())
    return student


def _folder(path: str | Path) -> Path:
    if not Path(path).is_dir():
        raise UserError(f"no folder {path}: give the folder of a BERT saved by transformers (nothing is downloaded)")
    return Path(path)


def load_tokenizer(path: str | Path) -> Any:
    """Returns the tokenizer of a local folder. Raises UserError where there is none."""
    folder = _folder(path)
    try:
        # Without local_files_only the library would search the network for a missing tokenizer.
        return transformers().AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"no tokenizer in {folder}: {_first_line(error)}") from error


def load_bert(path: str | Path, *, random_init: bool = False, fine_tuned: bool = False) -> Any:
    """Returns the BertForQuestionAnswering of a local folder; nothing is downloaded.

    random_init: reads only config.json, and draws the weights from torch's random numbers. fine_tuned: refuses weights
    without an answer head (otherwise a missing head is drawn, since a pre-trained BERT has none).
    Raises UserError where the folder is missing or holds no BERT, and where weights are missing or of another shape.
    """
    folder, library = _folder(path), transformers()
    try:
        config = library.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        if config.model_type != "bert":
            raise UserError(f"{folder} holds a model of type {config.model_type!r}: only 'bert' is supported")
        if random_init:
            return library.BertForQuestionAnswering(config)
        model, info = library.BertForQuestionAnswering.from_pretrained(
            str(folder), local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder} cannot be read as a BERT: {_first_line(error)}") from error
    missing = sorted(info["missing_keys"])
    body = [name for name in missing if not name.startswith("qa_outputs.")]
    if body:
        raise UserError(f"{folder} lacks {counted(len(body), 'weight')} of a BERT: {', '.join(body[:3])}, ...")
    if fine_tuned and missing:
        raise UserError(
            f"{folder} has no answer head: it is a pre-trained BERT, not a fine-tuned teacher; give it as --pretrained"
        )
    return model


def save_bert(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Writes a folder that `load_bert` and transformers can read. Raises UserError where it cannot be written."""
    try:
        with torch.no_grad():
            model.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}. {remedy(error, 'Choose another --out')}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
