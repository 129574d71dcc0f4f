"""A chain with a wrong program, attribute, constant or byte is refused with a message, without a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faults.native import open_operators, operator_files
from faults.networks import good_chain
from helpers.chains import opened
from onnx import helper

from bnn_itrd.export.runtime.native import library_path, why_unavailable

pytestmark = pytest.mark.skipif(library_path() is None, reason=f"no native library: {why_unavailable()}")

# A chain of five steps whose program is then spoilt.
# Places in the program: the input; FloatConv at 5, the threshold at 19, the addition at 36, the pooling at 53.
PROGRAM = [1, 2, 8, 8, 3]
WINDOW = [3, 3, 1, 1, 1, 1, 1, 1, 1, 1]


def test_the_program_is_as_documented() -> None:
    model = good_chain().model(chained=True)
    (node,) = model.graph.node
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert found["program"] == [
        *PROGRAM,
        *(3, 0, 9, 1, *WINDOW),
        *(2, 2, -1, 0, 3, *WINDOW, 1, 0),
        *(2, 3, 1, 15, 5, *WINDOW, 1, 0),
        *(1, 4, 1, 2, 2, 0, 0),
    ]
    assert found["limits"] == [-1.0, 1.0] and found["output_size"] == [4, 4, 16]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: 0}, "attribute program has no inputs, or too many"),
        ({0: 100}, "attribute program has an input of unknown form 3"),
        ({1: 3}, "attribute program has an input of unknown form 3"),
        ({1: 0}, r"step 0: value 0 must be floats \(c, h, w\)"),
        ({2: 0}, r"a value of shape \(0, 8, 3\) is too large, or has a side below 1"),
        ({2: 2**62}, r"a value of shape \(4611686018427387904, 8, 3\) is too large, or has a side below 1"),
        ({4: 4}, r"step 0: weights must have shape \(3, 3, 4, outputs\)"),
        ({5: 7}, "step 0: the step has the unknown code 7"),
        ({6: 5}, "step 0: value 5 is not the result of an earlier step"),
        ({6: -1}, "step 0: value -1 is not the result of an earlier step"),
        ({7: 3}, "step 0: the convolution has an unknown form"),
        ({7: 0}, "step 0: the convolution has an unknown form"),
        ({8: 0}, "step 0: its constants must be inputs of the operator"),
        ({8: 7}, "step 0: its constants must be inputs of the operator|element type"),
        ({11: 0}, "step 0: strides must be in"),
        ({20: 1}, r"step 1: value 1 must be signs \(h, w, c\)"),
        ({20: 3}, "step 1: value 3 is not the result of an earlier step"),
        ({21: 1}, "step 1: the convolution has a residual, but its form does not add one"),
        ({22: 16}, "step 1: the convolution has an unknown form"),
        ({22: 2}, "step 1: the convolution has an unknown form"),
        ({22: 64}, "step 1: the convolution has an unknown form"),
        ({5: 5}, r"step 0: value 0 must be floats \(h, w, c\)"),
        ({1: 0, 5: 5, 6: 1}, "step 0: value 1 is not the result of an earlier step"),
        ({7: 1 + 2}, "step 0: the convolution has an unknown form"),
        ({7: 1 + 4 + 16}, "step 0: the convolution has an unknown form"),
        ({7: 1 + 32}, "step 0: the convolution has an unknown form"),
        ({7: 1 + 16}, "step 0: (before must have shape|input before has element type)"),
        ({39: 15 + 32}, "step 2: its constants must be inputs of the operator"),
        ({53: 4}, "step 3: its constants must be inputs of the operator|step 3: level"),
        ({23: -5}, "step 1: its constants must be inputs of the operator"),
        ({23: 2**40}, "step 1: its constants must be inputs of the operator"),
        ({34: 2}, "step 1: weights must have shape"),
        ({35: 2}, "step 1: padding_value must be -1, 0 or 1, got 2"),
        ({38: 2}, r"step 2: value 2 must be floats \(h, w, c\)"),
        ({38: -1}, "step 2: value -1 is not the result of an earlier step"),
        ({43: 2}, "step 2: the residual must have the shape of the output"),
        ({54: 3}, r"step 3: value 3 must be floats \(h, w, c\)"),
        ({55: 0, 56: 3}, "step 3: the image's height and width must be multiples"),
        ({56: 16}, "step 3: attribute kernel_shape of a mean must be 1, 2, 4 or 8, got 16"),
        ({56: 0}, "step 3: attribute kernel_shape must be at least 1"),
        ({58: -1}, "step 3: attribute zeros must not be negative"),
        ({58: 1}, r"output_size must be \(4, 4, 17\), got \(4, 4, 16\)"),
    ],
)
def test_malformed_programs_are_refused(changes: dict[int, int], message: str) -> None:
    model = good_chain().model(chained=True)
    program = next(a for a in model.graph.node[0].attribute if a.name == "program")
    for place, number in changes.items():
        program.ints[place] = number
    with pytest.raises(Exception, match=f'Chain0 ".*": ({message})'):
        opened(model)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("program", slice(0, 20), "step 1: attribute program ends within a step"),
        ("program", slice(0, 5), "attribute program has no step"),
        ("program", slice(0, 19), "the outputs of the last step must be those of the operator"),
        ("program", slice(0, 0), "attribute program is missing, empty or too long"),
        ("limits", slice(0, 1), "step 2: attribute limits must have two numbers for each clip"),
        ("limits", slice(0, 0), "attribute limits is missing, empty or too long"),
        ("output_size", slice(0, 2), "attribute output_size must be 3 integers, got 2"),
    ],
)
def test_attributes_of_a_chain_that_end_too_early(name: str, numbers: slice, message: str) -> None:
    model = good_chain().model(chained=True)
    attribute = next(a for a in model.graph.node[0].attribute if a.name == name)
    values = attribute.floats if name == "limits" else attribute.ints
    kept = list(values)[numbers]
    del values[:]
    values.extend(kept)
    with pytest.raises(Exception, match=message):
        opened(model)


def test_inputs_of_a_chain_are_checked() -> None:
    net = good_chain()
    model = net.model(chained=True)
    del model.graph.input[0].type.tensor_type.shape.dim[1:]
    for _ in range(3):
        model.graph.input[0].type.tensor_type.shape.dim.add()
    with pytest.raises(Exception, match=r"input 0 must have shape \(batch, 3, 8, 8\), got \(1, 8, 8, 3\)"):
        opened(model).run(None, {"images": np.zeros((1, 8, 8, 3), np.float32)})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return operator_files(tmp_path_factory.mktemp("models"))


def test_malformed_operators_do_not_crash(models: list[Path]) -> None:
    ran, refused = open_operators(library_path(), models, 1200)
    assert ran > 200 and refused > 300


@pytest.mark.exhaustive
def test_operators_under_address_and_undefined_behaviour_sanitizers(models: list[Path], sanitized: Path) -> None:
    """The library runs in onnxruntime, compiled with sanitizers, which end the process if memory is used wrongly."""
    ran, refused = open_operators(sanitized, models, 400, sanitized=True)
    assert ran > 50 and refused > 80
