"""Recipes for transfer to other classes, as in VID's table 2: from a ResNet-34 of ImageNet to MIT-67 and CUB-200."""

from __future__ import annotations

from typing import Any

__all__ = ["TRANSFER"]

# Neither the workshop version of VID's paper, which has this table, nor what is left of its code gives the schedule or
# the weights of the losses, which were chosen on held-out images. So the schedule is this project's, the weights are
# those of the recipe `cifar10-small`, and LwF's weight is that of LwF's paper.
_TRAIN = {
    "epochs": 100,
    "batch_size": 64,
    "lr": 0.01,
    "weight_decay": 5e-4,
    "precision": "auto",
    "channels_last": True,
}
_MAPS = {"batch_norm": True}
_STUDENTS: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "lwf": {"lwf": {"weight": 1.0, "tau": 2.0}},
    "fitnet": {"fitnet": {"weight": 100.0}},
    "at": {"at": {"weight": 1000.0}},
    "vid-logits": {"vid": {"form": "logits"}},
    "vid-maps": {"vid": {"form": "maps", **_MAPS}},
    "lwf-fitnet": {"lwf": {"weight": 1.0, "tau": 2.0}, "fitnet": {"weight": 100.0}},
    "vid-both": {"vid": {"form": "both", **_MAPS}},
}


def _recipe(data: str, student: str) -> dict[str, Any]:
    """Returns the recipe for a data set and a student's network as a nested dict."""
    return {
        "data": {"name": data, "image_size": 224, "workers": 8},
        "network": {"name": student},
        "scheme": {"binary": False},
        "teacher": "torchvision:resnet34",
        "train": dict(_TRAIN),
        "students": {name: {method: dict(o) for method, o in given.items()} for name, given in _STUDENTS.items()},
    }


def _named(data: str, called: str, student: str) -> tuple[str, tuple[str, dict[str, Any]]]:
    """Returns a recipe as (name, (what it is for, its fields)), an entry of TRANSFER; called: the data set's name."""
    short = student.removeprefix("torchvision:")
    what = (
        f"{called}, a ResNet-34 of ImageNet to {short}: VID's table 2; needs a GPU, --data.root and --teacher_weights "
        "resnet34.pth; with --network.weights FILE the student starts from trained weights."
    )
    return f"{data}-resnet34-{short}", (what, _recipe(data, student))


# Name -> (what it is for, its fields).
TRANSFER: dict[str, tuple[str, dict[str, Any]]] = dict(
    _named(data, called, student)
    for data, called in (("mit67", "MIT-67"), ("cub200", "CUB-200"))
    for student in ("torchvision:resnet18", "vgg9")
)
