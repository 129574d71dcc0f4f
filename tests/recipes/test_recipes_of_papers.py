"""The recipes hold the pairs, weights and settings that the papers state."""

from __future__ import annotations

import torch
from helpers.recipes import ROWS, TABLE_1, config

from bnn_itrd import recipes
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import member_config
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.trees import to_dict
from bnn_itrd.quant import WEIGHTS, BinaryConv2d, Scheme
from bnn_itrd.runs.networks import build

# RepDistiller's scripts (run_cifar_distill.sh), and its defaults for RKD.
PAPERS_WEIGHTS: dict[str, dict[str, dict[str, float]]] = {
    "fitnet": {"fitnet": {"weight": 100}},
    "at": {"at": {"weight": 1000}},
    "sp": {"sp": {"weight": 3000}},
    "cc": {"cc": {"weight": 0.02}},
    "rkd": {"rkd": {"weight": 1, "distance": 25, "angle": 50}},
    "pkt": {"pkt": {"weight": 30000}},
    "ft": {"ft": {"weight": 200}},
    "nst": {"nst": {"weight": 50}},
    "reviewkd": {"reviewkd": {"warmup_epochs": 20}},
    "srd": {"srd": {"weight": 2}},
    "dkd": {"dkd": {"weight": 1, "alpha": 1, "tau": 4, "warmup_epochs": 20}},
}
# ReviewKD's weight (its script) and DKD's beta (its configurations) where one is published for the pair.
OF_PAIR = {
    ("wrn_40_2", "wrn_16_2"): (5.0, 6.0),
    ("wrn_40_2", "wrn_40_1"): (5.0, 6.0),
    ("resnet56", "resnet20"): (0.6, 2.0),
    ("resnet110", "resnet32"): (1.0, 2.0),
    ("resnet32x4", "resnet8x4"): (5.0, 8.0),
    ("vgg13", "vgg8"): (1.0, 6.0),
    ("vgg13", "mobilenet_v2_half"): (1.0, 6.0),
    ("resnet32x4", "shufflenet_v1"): (5.0, 8.0),
    ("resnet32x4", "shufflenet_v2"): (8.0, 8.0),
    ("wrn_40_2", "shufflenet_v1"): (5.0, 8.0),
}
# RepDistiller's parameters at 100 classes.
PARAMETERS = {"resnet20": 278_324, "resnet32": 472_756, "resnet56": 861_620, "resnet110": 1_736_564}


def test_the_pairs_are_those_of_the_paper() -> None:
    names = {f"cifar100-{teacher}-{student}" for teacher, student, _, _ in TABLE_1}
    assert {name for name in recipes.names() if name.startswith("cifar100-")} == names
    for teacher, student, alpha, rate in TABLE_1:
        made = config(f"cifar100-{teacher}-{student}")
        assert made.network.name == student and made.network.teacher == teacher and not made.scheme.binary
        assert [name for name in made.students if name not in ROWS] == []
        for name, options in PAPERS_WEIGHTS.items():
            (method,) = options
            given = to_dict(made.students[name])
            assert given["ce"] == 1 and {k: given[method][k] for k in options[method]} == options[method]
        itrd, kd, crd = made.students["itrd"].itrd, made.students["kd"], made.students["crd"].crd
        corr, both = made.students["corr"].itrd, made.students["srd-dkd"]
        assert corr is not None and (corr.alpha, corr.beta_corr, corr.beta_mi) == (alpha, 2.0, 0.0)
        assert (both.srd, both.dkd) == (made.students["srd"].srd, made.students["dkd"].dkd)
        of_pair = made.students["reviewkd"].reviewkd.weight, made.students["dkd"].dkd.beta
        assert of_pair == OF_PAIR.get((teacher, student), (1.0, 8.0))
        assert itrd is not None and (itrd.alpha, itrd.beta_corr, itrd.beta_mi) == (alpha, 2.0, 1.0)
        assert kd.kd is not None and (kd.ce, kd.kd.weight, kd.kd.tau) == (0.1, 0.9, 4.0)
        assert crd is not None and (crd.weight, crd.negatives, crd.temperature) == (0.8, 16384, 0.07)
        assert (made.train.lr, made.teacher_train.lr) == (rate, 0.05)
        # RepDistiller's list of the students whose paraphraser is prepared at 0.01.
        assert made.students["ft"].ft.preparation_lr == (0.01 if student.startswith(("resnet", "wrn")) else None)
        for train in (made.train, made.teacher_train):
            assert (train.epochs, train.batch_size, train.weight_decay, train.warmup) == (240, 64, 5e-4, 0)
            assert (train.schedule, train.milestones, train.decay) == ("step", (150, 180, 210), 0.1)
        for name in ("teacher", "itrd"):
            member = member_config(made, name)
            assert member.scheme is None
            if member.network.name in PARAMETERS:
                with torch.device("meta"):
                    model = build(member.network, None, num_classes=100, input_shape=(3, 32, 32))
                assert sum(p.numel() for p in model.parameters()) == PARAMETERS[member.network.name]


def test_a_recipe_that_was_read_is_the_readers_own() -> None:
    tree = recipes.read("cifar100-vgg13-vgg8")
    tree["train"]["lr"] = 99
    assert recipes.read("cifar100-vgg13-vgg8")["train"]["lr"] == 0.05


def test_the_authors_settings_of_binary_networks() -> None:
    """The defaults of their published code: IR-Net's trainers, RBNN's and ReCU's command lines."""
    irnet, rbnn, recu = config("cifar10-irnet"), config("cifar10-rbnn"), config("cifar10-resnet20")
    assert (irnet.scheme.weight, irnet.scheme.t_min, irnet.scheme.t_max) == ("irnet", 1e-3, 10)
    train = irnet.train
    assert (train.epochs, train.batch_size, train.lr, train.weight_decay, train.warmup) == (400, 128, 0.1, 1e-4, 0)
    assert (rbnn.scheme.weight, rbnn.scheme.t_min, rbnn.scheme.t_max) == ("rbnn", 1e-2, 10)
    train = rbnn.train
    assert (train.epochs, train.batch_size, train.lr, train.weight_decay, train.warmup) == (1000, 256, 0.1, 1e-4, 5)
    adabin = config("cifar10-adabin")
    assert (adabin.scheme.weight, adabin.scheme.nonlinearity, adabin.scheme.t_min) == ("adabin", "maxout", 1e-3)
    train = adabin.train
    assert (train.epochs, train.batch_size, train.lr, train.weight_decay, train.warmup) == (400, 128, 0.1, 1e-4, 0)
    # One command line for ResNet-18, ResNet-20 and VGG-small.
    assert recu.train.weight_decay == config("cifar10-itrd-paper").train.weight_decay == 5e-4


def test_imagenet_is_distilled_as_the_paper_does() -> None:
    for name, binary in (("imagenet-resnet34-resnet18", False), ("imagenet-resnet34-resnet18-binary", True)):
        made = config(name)
        assert (made.train.epochs, made.train.batch_size, made.train.lr) == (100, 256, 0.1)
        assert made.train.milestones == (30, 60, 90) and made.teacher == "torchvision:resnet34"
        member = member_config(made, "itrd")
        with torch.device("meta"):
            model = build(member.network, member.scheme, num_classes=1000, input_shape=(3, 224, 224))
        # torchvision's 20 convolutions but the first and the three of shortcuts.
        assert sum(isinstance(m, BinaryConv2d) for m in model.modules()) == (16 if binary else 0)
        assert model.input_shape == (3, 224, 224)
        if not binary:
            assert sum(p.numel() for p in model.parameters()) == 11_689_512


def test_tau_is_the_published_one_of_the_weight() -> None:
    for weight in WEIGHTS:
        scheme = SchemeConfig(weight=weight).resolved()
        assert (scheme.tau_min, scheme.tau_max) == Scheme(weight).tau()
    read = recipes.read("cifar10-biper")
    config, _ = run_config("run", "", read, [], extra={})
    assert (config.scheme.tau_min, config.scheme.tau_max) == (0.0468, 0.0468)
    first = config.scheme.of_first_stage()
    assert (first.weight, first.tau_min, first.tau_max) == ("biper_sine", 0.037, 0.037)
    # What is given holds, for both stages; a weight given over a recipe has its own.
    config, _ = run_config("run", "", read, ["--scheme.tau_min=0", "--scheme.tau_max=0.5"], extra={})
    assert [config.scheme.of_first_stage().tau_min, config.scheme.of_first_stage().tau_max] == [0.0, 0.5]
    config, _ = run_config("run", "", recipes.read("digits"), ["--scheme.weight=biper"], extra={})
    assert config.scheme.tau_max == 0.0468
