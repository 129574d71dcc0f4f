"""What latent weights begin as: torch's own initialisation, that of ReCU's code, or a teacher's weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bnn_itrd.models import resnet8, resnet20
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, Scheme, take_weights


@pytest.mark.parametrize(("name", "expected"), [("kaiming_uniform", 1 / 3), ("kaiming_normal", 2.0)])
def test_the_variance_of_latent_weights(name: str, expected: float) -> None:
    """Times fan_in: 1/3 of torch's own layers, 2 of kaiming_normal; the one is bounded, the other is not."""
    torch.manual_seed(0)
    scheme = Scheme(latent_init=name)  # type: ignore[arg-type]
    for layer, fan_in in ((BinaryConv2d(64, 64, 3, scheme=scheme), 576), (BinaryLinear(576, 64, scheme=scheme), 576)):
        weight = layer.weight.detach()
        assert float(weight.var()) * fan_in == pytest.approx(expected, rel=0.03)
        bounded = bool(weight.abs().max() <= 1 / math.sqrt(fan_in) + 1e-7)
        assert bounded == (name == "kaiming_uniform")


def test_an_unknown_initialisation() -> None:
    with pytest.raises(
        ValueError, match="'kaiming', did you mean 'kaiming_normal'. Expected one of kaiming_uniform, kaim"
    ):
        Scheme(latent_init="kaiming")  # type: ignore[arg-type]


def test_it_is_no_option_of_a_part() -> None:
    """A part of the user's own that names it keeps its own: the layers read it."""
    made = Scheme(nonlinearity=lambda latent_init=3: torch.nn.Threshold(latent_init, 0.0)).make_nonlinearity(4)
    assert made.threshold == 3


def test_the_weights_of_a_teacher() -> None:
    torch.manual_seed(0)
    teacher, student = resnet8(3, input_shape=(3, 8, 8)), resnet8(3, input_shape=(3, 8, 8), binary="recu")
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(0.01).add_(0.001)
    fresh = {name: value.clone() for name, value in student.state_dict().items()}
    missing = take_weights(student, teacher.state_dict())
    # The student's own: BatchNorm before the classifier.
    assert missing == [
        f"norm.{name}" for name in ("bias", "num_batches_tracked", "running_mean", "running_var", "weight")
    ]
    ours, theirs = student.state_dict(), teacher.state_dict()
    torch.testing.assert_close(ours["conv1.weight"], theirs["conv1.weight"], rtol=0, atol=0)
    torch.testing.assert_close(ours["bn1.weight"], theirs["bn1.weight"], rtol=0, atol=0)
    binary = [f"{path}.weight" for path, m in student.named_modules() if isinstance(m, BinaryConv2d)]
    assert len(binary) == 6
    for name in binary:
        assert torch.equal(ours[name].sign(), theirs[name].sign())
        assert float(ours[name].std()) == pytest.approx(float(fresh[name].std()), rel=1e-4)
        ratio = ours[name] / theirs[name]
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=0)


def test_what_a_weight_s_binariser_begins_with_follows_the_weights() -> None:
    """AdaBin's scale and centre are made from the weight that is there."""
    torch.manual_seed(0)
    student = resnet8(3, input_shape=(3, 8, 8), binary="xnor")
    layer = student.layer1[0].conv1
    calls = []
    layer.weight_binarizer.initialise = lambda weight: calls.append(weight.clone())  # type: ignore[method-assign]
    teacher = resnet8(3, input_shape=(3, 8, 8))
    take_weights(student, teacher.state_dict())
    assert len(calls) == 1 and torch.equal(calls[0], layer.weight)


def test_a_teacher_of_another_definition() -> None:
    student = resnet8(3, input_shape=(3, 8, 8), binary="recu")
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(ValueError, match=r"the teacher has 0 of the 73,\d+ weights of the binary layers, by"):
        take_weights(student, resnet8(3, input_shape=(3, 8, 8), width=0.5).state_dict())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert take_weights(student, resnet20(3, input_shape=(3, 8, 8)).state_dict())  # the first blocks of a deeper one


@pytest.mark.parametrize("value", [0.0, 0.1, math.nan, math.inf])
def test_a_weight_of_the_teacher_without_signs(value: float) -> None:
    """The standard deviation of equal numbers is what rounding leaves of it: 1e-8, or 0."""
    student, teacher = (resnet8(3, input_shape=(3, 8, 8), binary=binary) for binary in ("recu", None))
    before = {name: each.clone() for name, each in student.state_dict().items()}
    nn.init.constant_(teacher.layer2[0].conv1.weight, value)
    with pytest.raises(ValueError, match=r"the teacher's layer2.0.conv1.weight is not finite, or the same number e"):
        take_weights(student, teacher.state_dict())
    assert all(torch.equal(each, before[name]) for name, each in student.state_dict().items())


def test_a_single_layer() -> None:
    teacher, student = nn.Linear(4, 3), BinaryLinear(4, 3, scheme=Scheme())
    assert take_weights(student, teacher.state_dict()) == []
    assert torch.equal(student.weight.sign(), teacher.weight.sign())
