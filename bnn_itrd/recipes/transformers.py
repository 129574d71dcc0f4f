"""Recipes for transformers on ImageNet: timm's RegNetY-160 teaches DeiT-Ti and DeiT-S, as in the SRD poster."""

from __future__ import annotations

from typing import Any

__all__ = ["TRANSFORMERS"]

# The training of DeiT (Touvron et al. 2021, table 9), as far as this package has fields for it: 300 epochs, AdamW with
# a learning rate of 5e-4 for each 512 images of a batch, mixup 0.8, CutMix 1, label smoothing 0.1. TrivialAugment is
# used instead of RandAugment. Random erasing, stochastic depth and repeated augmentation are missing.
_TRAIN = {
    "epochs": 300,
    "batch_size": 1024,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.05,
    "weight_decay_of": "weights",
    "warmup_epochs": 5,
    "label_smoothing": 0.1,
    "trivial_augment": True,
    "mixup": 0.8,
    "cutmix": 1.0,
    "precision": "auto",
    "eval_every": 10,
}


def _recipe(student: str) -> dict[str, Any]:
    """Returns the recipe for a student, ``deit_tiny`` or ``deit_small``, as a nested dict."""
    return {
        "data": {"name": "imagenet", "image_size": 224, "workers": 16},
        "network": {"name": f"timm:{student}_patch16_224"},
        "scheme": {"binary": False},
        # The tag after the dot names the weights that taught DeiT. Without a tag, timm means weights that were trained
        # on ImageNet-12k as well.
        "teacher": "timm:regnety_160.deit_in1k",
        "train": dict(_TRAIN),
        "students": {"plain": {}, "srd": {"srd": {"weight": 2.0, "exponent": 4.0}}},
    }


# Name -> (what it is for, its fields). The hours are those that `bnn-itrd table srd-1 --missing` expects, from the
# number of multiplications.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    f"imagenet-regnety_160-{student}": (
        f"ImageNet, timm's RegNetY-160 to its {called} by SRD, 300 epochs: the SRD poster's table 1; {hours} hours on "
        "an H100 are expected; needs timm, --data.root and --teacher_weights regnety_160.deit_in1k.pth.",
        _recipe(student),
    )
    for student, called, hours in (("deit_tiny", "DeiT-Ti", "29"), ("deit_small", "DeiT-S", "43"))
}
