"""Distillation losses: tensors in, a scalar out."""

from .ab import AB, ab_loss
from .at import AT, at_loss
from .cc import CC, cc_consecutive_loss, cc_loss
from .correlation import correlation_loss
from .crd import CRD, crd_loss
from .dist import DIST, dist_loss
from .dkd import DKD, dkd_loss
from .fitnet import FitNet, hint_loss
from .fsp import FSP, fsp_matrix
from .ft import FT, factor_loss
from .ickd import ICKD, ickd_loss
from .itrd import ITRD
from .kd import KD, soft_kl
from .mutual_information import mutual_information_loss
from .nst import nst_loss
from .pkt import pkt_loss
from .renyi import renyi_entropy, renyi_mutual_information
from .reviewkd import ReviewKD, hierarchical_context_loss
from .rkd import RKD, rkd_angle_loss, rkd_distance_loss
from .sp import sp_loss
from .srd import SRD, srd_loss
from .vid import VID, VIDLogits, vid_loss
from .wcord import WCoRD, global_contrast_loss, sinkhorn

__all__ = [
    "AB",
    "AT",
    "CC",
    "CRD",
    "DIST",
    "DKD",
    "FSP",
    "FT",
    "ICKD",
    "ITRD",
    "KD",
    "RKD",
    "SRD",
    "VID",
    "FitNet",
    "ReviewKD",
    "VIDLogits",
    "WCoRD",
    "ab_loss",
    "at_loss",
    "cc_consecutive_loss",
    "cc_loss",
    "correlation_loss",
    "crd_loss",
    "dist_loss",
    "dkd_loss",
    "factor_loss",
    "fsp_matrix",
    "global_contrast_loss",
    "hierarchical_context_loss",
    "hint_loss",
    "ickd_loss",
    "mutual_information_loss",
    "nst_loss",
    "pkt_loss",
    "renyi_entropy",
    "renyi_mutual_information",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "sinkhorn",
    "soft_kl",
    "sp_loss",
    "srd_loss",
    "vid_loss",
]
