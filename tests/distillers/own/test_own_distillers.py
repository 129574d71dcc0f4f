"""Distillers of a user's own: what may stand there, how it is called, weighed, and refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.own_distillers import SETTING, distilled, net
from torch import Tensor, nn

from bnn_itrd.config import DistillConfig, KDConfig, OwnConfig, to_dict
from bnn_itrd.config.trees import differences
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers import Distiller, Setting, make_distillers
from bnn_itrd.errors import UserError
from bnn_itrd.models import Outputs

# ---- what may stand there; each is the squared difference of the logits, times `scale`


def squared(student: Outputs, teacher: Outputs, labels: Tensor, scale: float = 1.0) -> Tensor:
    return scale * (student.logits - teacher.logits).square().mean()


def with_indices(student: Outputs, teacher: Outputs, y: Tensor, indices: Tensor) -> Tensor:
    assert indices.dtype == torch.int64 and indices.shape == y.shape
    return squared(student, teacher, y)


def anything(*shown: Any, **options: float) -> Tensor:
    student, teacher, labels, _ = shown
    return squared(student, teacher, labels, **options)


def weighs(student: Outputs, teacher: Outputs, labels: Tensor, *, weight: float) -> Tensor:
    return weight * squared(student, teacher, labels)


class Squared(Distiller):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        return squared(student, teacher, labels, self.scale)


class Weighing(Squared):
    def __init__(self, setting: Setting, weight: float, *, scale: float = 1.0) -> None:
        super().__init__(scale)
        assert setting.student.representation == 5 and setting.teacher.representation == 7
        self.weight = weight

    def forward(self, *outputs: Any) -> Tensor:
        return self.weight * super().forward(*outputs)


class Plain(nn.Module):
    """A module that is no Distiller."""

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        return squared(student, teacher, labels)


@dataclass(frozen=True)
class SquaredConfig:
    scale: float = 1.0
    weight: float = 1.0


class Configured(Squared):
    def __init__(self, config: SquaredConfig) -> None:
        super().__init__(config.weight * config.scale)


def factory(setting: Setting, config: OwnConfig, scale: float = 1.0) -> Distiller:
    assert isinstance(config, OwnConfig) and len(setting.labels)
    return Squared(scale)


def factory_of_a_function(setting: Setting) -> Callable[..., Tensor]:
    return squared


FORMS: dict[str, Any] = {
    "function": squared,
    "function with indices": with_indices,
    "function of anything": anything,
    "function that weighs": weighs,
    "partial": partial(squared, scale=1.0),
    "lambda": lambda s, t, y: squared(s, t, y),
    "object": Squared(),
    "class": Squared,
    "class that weighs": Weighing,
    "class with a config": Configured,
    "module": Plain(),
    "class of a module": Plain,
    "factory": factory,
    "factory of a function": factory_of_a_function,
    "address": f"{__name__}:Squared",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_weight_times_schedule_times_the_term(data: ImageData, tmp_path: Path, form: str) -> None:
    images, *_ = next(data.train.train_batches(24, seed=0, epoch=0, device=torch.device("cpu")))
    with torch.no_grad():
        expected = float((net(1, 5)(images) - net(2, 7)(images)).square().mean())
    fitted = distilled(data, tmp_path, {"mine": OwnConfig(FORMS[form], weight=3.0, final=0.5)})
    # one step an epoch: of two epochs, at 0 and 1, the factor is 1 and 1 + (0.5 - 1) / 2
    for row, factor in zip(fitted.history, (1.0, 0.75), strict=True):
        assert row["loss_mine"] == pytest.approx(3.0 * factor * expected, rel=1e-5)
        assert row["loss"] == pytest.approx(row["loss_ce"] + row["loss_mine"], rel=1e-5)
    assert "loss_itrd" not in fitted.history[0]


TAKE_OPTIONS = ["function", "partial", "class", "class that weighs", "class with a config", "factory"]


@pytest.mark.parametrize("form", TAKE_OPTIONS)
def test_options_reach_it(form: str) -> None:
    outputs = Outputs(torch.randn(4, 3), torch.rand(4, 5), ()), Outputs(torch.randn(4, 3), torch.rand(4, 7), ())
    shown = (*outputs, torch.tensor([0, 1, 2, 0]), torch.arange(4))
    values = []
    for scale in (1.0, 3.0):
        config = DistillConfig(own={"mine": OwnConfig(FORMS[form], weight=2.0, options={"scale": scale})})
        values.append(float(make_distillers(config, SETTING)["mine"](*shown)))
    assert values[0] == pytest.approx(2 * float(squared(*shown[:3])))
    assert values[1] == pytest.approx(3 * values[0])


def test_it_stands_behind_the_others_and_says_who_it_is(data: ImageData, tmp_path: Path) -> None:
    distill = DistillConfig(ce=0.5, kd=KDConfig()).with_own({"mine": OwnConfig(squared, options={"scale": 2.0})})
    own = {"distiller": f"{__name__}:squared", "weight": 1.0, "warmup_epochs": 0.0, "final": 1.0, "scale": 2.0}
    tree = to_dict(distill)
    assert list(tree)[:2] == ["ce", "kd"] and list(tree)[-2:] == ["reviewkd", "mine"] and tree["mine"] == own
    assert list(distill.methods) == ["kd", "mine"] and distill.needs_teacher
    assert "mine" not in to_dict(DistillConfig(kd=KDConfig())) and "own" not in tree
    addressed = DistillConfig(own={"mypkg.losses:Mine": {"weight": "1e-3", "sizes": [1, 2]}})
    assert list(addressed.methods) == ["Mine"]
    wanted = {"weight": 1e-3, "warmup_epochs": 0.0, "final": 1.0, "sizes": [1, 2]}
    assert to_dict(addressed)["mypkg.losses:Mine"] == wanted
    # frozen, equal and hashed by what it says
    again = DistillConfig(own={"mypkg.losses:Mine": {"weight": 0.001, "sizes": (1, 2)}})
    assert again == addressed and hash(again) == hash(addressed)
    assert differences(to_dict(distill), to_dict(distill.with_own({"mine": Squared}))) == [
        f"mine.distiller: '{__name__}:squared' there, '{__name__}:Squared' given",
        "mine.scale: 2.0 there, 'absent' given",
    ]


@pytest.mark.compiles
def test_a_compiled_step(data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **_: real(module, backend="eager"))
    own = {"mine": OwnConfig(squared, weight=2.0), "other": Weighing}
    plain, compiled = (distilled(data, tmp_path / str(c), own, compile=c) for c in (False, True))
    for name in ("loss_mine", "loss_other"):
        assert [r[name] for r in compiled.history] == pytest.approx([r[name] for r in plain.history], rel=1e-5)


# ---- what is refused


class NoForward(Distiller):
    pass


class Needs(Squared):
    def __init__(self, size: int) -> None:
        super().__init__()


class Heavy(Squared):
    def __init__(self, weight: float = 50.0) -> None:
        super().__init__()


class Breaks(Squared):
    def __init__(self) -> None:
        raise RuntimeError("no such file")


class Reader(Squared):
    reads_labels = True


def own_names(student: Outputs, teacher: Outputs) -> Tensor:
    return student.logits.mean()


def sometimes(student: Outputs, teacher: Outputs, labels: Tensor) -> Any:
    return None


REFUSED: dict[str, tuple[Any, str]] = {
    "another object": (object(), "is <object .*, which is not a distiller: expected a Distiller, a subclass"),
    "a number": (3, "is 3, which is not a distiller: expected a Distiller"),
    "another class": (dict, "builtins:dict is a class, but not a subclass of Distiller or torch.nn.Module"),
    "a loss of tensors": (nn.MSELoss(), r"takes \(input, target\), but it is called with \(student, teacher"),
    "two arguments": (own_names, r"own_names takes \(student, teacher\): expected a Distiller"),
    "five arguments": (lambda a, b, c, d, e: a, "has no value for d, e: give one next to its weight"),
    "other names": (lambda s, t: s, "has no value for s, t: give one next to its weight"),
    "nothing": (sometimes, "sometimes must return a scalar, a floating-point tensor of shape .*, got None"),
    "a count": (lambda s, t, y: (s.logits > 0).sum(), "must return a scalar.*got a tensor of .*int64"),
    "rows": (lambda s, t, y: s.logits.mean(1), r"must return a scalar.*got a tensor of \(8,\), torch.float32"),
    "a NaN": (lambda s, t, y: s.logits.mean() * float("nan"), "returned nan on eight made-up samples"),
    "no gradient": (lambda s, t, y: t.logits.mean(), "does not depend on the student's outputs"),
    "an error": (lambda s, t, y: s.stages[3].mean(), r"IndexError: tuple index .* \(test_own_distillers.py, line "),
    "no forward": (NoForward, r"NotImplementedError: NoForward has no forward\(student, teacher, labels, indices\)"),
    "an option": (OwnConfig(squared, options={"scal": 2}), "unknown option of .*'scal', did you mean 'scale'"),
    "an option of an object": (OwnConfig(Squared(), options={"scale": 2}), "is a module that is already made"),
    "a lacking option": (Needs, "Needs has no value for size: give one next to its weight"),
    "a class that breaks": (Breaks, "the call that makes .*Breaks failed with RuntimeError: no such file"),
    "a factory of nothing": (lambda setting: None, "returned None, which is not a loss: expected a Distiller"),
    "a weight by default": (Heavy, r"Heavy\'s own default weight, 50.0, has no effect, .* add weight: 50.0 there"),
    "no address": ("losses.py", "a distiller of your own is written package.module:Name, got 'losses.py'"),
    "no module": ("nowhere.losses:Mine", "a distiller of your own: there is no module 'nowhere.losses'"),
    "a tensor as option": (partial(squared, scale=torch.ones(3)), r"squared\.scale must be a number, .*got a Tensor"),
    "a partial by place": (partial(squared, 1), "squared: functools.partial has arguments without names"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_distiller_is_told_before_anything_is_written(data: ImageData, tmp_path: Path, case: str) -> None:
    thing, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        distilled(data, tmp_path / "run", {"mine": thing})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"kd": squared}, "the loss of kd would be the column loss_kd of metrics.csv, which 'kd' has already"),
        ({"ce": squared}, "the loss of ce would be the column loss_ce of metrics.csv"),
        (
            {"a:Mine": {}, "b:Mine": {}},
            "the loss of b:Mine would be the column loss_Mine of metrics.csv, which 'a:Mine' has already: give this",
        ),
        ({"my loss": squared}, "and have only letters, digits, '_' and '-', got 'my loss'"),
        ({"a:Mine": 5}, r"a:Mine must hold fields \(weight, warmup_epochs, final and options of .*: 1\.0}, got 5"),
        ({"a:Mine": {"weight": "much"}}, r"a:Mine\.weight must be a number, got 'much'"),
        ({"a:Mine": {"weight": -1}}, r"a:Mine\.weight must be >= 0, got -1\.0"),
        ({"a:Mine": {"final": float("inf")}}, r"a:Mine\.final must be finite"),
    ],
)
def test_names_and_weights_are_checked_when_they_are_given(own: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DistillConfig(own=own)


def test_a_name_of_the_container_is_refused() -> None:
    with pytest.raises(UserError, match="a distiller cannot be called 'training'"):
        make_distillers(DistillConfig(own={"training": squared}), SETTING)


def test_a_term_without_labels_is_nothing_to_learn_from() -> None:
    with pytest.raises(UserError, match="nothing would be learned"):
        DistillConfig(ce=0.0, own={"mine": OwnConfig(squared, weight=0.0)}).check_learns()
    DistillConfig(ce=0.0, own={"mine": squared}).check_learns()


def test_one_that_reads_labels_is_refused_without_them() -> None:
    unlabelled = Setting(SETTING.student, SETTING.teacher, torch.tensor([0, UNLABELLED] * 6))
    with pytest.raises(UserError, match="mine needs the label of every training image, and 6 of 12 have none"):
        make_distillers(DistillConfig(own={"mine": Reader}), unlabelled)
    assert make_distillers(DistillConfig(own={"mine": Reader}), SETTING)["mine"].reads_labels
