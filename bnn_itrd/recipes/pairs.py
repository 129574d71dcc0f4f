"""Recipes for pairs of a teacher and a smaller student, as in ITRD's table 1 (CIFAR-100) and figure 2 (ImageNet)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["CIFAR100", "PAIRS", "Pair"]


@dataclass(frozen=True)
class Pair:
    """A pair of networks, teacher and student, which is a column of ITRD's table 1.

    cross: whether they are of different families, such as a VGG and a MobileNet.

    >>> Pair("vgg13", "vgg8").name
    'cifar100-vgg13-vgg8'
    """

    teacher: str
    student: str
    cross: bool = False

    @property
    def alpha(self) -> float:
        """ITRD's alpha for this pair: 1.01, or 1.5 for networks of different families."""
        return 1.5 if self.cross else 1.01

    @property
    def name(self) -> str:
        """The name of the pair's recipe."""
        return f"cifar100-{self.teacher}-{self.student}"

    def describe(self) -> str:
        """Returns what the pair's recipe is for, in one line."""
        kind = "of another family" if self.cross else "of the same family"
        return (
            f"CIFAR-100, {self.teacher} to {self.student} ({kind}), 240 epochs: a column of ITRD's table 1; for a GPU."
        )

    def recipe(self) -> dict[str, Any]:
        """Returns the recipe that trains the pair's teacher and its students, as a nested dict."""
        network: dict[str, Any] = {"name": self.student, "teacher": self.teacher}
        for field, builder in (("shortcut", self.student), ("teacher_shortcut", self.teacher)):
            if builder in _PUBLISHED_WITH_PROJECTIONS:
                network[field] = "projection"
        return {
            "data": {"name": "cifar100"},
            "network": network,
            "scheme": {"binary": False},
            "teacher_train": _training(self.teacher),
            "train": _training(self.student),
            "students": _students(self),
        }


# The pairs of Miles et al. 2022, table 1, in the order of its columns.
CIFAR100 = (
    Pair("wrn_40_2", "wrn_16_2"),
    Pair("wrn_40_2", "wrn_40_1"),
    Pair("resnet56", "resnet20"),
    Pair("resnet110", "resnet20"),
    Pair("resnet110", "resnet32"),
    Pair("resnet32x4", "resnet8x4"),
    Pair("vgg13", "vgg8"),
    Pair("vgg13", "mobilenet_v2_half", cross=True),
    Pair("resnet50", "mobilenet_v2_half", cross=True),
    Pair("resnet50", "vgg8", cross=True),
    Pair("resnet32x4", "shufflenet_v1", cross=True),
    Pair("resnet32x4", "shufflenet_v2", cross=True),
    Pair("wrn_40_2", "shufflenet_v1", cross=True),
)
# Networks whose shortcuts are projections in the table's paper, but not by default in this package. The table's other
# networks have projections by default, or offer no choice of shortcuts.
_PUBLISHED_WITH_PROJECTIONS = ("resnet20", "resnet32", "resnet56", "resnet110")
# Networks that are trained at a learning rate of 0.01 instead of 0.05.
_SMALL_RATE = ("mobilenet_v2_half", "shufflenet_v1", "shufflenet_v2")


def _training(network: str) -> dict[str, Any]:
    """Returns the fields of a network's training, which all methods of ITRD's table 1 share (Tian et al. 2020)."""
    return {
        "epochs": 240,
        "batch_size": 64,
        "lr": 0.01 if network in _SMALL_RATE else 0.05,
        "schedule": "step",
        "milestones": [150, 180, 210],
        "decay": 0.1,
        "weight_decay": 5e-4,
        "warmup_epochs": 0,
    }


# (teacher, student) -> the weight of ReviewKD's loss, from the script of Chen, Liu et al. 2021. Other pairs get the
# default, because the script has no weight for VGGs, for ResNet-50, and for ResNet-110 to ResNet-20.
_REVIEWKD = {
    ("wrn_40_2", "wrn_16_2"): 5.0,
    ("wrn_40_2", "wrn_40_1"): 5.0,
    ("wrn_40_2", "shufflenet_v1"): 5.0,
    ("resnet32x4", "resnet8x4"): 5.0,
    ("resnet32x4", "shufflenet_v1"): 5.0,
    ("resnet32x4", "shufflenet_v2"): 8.0,
    ("resnet56", "resnet20"): 0.6,
    ("resnet110", "resnet32"): 1.0,
}
# (teacher, student) -> DKD's beta, the weight of the classes that are not the label, from the configurations of Zhao et
# al. 2022. It is 8 for other pairs, as there. Of the table's pairs, they have no configuration for ResNet-110 to
# ResNet-20 and for ResNet-50 to VGG-8.
_DKD_BETA = {
    ("wrn_40_2", "wrn_16_2"): 6.0,
    ("wrn_40_2", "wrn_40_1"): 6.0,
    ("vgg13", "vgg8"): 6.0,
    ("vgg13", "mobilenet_v2_half"): 6.0,
    ("resnet56", "resnet20"): 2.0,
    ("resnet110", "resnet32"): 2.0,
}


def _students(pair: Pair) -> dict[str, Any]:
    """Returns the students of a pair, name -> fields: one for each row of table 1 in ITRD's paper, and three more.

    The three are SRD, DKD, and both together, from a poster (Miles and Mikolajczyk, AAAI 2024). The losses have the
    weights that were published for the pair, if there are any. Otherwise ITRD's are from its eq. 10 and sec. 5.1,
    WCoRD's from its paper, and the others from the scripts of RepDistiller (Tian et al. 2020). As there, FT's
    paraphraser (a small network that it trains before the student) has a learning rate of 0.01 for residual students,
    and else the student's.
    """
    networks = (pair.teacher, pair.student)
    dkd = {"weight": 1.0, "alpha": 1.0, "beta": _DKD_BETA.get(networks, 8.0), "tau": 4.0, "warmup_epochs": 20}
    srd = {"weight": 2.0, "exponent": 4.0}
    paraphraser = {"preparation_lr": 0.01} if pair.student.startswith(("resnet", "wrn")) else {}
    return {
        "plain": {},
        "kd": {"ce": 0.1, "kd": {"weight": 0.9, "tau": 4.0}},
        "fitnet": {"fitnet": {"weight": 100.0}},
        "at": {"at": {"weight": 1000.0}},
        "sp": {"sp": {"weight": 3000.0}},
        "cc": {"cc": {"weight": 0.02}},
        "rkd": {"rkd": {"weight": 1.0, "distance": 25.0, "angle": 50.0}},
        "pkt": {"pkt": {"weight": 30000.0}},
        "ft": {"ft": {"weight": 200.0, "preparation_epochs": 30, **paraphraser}},
        "nst": {"nst": {"weight": 50.0}},
        "crd": {"crd": {"weight": 0.8, "negatives": 16384, "temperature": 0.07, "momentum": 0.5}},
        "wcord": {"wcord": {"weight": 1.0, "negatives": 16384, "temperature": 0.07, "momentum": 0.5}},
        "reviewkd": {"reviewkd": {"weight": _REVIEWKD.get(networks, 1.0), "warmup_epochs": 20}},
        "corr": {"itrd": {"alpha": pair.alpha, "beta_corr": 2.0, "beta_mi": 0.0}},
        "itrd": {"itrd": {"alpha": pair.alpha, "beta_corr": 2.0, "beta_mi": 1.0}},
        "srd": {"srd": dict(srd)},
        "dkd": {"dkd": dict(dkd)},
        "srd-dkd": {"srd": dict(srd), "dkd": dict(dkd)},
    }


# Students of the SRD poster, which ITRD's table does not have.
_OF_THE_POSTER = ("srd", "dkd", "srd-dkd")


def _small() -> dict[str, Any]:
    """Returns the recipe of a small version of ITRD's table 1, which two CPU cores can train.

    It is ResNet-56 to ResNet-20 on 5,000 images of CIFAR-10 at 16x16, for 50 epochs. The preparations and warm-ups of
    distillers keep about their share of the epochs. CRD and WCoRD compare an image with fewer others (negatives).
    """
    tree = Pair("resnet56", "resnet20").recipe()
    tree["data"] = {"name": "cifar10", "per_class": 500, "image_size": 16, "crop_padding": 2}
    for field in ("teacher_train", "train"):
        tree[field] |= {"epochs": 50, "milestones": [31, 38, 44], "eval_every": 50}
    tree["train"]["clip_norm"] = 5.0  # without it, FitNet and FT diverge with some seeds at their published weights
    students = {name: options for name, options in tree["students"].items() if name not in _OF_THE_POSTER}
    students["ft"]["ft"]["preparation_epochs"] = 6
    for name, options in students.items():
        for method in ("crd", "wcord"):
            if method in options:
                students[name][method]["negatives"] = 4096
    students["reviewkd"]["reviewkd"]["warmup_epochs"] = 4
    return {**tree, "students": students, "log": {"tensorboard": False, "progress": False}}


def _imagenet(*, binary: bool) -> dict[str, Any]:
    """Returns the recipe for ImageNet, torchvision's ResNet-34 to ResNet-18, with the training of ITRD's sec. 5.1.

    That is torchdistill's standard training. binary: whether the student is binary.
    """
    train = {
        "epochs": 100,
        "batch_size": 256,
        "lr": 0.1,
        "schedule": "step",
        "milestones": [30, 60, 90],
        "decay": 0.1,
        "weight_decay": 1e-4,
        "warmup_epochs": 0,
    }
    kd = {"ce": 0.1, "kd": {"weight": 0.9, "tau": 4.0}}
    itrd = {"itrd": {"alpha": 1.01, "beta_corr": 2.0, "beta_mi": 1.0}}
    return {
        "data": {"name": "imagenet", "image_size": 224, "workers": 8},
        "network": {"name": "torchvision:resnet18"},
        "scheme": {"binary": binary, "weight": "recu", "activation": "recu"},
        "teacher": "torchvision:resnet34",
        "teacher_train": dict(train),
        "train": train,
        # CRD is left out, because its memory of the features of 1.3 million images would take 1.3 GB.
        "students": {"plain": {}, "kd": kd, "itrd": itrd},
    }


_HOW = "give --data.root, --teacher_weights resnet34.pth and --fabric.devices"
# Name -> (what it is for, its fields).
PAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    **{pair.name: (pair.describe(), pair.recipe()) for pair in CIFAR100},
    "small-itrd-1": (
        "ITRD's table 1 for two cores: ResNet-56 to ResNet-20, 5,000 images of CIFAR-10 at 16x16, 50 epochs; "
        "bnn-itrd table itrd-1 --scale small --missing prints its commands, with a teacher of all images.",
        _small(),
    ),
    "imagenet-resnet34-resnet18": (
        f"ImageNet, torchvision's ResNet-34 to ResNet-18, 100 epochs on several GPUs; {_HOW}.",
        _imagenet(binary=False),
    ),
    "imagenet-resnet34-resnet18-binary": (
        f"ImageNet, torchvision's ResNet-34 to a binary ResNet-18, 100 epochs on several GPUs; {_HOW}.",
        _imagenet(binary=True),
    ),
}
