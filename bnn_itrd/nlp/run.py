"""Runs question answering: trains a BERT teacher and students with fewer layers, and compares them on SQuAD."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from bnn_itrd.config.trees import to_dict
from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.environment import environment
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.files import write_json, write_yaml
from bnn_itrd.nlp.bert import layer_map, load_bert, load_tokenizer, make_student, save_bert, transformers
from bnn_itrd.nlp.config import SquadConfig, SquadTrainConfig, StudentConfig
from bnn_itrd.nlp.data import SquadData, load_squad
from bnn_itrd.nlp.evaluation import AnswerEvaluation, evaluate_answers
from bnn_itrd.nlp.tiny import write_tiny
from bnn_itrd.nlp.training import fit_reader
from bnn_itrd.runs.identity import weights_hash
from bnn_itrd.runs.lock import run_folder
from bnn_itrd.training.checkpoint import matching_state
from bnn_itrd.training.fabric import make_fabric

__all__ = ["MODEL", "run_squad"]

# The folder for transformers within a network's folder.
MODEL = "model"


@dataclass(frozen=True)
class _Member:
    """A trained network of a run, the teacher or a student: its answers after training, and a row for each epoch."""

    name: str
    model: Any
    final: AnswerEvaluation
    history: list[dict[str, Any]]
    learns: StudentConfig | None = None


def _sources(config: SquadConfig, out: Path, only: str | None) -> tuple[Path, Path, bool]:
    """Returns the folder of the questions, the folder of the first BERT, and whether that BERT is already fine-tuned.

    only: the one network that is to be trained, or None. Raises UserError if the options name no data or no BERT.
    """
    root, begin = config.data.root, config.pretrained
    if config.data.name == "tiny":
        write_tiny(out / "tiny")
        root, begin = root or str(out / "tiny"), begin or str(out / "tiny" / "bert")
    if root is None:
        raise UserError("data.root is missing: give --data.root with the folder of train-v1.1.json and dev-v1.1.json")
    address = config.teacher
    if address is None and only not in (None, "teacher"):
        if not (out / "teacher" / MODEL).is_dir():
            raise UserError(
                f"{only} needs a teacher, and {out} has none: give one with --teacher PATH, or train one there first "
                "(--member teacher)"
            )
        address = str(out)
    if address is not None:
        path = Path(address)
        for inner in (path / "teacher" / MODEL, path / MODEL):  # the path may be a run's folder, or its teacher's
            path = inner if inner.is_dir() else path
        return Path(root), path, True
    if begin is None:
        raise UserError(
            "there is no BERT to start from: give the folder of a pre-trained BERT with --pretrained, or of a "
            "fine-tuned one with --teacher; transformers must have saved it"
        )
    return Path(root), Path(begin), False


def _check(config: SquadConfig, model: Any, data: SquadData) -> None:
    """Raises UserError if the settings do not fit the BERT or the data, before the training would fail of it."""
    bert = model.config
    for name, student in config.students.items():
        try:
            layer_map(student.layers, bert.num_hidden_layers)
        except UserError as error:
            raise UserError(f"students.{name}.{error}") from error
    for field, train in (("teacher_train", config.teacher_train), ("train", config.train)):
        if train.batch_size > len(data.train_windows):
            raise UserError(
                f"{field}.batch_size is {train.batch_size}, but the training questions give only "
                f"{len(data.train_windows)} windows: give a smaller batch"
            )
    if config.data.max_length > bert.max_position_embeddings:
        raise UserError(
            f"data.max_length must be <= {bert.max_position_embeddings}, the largest number of tokens that the BERT "
            f"takes, got {config.data.max_length}"
        )
    if len(data.tokenizer) > bert.vocab_size:
        raise UserError(
            f"the tokenizer has {len(data.tokenizer)} tokens, but the BERT only {bert.vocab_size}: use the tokenizer "
            "that was saved with it"
        )


def run_squad(config: SquadConfig, out: Path, *, recipe: str = "", only: str | None = None) -> dict[str, Any]:
    """Trains the teacher and the students, compares them, and returns the content of comparison.json.

    Networks that are already trained in `out` are not trained again, so the same call continues an interrupted run.
    Nothing is downloaded.

    Args:
        config: all settings
        out: folder of the run
        recipe: name of the recipe, for comparison.json
        only: name of the one network to train ('teacher' or a student), or None for all; a student then needs
            `config.teacher`, or a teacher that was trained in `out` before

    Raises UserError if settings, data and folders do not fit each other.
    """
    if only is not None and only not in ("teacher", *config.students):
        raise unknown("member", only, ["teacher", *config.students])
    transformers()
    root, begin, fine_tuned = _sources(config, out, only)
    tokenizer = load_tokenizer(begin)
    torch.manual_seed(mix_seed(config.teacher_train.seed, 0))  # the answer head, or all weights
    model = load_bert(begin, random_init=config.random_init and not fine_tuned, fine_tuned=fine_tuned)
    data = load_squad(config.data, root, tokenizer)
    _check(config, model, data)
    facts = {"sha256": data.sha256, "tokens": len(data.tokenizer)}
    begun = {**config.identity("teacher"), **facts, "init_sha256": weights_hash(model)}
    _check_folder(config, out, begun, facts, fine_tuned)
    with run_folder(out, only):
        return _train_and_compare(
            config, model, data, begun, facts, out=out, recipe=recipe, only=only, fine_tuned=fine_tuned
        )


def _train_and_compare(
    config: SquadConfig,
    model: Any,
    data: SquadData,
    begun: dict[str, Any],
    facts: dict[str, Any],
    *,
    out: Path,
    recipe: str,
    only: str | None,
    fine_tuned: bool,
) -> dict[str, Any]:
    """Trains the teacher, which starts as `model`, and then its students; returns the content of comparison.json.

    begun: the settings that must be equal when the teacher's training is resumed; facts: the part of them about the
    data, which the students share; fine_tuned: whether `model` is already a teacher, which is then not trained.
    """
    write_yaml(out / "config.yaml", {"recipe": recipe, "task": "squad", **to_dict(config)})
    fabric = make_fabric(config.fabric, precision=config.train.precision)
    if fine_tuned:
        model = model.to(fabric.device).eval()
        teacher = _Member("teacher", model, evaluate_answers(model, data, device=fabric.device), [])
    else:
        first = fabric
        if config.teacher_train.precision != config.train.precision:
            first = make_fabric(config.fabric, precision=config.teacher_train.precision)
        teacher = _train("teacher", model, None, config, config.teacher_train, StudentConfig(), data, first, out, begun)
    members = [teacher]
    for name in config.students if only is None else [only]:
        if name != "teacher":
            learns = config.students[name]
            identity = {**config.identity(name), **facts, "teacher_sha256": weights_hash(teacher.model)}
            student = make_student(teacher.model, learns.layers)
            members.append(
                _train(name, student, teacher.model, config, config.train, learns, data, fabric, out, identity)
            )
    comparison = _compare(members, data, config, recipe, fabric)
    if only is None:
        write_json(out / "comparison.json", comparison)
    return comparison


def _check_folder(
    config: SquadConfig, out: Path, begun: dict[str, Any], facts: dict[str, Any], fine_tuned: bool
) -> None:
    """Raises UserError if the folder has a run with other settings; called before anything in it is changed."""
    for name in ("teacher", *config.students):
        last = out / name / "last.pt"
        if last.exists() and not (name == "teacher" and fine_tuned):
            given = begun if name == "teacher" else {**config.identity(name), **facts}
            matching_state(last, given, later=("teacher_sha256",))  # it is known only after the teacher's training


def _train(
    name: str,
    model: Any,
    teacher: Any,
    config: SquadConfig,
    train: SquadTrainConfig,
    learns: StudentConfig,
    data: SquadData,
    fabric: Fabric,
    out: Path,
    identity: dict[str, Any],
) -> _Member:
    """Trains one network, the teacher or a student, in its folder `out`/`name`.

    It writes there the answers to the dev questions, and a folder `model` that transformers can read. `identity` has
    the settings that must be equal when the training is resumed.
    """
    folder = out / name
    if not (folder / "last.pt").exists():
        write_yaml(folder / "config.yaml", identity)
        write_json(folder / "environment.json", _environment(fabric))
    fitted = fit_reader(
        model,
        teacher,
        data,
        train=train,
        learns=learns,
        fabric=fabric,
        log=config.log,
        out=folder,
        identity=identity,
        title=name,
    )
    write_json(folder / "predictions.json", fitted.final.predictions())
    best = {key: [dataclasses.asdict(a) for a in found] for key, found in fitted.final.answers.items()}
    write_json(folder / "nbest.json", best)
    save_bert(model, data.tokenizer, folder / MODEL)
    return _Member(name, fitted.model, fitted.final, fitted.history, None if name == "teacher" else learns)


def _environment(fabric: Fabric) -> dict[str, Any]:
    return {**environment(fabric.device), "transformers": transformers().__version__}


def _compare(
    members: list[_Member], data: SquadData, config: SquadConfig, recipe: str, fabric: Fabric
) -> dict[str, Any]:
    """Returns the content of comparison.json; the first of `members`, the trained networks, is the teacher.

    Each network has its exact match and F1 after the last epoch, and of the epoch with the best F1.
    """
    teacher = members[0]
    rows = []
    for member in members:
        layers = member.model.config.num_hidden_layers
        best = max(member.history, key=lambda row: row["f1"], default=None)
        mapped = member.learns is not None and (member.learns.itrd or member.learns.hidden) is not None
        rows.append(
            {
                "name": member.name,
                "network": f"bert-{layers}",
                "layers": layers,
                "teacher_layers": list(layer_map(layers, teacher.model.config.num_hidden_layers)) if mapped else None,
                "parameters": sum(p.numel() for p in member.model.parameters()),
                "epochs": len(member.history) or None,
                "em_last": member.final.em,
                "f1_last": member.final.f1,
                "em_best": None if best is None else best["em"],
                "f1_best": None if best is None else best["f1"],
            }
        )
    return {
        "task": "squad",
        "recipe": recipe,
        "dataset": data.describe(),
        "models": rows,
        "environment": _environment(fabric),
        "config": to_dict(config),
    }
