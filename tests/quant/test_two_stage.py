"""`load_stage`: the second stage begins with the first one's weights, and with nothing else that does not fit."""

from __future__ import annotations

import pytest
import torch
from helpers.binarisers import network

from bnn_itrd.quant import load_stage, set_progress


@pytest.mark.parametrize(("first", "second"), [("biper_sine", "biper"), ("real", "recu"), ("real", "rbnn")])
def test_load_stage(first: str, second: str) -> None:
    source, target = network(first), network(second)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    set_progress(source, 1.0)
    fresh = load_stage(target, source.state_dict())
    state, loaded = source.state_dict(), target.state_dict()
    own = {"real": ["alpha"], "biper_sine": []}[first]
    own = [*own, "theta", "rotation1", "rotation2"] if second == "rbnn" else own
    parts = ("weight_binarizer", "activation_binarizer")
    want = [f"{i}.{part}.progress" for i in (3, 6, 10) for part in parts]
    want += [f"{i}.weight_binarizer.{name}" for i in (3, 6, 10) for name in own]
    assert fresh == sorted(want)
    assert all(torch.equal(loaded[name], state[name]) for name in loaded if name not in fresh)
    assert all(float(loaded[name]) == 0 for name in fresh if name.endswith("progress"))
    if second == "rbnn":
        for i in (3, 6, 10):
            alpha = loaded[f"{i}.weight_binarizer.alpha"]
            torch.testing.assert_close(alpha, state[f"{i}.weight"].abs().flatten(1).mean(1))


def test_load_stage_is_strict_about_the_rest() -> None:
    target = network("recu")
    state = network("real").state_dict()
    before = {name: v.clone() for name, v in target.state_dict().items()}
    for wrong, message in (
        ({n: v for n, v in state.items() if n != "3.weight"}, "the state dict lacks 3.weight"),
        (state | {"13.weight": torch.zeros(1)}, "the state dict has unknown names 13.weight"),
        (state | {"3.weight": torch.zeros(1)}, r"3.weight must have shape \(12, 8, 3, 3\), got \(1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            load_stage(target, wrong)
    assert all(torch.equal(v, before[name]) for name, v in target.state_dict().items())
