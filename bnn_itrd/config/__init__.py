"""Frozen dataclasses with every setting of the command line, of recipes and of run folders.

Importing them does not import torch, so that ``bnn-itrd COMMAND --help`` starts quickly.
"""

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.own import OwnConfig
from bnn_itrd.config.run import MemberConfig, RunConfig, member_config
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.config.trees import differences, flatten, to_dict
from bnn_itrd.distillers.logits.kd import KDConfig
from bnn_itrd.distillers.representation.itrd import ITRDConfig

__all__ = [
    "DataConfig",
    "DistillConfig",
    "FabricConfig",
    "ITRDConfig",
    "KDConfig",
    "LogConfig",
    "MemberConfig",
    "NetworkConfig",
    "OwnConfig",
    "RunConfig",
    "SchemeConfig",
    "TrainConfig",
    "differences",
    "flatten",
    "member_config",
    "to_dict",
]
