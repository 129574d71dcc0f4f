"""`METHODS`, the distillation methods by their names on the command line and in recipes; loads without torch."""

from __future__ import annotations

from bnn_itrd.distillers.logits.dist import DISTConfig
from bnn_itrd.distillers.logits.dkd import DKDConfig
from bnn_itrd.distillers.logits.kd import KDConfig
from bnn_itrd.distillers.logits.lwf import LwFConfig
from bnn_itrd.distillers.maps.ab import ABConfig
from bnn_itrd.distillers.maps.at import ATConfig
from bnn_itrd.distillers.maps.fitnet import FitNetConfig
from bnn_itrd.distillers.maps.fsp import FSPConfig
from bnn_itrd.distillers.maps.ft import FTConfig
from bnn_itrd.distillers.maps.ickd import ICKDConfig
from bnn_itrd.distillers.maps.nst import NSTConfig
from bnn_itrd.distillers.maps.reviewkd import ReviewKDConfig
from bnn_itrd.distillers.maps.sp import SPConfig
from bnn_itrd.distillers.maps.vid import VIDConfig
from bnn_itrd.distillers.method import Method
from bnn_itrd.distillers.representation.cc import CCConfig
from bnn_itrd.distillers.representation.crd import CRDConfig
from bnn_itrd.distillers.representation.itrd import ITRDConfig
from bnn_itrd.distillers.representation.pkt import PKTConfig
from bnn_itrd.distillers.representation.rkd import RKDConfig
from bnn_itrd.distillers.representation.srd import SRDConfig
from bnn_itrd.distillers.representation.wcord import WCoRDConfig

__all__ = ["METHODS"]

METHODS: dict[str, type[Method]] = {
    "kd": KDConfig,
    "dkd": DKDConfig,
    "dist": DISTConfig,
    "lwf": LwFConfig,
    "itrd": ITRDConfig,
    "cc": CCConfig,
    "rkd": RKDConfig,
    "pkt": PKTConfig,
    "srd": SRDConfig,
    "crd": CRDConfig,
    "wcord": WCoRDConfig,
    "vid": VIDConfig,
    "fitnet": FitNetConfig,
    "at": ATConfig,
    "sp": SPConfig,
    "nst": NSTConfig,
    "ickd": ICKDConfig,
    "fsp": FSPConfig,
    "ab": ABConfig,
    "ft": FTConfig,
    "reviewkd": ReviewKDConfig,
}
