"""A network of ours remembers how it was made, so that a run of it can be loaded by its folder alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.models import MODELS, resnet8, resnet20, vgg_small
from bnn_itrd.quant import Scheme, XNORWeight, binarize
from bnn_itrd.runs.networks import build, definition_of

SIZES = {"num_classes": 10, "input_shape": (3, 32, 32)}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("binary", [None, "reactnet"])
def test_every_network_is_made_again_from_its_definition(name: str, binary: str | None) -> None:
    with torch.device("meta"):
        made = MODELS[name](10, input_shape=(3, 32, 32), binary=binary)
        found = definition_of(made, **SIZES)
        assert found is not None and found[0].name == name and (found[1] is None) == (binary is None)
        again = build(*found, **SIZES)
    shapes = {key: value.shape for key, value in made.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


def test_options_are_part_of_the_definition() -> None:
    student = resnet20(
        5, in_channels=1, input_shape=(1, 8, 8), width=2.0, per_conv=False, padding_value=-1, binary="xnor"
    )
    network, scheme = definition_of(copy.deepcopy(student), num_classes=5, input_shape=(1, 8, 8)) or (None, None)
    assert network == NetworkConfig("resnet20", width=2.0, per_conv=False, padding_value=-1)
    assert scheme == SchemeConfig(weight="xnor", activation="clipped")
    teacher = resnet20(5, input_shape=(3, 8, 8), shortcut="projection")
    found = definition_of(teacher, num_classes=5, input_shape=(3, 8, 8))
    assert found == (NetworkConfig("resnet20", teacher_shortcut="projection"), None)


def test_a_class_of_the_users_own_is_named_by_its_address() -> None:
    student = vgg_small(10, binary=Scheme(weight=XNORWeight, activation="clipped"))
    _, scheme = definition_of(student, **SIZES) or (None, None)
    assert scheme is not None and scheme.weight == "bnn_itrd.quant.methods.xnor:XNORWeight"


def test_what_was_changed_afterwards_has_no_definition() -> None:
    changed = resnet8(10)
    changed.linear = nn.Linear(64, 10, bias=False)
    assert definition_of(changed, **SIZES) is None
    assert definition_of(binarize(resnet8(10))[0], **SIZES) is None
    assert definition_of(nn.Linear(3, 10), **SIZES) is None
