"""From a student's and a teacher's `Outputs` to a loss: which part of them each loss of `bnn_itrd.losses` is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.distillers import logits, maps, representation
from bnn_itrd.distillers.base import Distiller, Setting, Sizes, gather, measure
from bnn_itrd.errors import UserError

__all__ = ["DISTILLERS", "Distiller", "Setting", "Sizes", "gather", "make_distillers", "measure"]

# Name of the configuration -> what is made of it.
DISTILLERS: dict[str, Callable[[Any, Setting], Distiller]] = {
    "kd": logits.KDDistiller,
    "dkd": logits.DKDDistiller,
    "dist": logits.DISTDistiller,
    "itrd": representation.ITRDDistiller,
    "cc": representation.CCDistiller,
    "rkd": representation.RKDDistiller,
    "pkt": representation.PKTDistiller,
    "srd": representation.SRDDistiller,
    "crd": representation.CRDDistiller,
    "wcord": representation.WCoRDDistiller,
    "vid": maps.VIDDistiller,
    "fitnet": maps.FitNetDistiller,
    "at": maps.ATDistiller,
    "sp": maps.SPDistiller,
    "nst": maps.NSTDistiller,
    "ickd": maps.ICKDDistiller,
    "fsp": maps.FSPDistiller,
    "ab": maps.ABDistiller,
    "ft": maps.FTDistiller,
    "reviewkd": maps.ReviewKDDistiller,
}


def make_distillers(config: DistillConfig, setting: Setting) -> nn.ModuleDict:
    """The distillers of a configuration, by their names there. Raises UserError where one does not fit the networks."""
    made: dict[str, nn.Module] = {}
    without = int((setting.labels < 0).sum())
    readers = [n for n, kind in DISTILLERS.items() if getattr(kind, "reads_labels", False)]
    for name, own in config.methods.items():
        if without and name in readers:
            raise UserError(
                f"{name} reads the label of every training image, and {without} of {len(setting.labels)} have none: "
                f"leave out data.unlabelled, or use another distiller than {', '.join(readers)}"
            )
        try:
            made[name] = DISTILLERS[name](own, setting)
        except UserError:
            raise
        except ValueError as error:
            # A loss names its own argument; where that is a field of the configuration, the message names the field.
            text = str(error).replace("num_negatives", "negatives")
            field = text.partition(" ")[0]
            raise UserError(f"{name}.{text}" if hasattr(own, field) else f"{name}: {text}") from error
    return nn.ModuleDict(made)
