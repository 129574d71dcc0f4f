"""Loads a BERT for question answering from a local folder, saves it, and makes students of it with fewer layers."""

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
    """Imports and returns the library Hugging Face transformers; raises UserError if it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            f'question answering needs Hugging Face transformers ({error}): pip install "bnn-itrd[nlp]"'
        ) from error


def layer_map(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Returns, for each layer of the student, the number of the teacher layer it is copied from and compared with.

    Layers count from 1. Student layer i gets teacher layer i * teacher_layers / student_layers, so that the last layers
    always match, as in TextBrewer. Raises UserError unless student_layers divides teacher_layers.

    >>> layer_map(6, 12), layer_map(3, 12)
    ((2, 4, 6, 8, 10, 12), (4, 8, 12))
    """
    if student_layers < 1 or teacher_layers % student_layers:
        raise UserError(f"layers must divide the teacher's {teacher_layers}, got {student_layers}")
    step = teacher_layers // student_layers
    return tuple(range(step, teacher_layers + 1, step))


def make_student(teacher: Any, layers: int) -> Any:
    """Returns a new BERT with `layers` layers, each a copy of one of the teacher's layers (see `layer_map`).

    The embeddings and the answer head, which gives the start and end logits, are copied too. `teacher` is a
    BertForQuestionAnswering. Raises UserError unless `layers` divides the teacher's number of layers.
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
        raise UserError(
            f"there is no folder {path}: give a folder to which transformers has saved a BERT (nothing is downloaded)"
        )
    return Path(path)


def load_tokenizer(path: str | Path) -> Any:
    """Returns the tokenizer that transformers saved in a local folder; raises UserError if it cannot be loaded."""
    folder = _folder(path)
    try:
        # Without local_files_only the library would search the network for a missing tokenizer.
        return transformers().AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"no tokenizer can be loaded from {folder} ({_first_line(error)}): save the BERT's tokenizer there, with "
            "its save_pretrained"
        ) from error


def load_bert(path: str | Path, *, random_init: bool = False, fine_tuned: bool = False) -> Any:
    """Returns the BertForQuestionAnswering that transformers saved in a local folder; nothing is downloaded.

    A pre-trained BERT has no answer head (the layer that gives start and end logits): it gets one with random weights.

    Args:
        path: the folder
        random_init: read only config.json, and draw all weights at random
        fine_tuned: raise UserError if the answer head is missing

    Raises UserError if the folder is missing or has no BERT, or if weights are missing or have another shape.
    """
    folder, library = _folder(path), transformers()
    try:
        config = library.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        if config.model_type != "bert":
            raise UserError(f"{folder} has a model of type {config.model_type!r}, but only 'bert' is supported")
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
        raise UserError(
            f"{folder} lacks {counted(len(body), 'weight')} of a BERT ({', '.join(body[:3])}, ...): save the whole "
            "model there"
        )
    if fine_tuned and missing:
        raise UserError(
            f"{folder} has no answer head (the layer qa_outputs), so it is a pre-trained BERT and no fine-tuned "
            "teacher: give it as --pretrained"
        )
    return model


def save_bert(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Saves a BERT and its tokenizer in a folder that `load_bert` and transformers can read.

    Raises UserError if the folder cannot be written.
    """
    try:
        with torch.no_grad():
            model.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}. {remedy(error, 'Choose another --out')}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
