"""Distillers of a user's own: what may stand there, how it is called, weighed, kept, resumed and refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_npz
from torch import Tensor, nn

import bnn_itrd
from bnn_itrd.config import DistillConfig, KDConfig, OwnConfig, to_dict
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.run import RunConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.config.trees import differences
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers import Distiller, Setting, Sizes, make_distillers
from bnn_itrd.errors import UserError
from bnn_itrd.experiments.grid import make_points, parse_axis, student_trees
from bnn_itrd.models import Outputs
from bnn_itrd.runs.run import run_recipe
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.training.trainer import Trainer

QUIET = LogConfig(tensorboard=False, progress=False)
CPU = FabricConfig(accelerator="cpu", threads=1)
# So small that no weight moves, whatever its gradient.
STILL = 1e-30
SETTING = Setting(
    Sizes(3, 5, ((2, 4, 4),)), Sizes(3, 7, ((3, 4, 4),)), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])
)


class Net(nn.Module):
    stages = ("conv",)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, width, 3, 2, 1), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).relu().mean((2, 3)))


def net(seed: int, width: int) -> Net:
    torch.manual_seed(seed)
    return Net(width)


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz", n=24)


@pytest.fixture(scope="module")
def data(npz: Path) -> ImageData:
    return load_data(DataConfig(name="cifar10", root=str(npz), crop_padding=0, flip=False))


def distilled(data: ImageData, out: Path, distillers: Mapping[str, Any], **changes: Any) -> Any:
    options = {"epochs": 2, "batch_size": 24, "lr": STILL, "warmup_epochs": 0.0, **changes}
    return bnn_itrd.distill(
        net(1, 5), net(2, 7), data, train=TrainConfig(**options), distillers=distillers, out=out, fabric=CPU, log=QUIET
    )


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


# ---- what it owns


class Hint(Distiller):
    """Owns a layer, BatchNorm and a count of its calls; draws numbers when it is made and when it is called."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.embed = nn.Linear(setting.student.representation, setting.teacher.representation)
        self.norm = nn.BatchNorm1d(setting.teacher.representation)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        self.calls += 1
        kept = torch.rand(student.representation.shape[1]) < 0.8
        return (self.norm(self.embed(student.representation * kept)) - teacher.representation).square().mean()


def test_what_it_owns_is_trained_kept_and_resumed_exactly(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(mix_seed(0, 1))  # where the trainer starts the distillers' parameters: the trial draws nothing
    start = Hint(Setting(Sizes(3, 5, ()), Sizes(3, 7, ()), torch.zeros(0))).state_dict()
    changes = {"epochs": 4, "batch_size": 8, "lr": 0.1, "ema": 0.9}
    whole = distilled(data, tmp_path / "whole", {"mine": Hint}, **changes)
    real = Trainer.train_epoch

    def stopping(self: Trainer, *args: Any) -> Any:
        if self.epoch == 2:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_epoch", stopping)
        distilled(data, tmp_path / "parts", {"mine": Hint}, **changes)
    torch.manual_seed(123)  # what a new process starts from must not matter
    parts = distilled(data, tmp_path / "parts", {"mine": Hint}, **changes)
    a, b = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    keys = {f"distillers.mine.inner.{key}" for key in start}
    assert keys <= a["objective"].keys() == b["objective"].keys()
    assert all(torch.equal(a["objective"][key], b["objective"][key]) for key in a["objective"])
    assert a["objective"]["distillers.mine.inner.calls"] == 4 * 3  # none of the trial's
    for key in ("embed.weight", "norm.running_mean"):
        assert not torch.equal(a["objective"][f"distillers.mine.inner.{key}"], start[key])
    assert [r["loss_mine"] for r in whole.history] == [r["loss_mine"] for r in parts.history]
    assert len(a["optimizer"]["state"]) == len(b["optimizer"]["state"]) == 4 + 4
    with pytest.raises(UserError, match=r"distill\.mine\.weight: 1\.0 there, 2\.0 given"):
        distilled(data, tmp_path / "parts", {"mine": OwnConfig(Hint, weight=2.0)}, **changes)


def test_the_trial_changes_nothing() -> None:
    torch.manual_seed(5)
    made = Hint(SETTING)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    random = torch.get_rng_state()
    make_distillers(DistillConfig(own={"mine": made}), SETTING)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[key], value) for key, value in made.state_dict().items())


class Phased(Distiller):
    """A phase of two epochs in which its own layer is trained, and frozen behind it."""

    preparation_epochs = 2

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.embed = nn.Linear(setting.teacher.representation, setting.student.representation)

    def prepare(self, student: Outputs | None, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        assert student is None
        return (self.embed(teacher.representation) - 1).square().mean()

    def prepared(self) -> None:
        self.embed.requires_grad_(False)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        return (student.representation - self.embed(teacher.representation)).square().mean()


def test_a_phase_of_its_own(data: ImageData, tmp_path: Path) -> None:
    fitted = distilled(data, tmp_path, {"mine": Phased}, lr=0.1)
    rows = read_metrics(tmp_path / "preparation.csv")
    assert len(rows) == 2 and rows[1]["loss_mine"] < rows[0]["loss_mine"]
    assert len(fitted.history) == 2 and fitted.history[0]["loss_mine"] > 0


@pytest.mark.compiles
def test_a_compiled_step(data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **_: real(module, backend="eager"))
    own = {"mine": OwnConfig(squared, weight=2.0), "other": Weighing}
    plain, compiled = (distilled(data, tmp_path / str(c), own, compile=c) for c in (False, True))
    for name in ("loss_mine", "loss_other"):
        assert [r[name] for r in compiled.history] == pytest.approx([r[name] for r in plain.history], rel=1e-5)


def test_both_stages_of_a_training(npz: Path, tmp_path: Path) -> None:
    train = TrainConfig(epochs=1, batch_size=8, warmup_epochs=0.0)
    config = RunConfig(
        data=DataConfig(name="cifar10", root=str(npz)),
        network=NetworkConfig("resnet8", width=0.25),
        scheme=SchemeConfig(weight="recu", first_stage="real", first_stage_epochs=1),
        teacher_train=train, train=train, fabric=CPU, log=QUIET,
        students={"mine": DistillConfig(own={f"{__name__}:HintOfRun": {"weight": 0.5}})},
    )  # fmt: skip
    run_recipe(config, tmp_path / "run", only="teacher")
    run_recipe(config, tmp_path / "run", only="mine")
    for folder in ("run/mine/first-stage", "run/mine"):
        state = load_checkpoint(tmp_path / folder / "last.pt")
        assert state["history"][0]["loss_HintOfRun"] > 0
        assert "distillers.HintOfRun.inner.embed.weight" in state["objective"]
        assert state["identity"]["distill"][f"{__name__}:HintOfRun"]["weight"] == 0.5


class HintOfRun(Hint):
    """Refuses to be made anywhere but on the CPU."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert self.embed.weight.device.type == "cpu" and torch.zeros(1).device.type == "cpu"


def test_points_of_a_grid() -> None:
    recipe = {"students": {}}
    trees = student_trees(["kd", "mypkg.losses:Mine"], recipe)
    assert trees == {"plain": {}, "kd": {"kd": {}}, "Mine": {"mypkg.losses:Mine": {}}}
    axis = parse_axis("students.Mine.mypkg.losses:Mine.weight=0.5,2")
    made = make_points(recipe, trees, [axis])
    assert [p.name for p in made] == ["recu-plain-s0", "recu-kd-s0", "recu-Mine-weight0.5-s0", "recu-Mine-weight2-s0"]
    assert dict(made[-1].member.distill.own)["mypkg.losses:Mine"].weight == 2.0
    with pytest.raises(UserError, match="--methods names Mine more than once"):
        student_trees(["a:Mine", "b:Mine"], recipe)


def test_a_module_is_imported_on_the_cpu_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are checked on the meta device, where a module's own tensors would stay empty for good."""
    (tmp_path / "kernels.py").write_text(
        "import torch\nKERNEL = torch.ones(3)\n\n\n"
        "def loss(student, teacher, labels):\n    return (student.logits * KERNEL).sum()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with torch.device("meta"):
        made = make_distillers(DistillConfig(kd=KDConfig(), own={"kernels:loss": {}}), SETTING)
    assert list(made) == ["kd", "loss"] and sys.modules["kernels"].KERNEL.device.type == "cpu"


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
    "another object": (object(), "cannot be learned from: expected a Distiller, its class, a fact.*, got <object"),
    "a number": (3, "cannot be learned from: expected a Distiller"),
    "another class": (dict, "builtins:dict is a class, but neither a Distiller nor another torch.nn.Module"),
    "a loss of tensors": (nn.MSELoss(), r"must take \(student, teacher, labels\), or .* and takes \(input, target\)"),
    "two arguments": (own_names, r"own_names takes \(student, teacher\): expected a Distiller"),
    "five arguments": (lambda a, b, c, d, e: a, "takes d, e, which is not given"),
    "other names": (lambda s, t: s, "takes s, t, which is not given"),
    "nothing": (sometimes, "sometimes must give a scalar, a floating-point tensor of shape .*, got None"),
    "a count": (lambda s, t, y: (s.logits > 0).sum(), "must give a scalar.*got a tensor of .*int64"),
    "rows": (lambda s, t, y: s.logits.mean(1), r"must give a scalar.*got a tensor of \(8,\), torch.float32"),
    "a NaN": (lambda s, t, y: s.logits.mean() * float("nan"), "gave nan on eight made-up samples"),
    "no gradient": (lambda s, t, y: t.logits.mean(), "does not depend on the student's outputs"),
    "an error": (lambda s, t, y: s.stages[3].mean(), r"IndexError: tuple index .* \(test_own_distillers.py, line "),
    "no forward": (NoForward, r"NotImplementedError: NoForward has no forward\(student, teacher, labels, indices\)"),
    "an option": (OwnConfig(squared, options={"scal": 2}), "unknown option of .*'scal', did you mean 'scale'"),
    "an option of an object": (OwnConfig(Squared(), options={"scale": 2}), "is an object already and takes no options"),
    "a lacking option": (Needs, "Needs takes size, which is not given: give it beside the weight"),
    "a class that breaks": (Breaks, "Breaks could not be made: RuntimeError: no such file"),
    "a factory of nothing": (lambda setting: None, "returned None: expected a Distiller"),
    "a weight by default": (Heavy, r"Heavy has a weight of 50.0 by default, .* give it \(weight: 50.0\)"),
    "no address": ("losses.py", "a distiller of your own is written package.module:Name, got 'losses.py'"),
    "no module": ("nowhere.losses:Mine", "a distiller of your own: there is no module 'nowhere.losses'"),
    "a tensor as option": (partial(squared, scale=torch.ones(3)), r"squared\.scale must be a number, .*got a Tensor"),
    "a partial by place": (partial(squared, 1), "squared: give a partial's arguments by their names"),
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
        ({"kd": squared}, "kd would be the column kd of metrics.csv, which 'kd' is already"),
        ({"ce": squared}, "ce would be the column ce of metrics.csv"),
        (
            {"a:Mine": {}, "b:Mine": {}},
            "b:Mine would be the column Mine of metrics.csv, which 'a:Mine' is already: give it an",
        ),
        ({"my loss": squared}, "must be named with letters, digits, '_' and '-', got 'my loss'"),
        ({"a:Mine": 5}, r"a:Mine must hold fields \(weight, warmup_epochs, final and its own options\), got 5"),
        ({"a:Mine": {"weight": "much"}}, r"a:Mine\.weight must be float, got 'much'"),
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
    with pytest.raises(UserError, match="mine reads the label of every training image, and 6 of 12 have none"):
        make_distillers(DistillConfig(own={"mine": Reader}), unlabelled)
    assert make_distillers(DistillConfig(own={"mine": Reader}), SETTING)["mine"].reads_labels
