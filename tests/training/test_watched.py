"""What distillers tell of a batch at the end of every epoch: by hand, without a trace in the training, drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnn_itrd
import bnn_itrd.distillers.watching
from bnn_itrd.config import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers import METHODS, Distiller
from bnn_itrd.distillers.term import Term
from bnn_itrd.distillers.watching import gram_entropies, of_projection
from bnn_itrd.errors import UserError
from bnn_itrd.models import Outputs
from bnn_itrd.report.training.watched import watched_details
from bnn_itrd.report.view import View
from bnn_itrd.runs.rows import _curve_point
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.metrics import read_metrics

Array = np.ndarray[Any, np.dtype[np.float64]]
BOTH = DistillConfig(itrd=METHODS["itrd"](order=3.0), srd=METHODS["srd"](projector="mlp"))


def network(seed: int, width: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, 2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data() -> ImageData:
    images = torch.randint(0, 256, (32, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = TensorDataset(images, torch.arange(32) % 2)
    return ImageData.from_datasets(split, split)


def trained(data: ImageData, out: Path, distill: DistillConfig = BOTH, *, epochs: int = 2) -> bnn_itrd.Distilled:
    train = TrainConfig(epochs=epochs, batch_size=32, warmup_epochs=0, lr=0.1, schedule="constant")
    return bnn_itrd.distill(
        network(1, 5), network(2, 6).eval(), data, train=train, distill=distill, out=out,
        fabric=FabricConfig(accelerator="cpu", threads=1), log=LogConfig(False, False),
    )  # fmt: skip


# Independent versions, in NumPy.


def pearson(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > 1e-9 else 0.0


def entropy(z: Array, order: float) -> float:
    gram = np.array([[x @ y / math.sqrt((x @ x) * (y @ y)) for y in z] for x in z])
    spectrum = [x for x in np.linalg.eigvalsh(gram / np.trace(gram)) if x > 1e-7]
    return math.log2(sum(x**order for x in spectrum)) / (1 - order)


def test_of_a_projection_equals_numpy() -> None:
    rng = np.random.default_rng(0)
    weight, z = rng.normal(size=(6, 4)), rng.normal(size=(9, 4))
    z[:, 2] = 0.7
    after = z @ weight.T
    told = of_projection(*(torch.from_numpy(x) for x in (weight, z, after)))
    singular = sorted(np.linalg.svd(weight, compute_uv=False))
    want = {"singular_min": singular[0], "singular_max": singular[-1], "singular_median": sum(singular[1:3]) / 2}
    want["singular_lower"] = 0.25 * singular[0] + 0.75 * singular[1]
    want["singular_upper"] = 0.75 * singular[2] + 0.25 * singular[3]
    want["in_out_correlation"] = sum(abs(pearson(x, y)) for x in z.T for y in after.T) / 24
    assert {name: value.item() for name, value in told.items()} == pytest.approx(want, rel=1e-5)


def test_what_is_dead_half_or_not_finite_gives_numbers_or_nothing() -> None:
    zero = torch.zeros(4, 3, dtype=torch.bfloat16)
    told = of_projection(zero[:3], zero, zero) | gram_entropies(zero, zero)
    assert all(value.item() == 0 for value in told.values())
    assert list(of_projection(torch.full((3, 3), math.nan), zero, zero)) == ["in_out_correlation"]
    # Minutes an epoch for VGG-small's: not looked at.
    large = torch.zeros(2, 1).expand(2, 2**20 + 1)
    assert of_projection(large, zero, zero) == {}
    for order in (1.0, 2.0):
        assert gram_entropies(torch.full((4, 3), math.inf), zero, order=order)["gram_entropy"].isnan()


def test_the_usual_order_takes_no_eigenvalues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4,096 samples they take longer than many steps."""
    monkeypatch.delattr(torch.linalg, "eigvalsh")
    told = gram_entropies(torch.eye(4), torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]))
    assert [value.item() for value in told.values()] == [2.0, 1.0]


def test_the_row_of_an_epoch_is_what_the_networks_show_of_its_batch(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, Outputs, Outputs]] = []
    real = Term.watch

    def noted(self: Term, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        seen.append((self.loss, student, teacher))
        return real(self, student, teacher)

    monkeypatch.setattr(Term, "watch", noted)
    row = trained(data, tmp_path, epochs=1).history[0]
    assert [type(loss).__name__ for loss, _, _ in seen] == ["ITRD", "SRD"]
    (itrd, student, teacher), (srd, _, _) = seen
    z_s, z_t = (o.representation.double().numpy() for o in (student, teacher))
    assert z_s.shape == (32, 5) and z_t.shape == (32, 6)
    assert row["itrd.gram_entropy"] == pytest.approx(entropy(z_s, 3.0), abs=1e-4)
    assert row["itrd.teacher_gram_entropy"] == pytest.approx(entropy(z_t, 3.0), abs=1e-4)
    assert row["srd.gram_entropy"] == pytest.approx(entropy(z_s, 2.0), abs=1e-4)
    for name, layer in (("itrd", itrd.embed), ("srd", srd.projector[0])):
        largest = np.linalg.svd(layer.weight.detach().double().numpy(), compute_uv=False)[0]
        assert row[f"{name}.singular_max"] == pytest.approx(largest, rel=1e-4)
    embedded = z_s @ itrd.embed.weight.detach().double().numpy().T + itrd.embed.bias.detach().double().numpy()
    want = np.mean([abs(pearson(x, y)) for x in z_s.T for y in embedded.T])
    assert row["itrd.in_out_correlation"] == pytest.approx(want, rel=1e-3)
    v = [pearson(x, y) * 31 / 32 for x, y in zip(embedded.T, z_t.T, strict=True)]
    assert row["itrd.corr"] == pytest.approx(2 * math.log2(sum(abs(x - 1) ** 2.02 for x in v)), rel=1e-3)
    assert "itrd.mi" in row
    assert read_metrics(tmp_path / "metrics.csv")[0]["srd.singular_min"] == pytest.approx(row["srd.singular_min"], 1e-4)


def test_watching_leaves_no_trace_in_the_training(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(data, tmp_path / "whole").history
    for kind in (METHODS["itrd"], METHODS["srd"]):
        monkeypatch.setattr(kind, "watches", False)
    blind = trained(data, tmp_path / "blind").history
    assert {k: v for k, v in whole[1].items() if "." not in k and k[-1] != "s"} == {
        k: v for k, v in blind[1].items() if k[-1] != "s"
    }
    states = [load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "blind")]
    for part in ("objective", "model"):
        for (name, a), (_, b) in zip(*(state[part].items() for state in states), strict=True):
            assert torch.equal(a, b), name


def test_an_unused_embedding_has_no_singular_values(data: ImageData, tmp_path: Path) -> None:
    distill = DistillConfig(itrd=METHODS["itrd"](beta_mi=0, beta_corr=0))
    row = trained(data, tmp_path, distill, epochs=1).history[0]
    assert [key for key in row if key.startswith("itrd.")] == ["itrd.gram_entropy", "itrd.teacher_gram_entropy"]


class Own(Distiller):
    watches = True

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        return student.logits.square().mean()

    def watch(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"size": student.logits.abs().max(), "lost": torch.tensor(math.nan)}


class Broken(Own):
    def watch(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise RuntimeError("nothing to see")


def test_a_distiller_of_ones_own_may_watch_and_is_tried(data: ImageData, tmp_path: Path) -> None:
    row = trained(data, tmp_path / "own", DistillConfig().with_own({"mine": Own()}), epochs=1).history[0]
    assert row["mine.size"] > 0 and "mine.lost" not in row
    with pytest.raises(UserError, match="failed on eight made-up samples: RuntimeError: nothing to see"):
        trained(data, tmp_path / "broken", DistillConfig().with_own({"mine": Broken()}))
    assert not (tmp_path / "broken" / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (3.0, "Own's method watch returned a float: it must return a dict"),
        (
            {"size": torch.ones(2)},
            r"Own's method watch returned \(2,\) for 'size': each value must be a tensor of shape \(\)",
        ),
        ({"size": 3.0}, "Own's method watch returned float for 'size'"),
    ],
)
def test_what_is_told_is_looked_at_before_an_epoch_is_trained(
    told: Any, message: str, data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Own, "watch", lambda self, student, teacher: told)
    with pytest.raises(UserError, match=message):
        trained(data, tmp_path, DistillConfig().with_own({"mine": Own()}), epochs=1)
    assert not (tmp_path / "metrics.csv").exists()


def test_the_report_draws_it(data: ImageData, tmp_path: Path) -> None:
    history = trained(data, tmp_path).history
    points = [_curve_point(row) for row in history]
    assert points[0]["watched"].keys() == {key for key in history[0] if "." in key}
    model = {"name": "a <b>", "curve": points}
    page = watched_details(View.of({"models": [{"name": "teacher", "curve": [{}, {"watched": 3}]}, model]}))
    for title in (
        "Singular values of the projection, a &lt;b&gt;, itrd",
        "Singular values of the projection, a &lt;b&gt;, srd",
        "Correlation between the projection&#x27;s input and output",
        "Correlation loss, one batch",
        "Mutual-information loss, one batch",
        "Entropy of the batch&#x27;s Gram matrix",
    ):
        assert f"<figcaption>{title}" in page
    assert page.count("<figure>") == 6 and page.count('class="curve') == 5 + 5 + 2 + 1 + 1 + 4
    assert page.count('class="curve dashed"') == 2
    assert "<b>" not in page
    assert watched_details(View.of({"models": [{"name": "plain", "curve": [{"epoch": 1}]}, {}]})) == ""
