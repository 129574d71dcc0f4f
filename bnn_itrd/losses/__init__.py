"""Distillation losses: tensors in, a scalar out."""

from .correlation import correlation_loss
from .itrd import ITRD
from .kd import KD, soft_kl
from .mutual_information import mutual_information_loss
from .renyi import renyi_entropy, renyi_mutual_information

__all__ = [
    "ITRD",
    "KD",
    "correlation_loss",
    "mutual_information_loss",
    "renyi_entropy",
    "renyi_mutual_information",
    "soft_kl",
]
