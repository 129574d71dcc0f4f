"""Distillation losses: tensors in, a scalar out."""

from .at import AT, at_loss
from .cc import CC, cc_consecutive_loss, cc_loss
from .correlation import correlation_loss
from .dkd import DKD, dkd_loss
from .fitnet import FitNet, hint_loss
from .itrd import ITRD
from .kd import KD, soft_kl
from .mutual_information import mutual_information_loss
from .nst import nst_loss
from .pkt import pkt_loss
from .renyi import renyi_entropy, renyi_mutual_information
from .rkd import RKD, rkd_angle_loss, rkd_distance_loss
from .sp import sp_loss

__all__ = [
    "AT",
    "CC",
    "DKD",
    "ITRD",
    "KD",
    "RKD",
    "FitNet",
    "at_loss",
    "cc_consecutive_loss",
    "cc_loss",
    "correlation_loss",
    "dkd_loss",
    "hint_loss",
    "mutual_information_loss",
    "nst_loss",
    "pkt_loss",
    "renyi_entropy",
    "renyi_mutual_information",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "soft_kl",
    "sp_loss",
]
