"""Students that begin with trained weights of a file, and the recipes of VID's transfer, on folders of a few photos."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import member_config
from bnn_itrd.errors import UserError
from bnn_itrd.models import MODELS, vgg9
from bnn_itrd.runs.given.first_weights import begin_with_weights
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.metrics import read_metrics

NARROW = 0.0625
TRANSFER = [f"{data}-resnet34-{student}" for data in ("mit67", "cub200") for student in ("resnet18", "vgg9")]


@pytest.fixture(scope="module")
def mit67(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of four images, three to train on."""
    root, rng = tmp_path_factory.mktemp("mit67"), np.random.default_rng(0)
    lists: dict[str, list[str]] = {"TrainImages.txt": [], "TestImages.txt": []}
    for name in ("bar", "gym", "zoo"):
        (root / "Images" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(root / "Images" / name / f"{i}.jpg")
            lists["TrainImages.txt" if i < 3 else "TestImages.txt"].append(f"{name}/{i}.jpg")
    for name, lines in lists.items():
        (root / name).write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None, num_classes=11).state_dict(), path)
    return path


def pretrained(path: Path, *, classes: int = 9) -> dict[str, torch.Tensor]:
    """As torchvision's file is: the classifier has another name, and other classes."""
    torch.manual_seed(7)
    state = vgg9(classes, width=NARROW).state_dict()
    renamed = {name.replace("linear", "classifier.6"): value for name, value in state.items()}
    torch.save(renamed, path)
    return dict(renamed)


def arguments(root: Path, out: Path, member: str, *more: str) -> list[str]:
    return ["train", "mit67-resnet34-vgg9", f"--member={member}", f"--data.root={root}", "--data.image_size=32",
            "--data.workers=0", f"--network.width={NARROW}", "--train.batch_size=4", "--train.epochs=1",
            "--train.warmup_epochs=0", "--log.tensorboard=false", "--log.progress=false", "--report=false",
            "--fabric.accelerator=cpu", f"--out={out}", *more]  # fmt: skip


def test_a_transfer_learns_from_a_teacher_of_other_classes(mit67: Path, teacher: Path, tmp_path: Path) -> None:
    """Both forms of VID, LwF and FitNet at once: with a ResNet-18 for the teacher, whose file is half as large."""
    given = ["--teacher=torchvision:resnet18", f"--teacher_weights={teacher}", "--students.vid-both.lwf={}",
             "--students.vid-both.fitnet={}"]  # fmt: skip
    assert main(arguments(mit67, tmp_path, "vid-both", *given)) == 0
    (row,) = read_metrics(tmp_path / "vid-both" / "metrics.csv")
    assert all(np.isfinite(row[f"loss_{term}"]) for term in ("vid", "lwf", "fitnet"))
    state = load_checkpoint(tmp_path / "vid-both" / "last.pt")["objective"]
    assert state["distillers.lwf.loss.head.weight"].shape == (11, 32)


def test_a_student_begins_with_the_weights_of_a_file(mit67: Path, tmp_path: Path) -> None:
    """All but the classifier, which is drawn as without them; a step of a learning rate that moves nothing shows it."""
    given = pretrained(tmp_path / "w.pth")
    still = ["--train.lr=1e-12", "--train.weight_decay=0", "--train.precision=32-true"]
    words = [*still, f"--network.weights={tmp_path / 'w.pth'}"]
    assert main(arguments(mit67, tmp_path / "a", "plain", *words)) == 0
    assert main(arguments(mit67, tmp_path / "b", "plain", *still)) == 0
    a, b = (load_checkpoint(tmp_path / name / "plain" / "last.pt") for name in "ab")
    for name, value in a["model"].items():
        if name.endswith(("weight", "bias")):
            expected = b["model"][name] if name.startswith("linear.") else given[name]
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)
    assert len(a["identity"]["weights_sha256"]) == 64 and "weights_sha256" not in b["identity"]


def test_it_goes_on_with_the_same_file_alone(mit67: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = pretrained(tmp_path / "w.pth")
    words = arguments(mit67, tmp_path / "a", "plain", f"--network.weights={tmp_path / 'w.pth'}")
    assert main(words) == 0
    before = (tmp_path / "a" / "plain" / "metrics.csv").read_text()
    assert main(words) == 0 and (tmp_path / "a" / "plain" / "metrics.csv").read_text() == before
    torch.save({name: value + 1 for name, value in given.items()}, tmp_path / "w.pth")
    assert main(words) == 2
    assert "weights_sha256" in capsys.readouterr().err


def test_what_does_not_fit_is_told_before_anything_is_trained(
    mit67: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.pth"
    words = arguments(mit67, tmp_path / "a", "plain", f"--network.weights={path}")
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"no file {path} for --network.weights" in told and "torchvision.models.get_model('vgg11_bn'" in told
    torch.save(vgg9(9).state_dict(), path)
    assert main(words) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "features.0.weight has the shape (64, 3, 3, 3), but (4, 3, 3, 3) in the network" in told
    assert not (tmp_path / "a").exists()


def test_a_file_must_have_the_network_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    network = NetworkConfig("resnet8", width=0.25, weights=str(path))

    def refused(change: str, message: str) -> None:
        state = dict(MODELS["resnet8"](5, width=0.25).state_dict())
        if change == "less":
            del state["layer1.0.conv1.weight"]
        elif change == "more":
            state["layer1.7.conv1.weight"] = torch.zeros(1)
        else:
            state["layer1.0.conv1.weight"].fill_(torch.nan)
        torch.save(state, path)
        model = MODELS["resnet8"](10, width=0.25)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(UserError, match=message):
            begin_with_weights(model, network)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    refused("less", r"does not fit resnet8: it has no layer1\.0\.conv1\.weight \(1 of ")
    refused("more", r"it also has layer1\.7\.conv1\.weight, which the network does not have \(1 such name\)")
    refused("nan", r"layer1\.0\.conv1\.weight has values that are not finite")
    torch.save([1, 2], path)
    with pytest.raises(UserError, match=r"is not the state dict of resnet8: it must map names to tensors"):
        begin_with_weights(MODELS["resnet8"](10, width=0.25), network)
    assert network.of_teacher().weights is None


def test_weights_are_the_students_in_full_precision_alone() -> None:
    with pytest.raises(UserError, match=r"network\.weights must be left out: only full-precision .*from_teacher"):
        run_config("run", "", recipes.read("digits"), ["--network.weights=w.pth"], extra={})
    made = run_config("run", "", recipes.read("mit67-resnet34-vgg9"), ["--network.weights=w.pth"], extra={})[0]
    assert member_config(made, "plain").network.weights == "w.pth"
    assert member_config(made, "teacher").network.weights is None


@pytest.mark.parametrize("name", TRANSFER)
def test_the_recipes_have_the_rows_of_the_table(name: str) -> None:
    made = run_config("run", "", recipes.read(name), [], extra={})[0]
    assert (made.teacher, made.data.image_size, made.scheme.binary) == ("torchvision:resnet34", 224, False)
    assert {*made.students} == {
        *("plain", "lwf", "fitnet", "at", "vid-logits", "vid-maps", "lwf-fitnet", "vid-both"),
    }
    assert not any(student.compares_logits for student in made.students.values())
    both, lwf = made.students["vid-both"].vid, made.students["lwf"].lwf
    assert (both.form, both.batch_norm, lwf.weight, lwf.tau) == ("both", True, 1.0, 2.0)
