"""One network of a run and its folder: training it there, and giving it back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric import Fabric
from torch import Tensor, nn

from bnn_itrd.checkpoint import load_checkpoint, write_file
from bnn_itrd.config import MemberConfig, NetworkConfig, SchemeConfig, to_dict
from bnn_itrd.data import ImageData, mix_seed
from bnn_itrd.environment import environment
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.models import find_head
from bnn_itrd.networks import LIBRARIES, build, foreign
from bnn_itrd.quant import load_stage
from bnn_itrd.training import Fitted, fit

__all__ = [
    "FIRST_STAGE",
    "Member",
    "data_identity",
    "load_member",
    "load_teacher",
    "train_member",
    "weights_hash",
    "write_json",
    "write_yaml",
]


# In a member's folder: that of the first of two stages of training.
FIRST_STAGE = "first-stage"


@dataclass(frozen=True)
class Member:
    """A trained network in eval mode. `checkpoint` is None for one from another library; fitted: how it was trained.

    method: 'teacher' or the student's name; network: what it is called ('resnet20', 'torchvision:resnet18');
    other_task: a teacher of other classes, whose answers cannot be compared with those of its students.
    """

    name: str
    model: nn.Module
    method: str
    network: str
    checkpoint: Path | None = None
    fitted: Fitted | None = None
    other_task: bool = False


def write_yaml(path: Path, value: dict[str, Any]) -> None:
    """A nested dict as YAML, written whole or not at all."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    write_file(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """A plain value as indented JSON, written whole or not at all."""
    write_file(path, lambda file: file.write((json.dumps(value, indent=1) + "\n").encode()))


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over a network's state dict, names and values, in hex: the same weights wherever they lie."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def data_identity(data: ImageData) -> dict[str, Any]:
    """What a checkpoint keeps of its data: enough to tell other images, and to normalise as the network learned it."""
    return {
        "classes": list(data.classes),
        "input_shape": list(data.input_shape),
        "train_images": len(data.train),
        "mean": list(data.mean),
        "std": list(data.std),
    }


def train_member(
    config: MemberConfig, data: ImageData, teacher: nn.Module | None, *, fabric: Fabric, out: Path
) -> Member:
    """Trains a member of a run in its folder, or continues it there; UserErrors are `fit`'s and `build`'s.

    Two-stage training: the same network is first trained with the weights of the first stage in `out`/first-stage,
    and begins with what it learned.
    """
    torch.manual_seed(mix_seed(config.train.seed, 0))
    model = build(
        config.network,
        config.scheme,
        num_classes=len(data.classes),
        input_shape=data.input_shape,
    )
    identity = to_dict(config)
    if config.distill.needs_teacher:
        if teacher is None:
            raise UserError(f"{config.name} learns from a teacher: give --teacher PATH, or train it in the same run")
        identity["teacher_sha256"] = weights_hash(teacher)
    identity |= data_identity(data)
    # A run that is past its first stage continues with its own state.
    if (first := config.of_first_stage()) is not None and not (out / "last.pt").exists():
        stage = train_member(first, data, teacher, fabric=fabric, out=out / FIRST_STAGE)
        load_stage(model, stage.model.state_dict())

    def begin() -> None:
        write_yaml(out / "config.yaml", identity)
        write_json(out / "environment.json", environment(fabric.device))

    fitted = fit(
        model,
        teacher,
        data,
        train=config.train,
        distill=config.distill,
        fabric=fabric,
        log=config.log,
        out=out,
        identity=identity,
        title=config.name,
        begin=begin,
    )
    return Member(config.name, fitted.model, config.name, config.network.name, out / "last.pt", fitted)


def _from_identity(identity: dict[str, Any], where: Path) -> nn.Module:
    if "network" not in identity:
        raise UserError(f"{where} was trained on a network of your own: pass it as model=...")
    scheme = identity["scheme"]
    try:
        return build(
            NetworkConfig(**identity["network"]),
            None if scheme is None else SchemeConfig(**scheme),
            num_classes=len(identity["classes"]),
            input_shape=tuple(identity["input_shape"]),
        )
    except TypeError as error:
        raise UserError(f"{where} was written by another version of bnn-itrd: {error}") from error


def find_checkpoint(path: Path, *, prefer: str = "last.pt") -> Path:
    """The checkpoint meant by a path: the file itself, a member's folder, or a run's folder with one student in it."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"no such file or folder: {path}")
    if (path / prefer).is_file():
        return path / prefer
    members = sorted(p.parent.name for p in path.glob(f"*/{prefer}"))
    if members == [FIRST_STAGE]:
        raise UserError(
            f"{path} has finished nothing but its first stage: name {path / FIRST_STAGE} if you mean that one"
        )
    members = [name for name in members if name != "teacher"] or members
    if len(members) == 1:
        return path / members[0] / prefer
    found = f"it holds the runs {', '.join(members)}: name one, {path}/{members[-1]}" if members else "it is empty"
    raise UserError(f"no {prefer} in {path}: {found}" if members else f"no {prefer} in {path}")


def load_member(
    path: Path | str, *, model: nn.Module | None = None, best: bool = False
) -> tuple[nn.Module, dict[str, Any], Path]:
    """(network in eval mode, its identity, its checkpoint) of a run folder or a checkpoint file.

    `model`: the network to fill, where it is not one of ours. `best`: the epoch with the best top-1, not the last.
    Raises UserError: nothing there, a file that is cut or newer, another architecture.
    """
    file = find_checkpoint(Path(path), prefer="best.pt" if best else "last.pt")
    state = load_checkpoint(file)
    if "identity" not in state or "model" not in state:
        raise UserError(f"{file} holds no network of bnn-itrd")
    identity = state["identity"]
    if state.get("epoch") == 0:
        raise UserError(f"{file} is still in the preparation of its distillers: no epoch of training is done yet")
    network = _from_identity(identity, file) if model is None else model
    try:
        network.load_state_dict(state["model"])
    except RuntimeError as error:
        lines = str(error).splitlines()
        detail = "; ".join(line.strip() for line in lines[1:3])
        raise UserError(f"{file} holds another architecture than {type(network).__name__}: {detail}") from error
    return network.eval(), identity, file


class _Renormalise(nn.Module):
    """Images normalised with one mean and standard deviation -> with another; (n, c, h, w) -> the same."""

    scale: Tensor
    offset: Tensor

    def __init__(self, data: ImageData, mean: list[float], std: list[float]) -> None:
        super().__init__()
        have_mean, have_std, want_mean, want_std = (
            torch.tensor(v, dtype=torch.float32).reshape(-1, 1, 1) for v in (data.mean, data.std, mean, std)
        )
        self.register_buffer("scale", have_std / want_std)
        self.register_buffer("offset", (have_mean - want_mean) / want_std)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.offset


def _see_as_trained(model: nn.Module, data: ImageData, identity: dict[str, Any]) -> None:
    """A teacher of another task is shown the images under the statistics of its own training."""
    model.add_module("renormalise", _Renormalise(data, identity["mean"], identity["std"]))
    model.register_forward_pre_hook(lambda module, images: (module.renormalise(images[0]), *images[1:]))


def load_teacher(address: str, weights: str | None, data: ImageData, *, other_classes: bool = False) -> Member:
    """A trained teacher: a run folder (its teacher), a checkpoint, torchvision:NAME or timm:NAME.

    other_classes: it may know others than the data's, for students that do not compare logits with it.
    Raises UserError where it is not there or was trained for other classes or another image shape.
    """
    library, colon, _ = address.partition(":")
    if colon and library in LIBRARIES:
        model, classes = foreign(address, weights, num_classes=len(data.classes), other_classes=other_classes)
        try:
            find_head(model)
        except ValueError as error:
            raise UserError(f"teacher {address}: {error}") from error
        return Member("teacher", model.eval(), "teacher", address, other_task=classes != len(data.classes))
    if colon and not Path(address).exists() and library.isalpha() and len(library) > 1:
        raise unknown("library of teachers", library, LIBRARIES)
    if weights is not None:
        raise UserError(f"teacher_weights belong to torchvision:NAME and timm:NAME; teacher {address} has its own")
    path = Path(address)
    if (path / "teacher").is_dir():
        path = path / "teacher"
    model, identity, file = load_member(path)
    done, planned = load_checkpoint(file).get("epoch"), identity.get("train", {}).get("epochs")
    if done is not None and planned is not None and done < planned and file.name == "last.pt":
        raise UserError(
            f"teacher {file} is at epoch {done} of {planned}: finish its training first, or name its best.pt"
        )
    if identity.get("input_shape") != list(data.input_shape):
        raise UserError(
            f"teacher {file} was trained for input_shape {identity.get('input_shape')}, but the data has "
            f"{list(data.input_shape)}"
        )
    other = identity.get("classes") != list(data.classes)
    if other and not other_classes:
        raise UserError(
            f"teacher {file} was trained for classes {_few(identity.get('classes') or [])}, but the data has "
            f"{_few(data.classes)}: only students without kd, dkd and dist, which compare logits, can learn from it"
        )
    if other:
        _see_as_trained(model, data, identity)
    network = identity["network"]["name"] if "network" in identity else type(model).__name__
    return Member("teacher", model, "teacher", network, file, other_task=other)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{list(names[:8])}{more}"
