"""Published accuracies: what the rows of `bnn-itrd compare` stand beside."""

from __future__ import annotations

__all__ = ["PUBLISHED", "published_accuracy"]

_ITRD = "Miles et al. 2022, table 3"

# (data, network, method) -> (top-1 in percent, source). Both weights and activations of 1 bit, but for the teacher.
# ReCU's and ITRD's figures are those of the best test epoch; the rows here report the last one first.
PUBLISHED: dict[tuple[str, str, str], tuple[float, str]] = {
    ("cifar10", "resnet18", "teacher"): (94.8, _ITRD),
    ("cifar10", "resnet18", "recu"): (92.8, "Xu et al. 2021; " + _ITRD),
    ("cifar10", "resnet18", "recu-kd"): (93.3, _ITRD),
    ("cifar10", "resnet18", "recu-crd"): (92.1, _ITRD),
    ("cifar10", "resnet18", "recu-reviewkd"): (92.6, _ITRD),
    ("cifar10", "resnet18", "recu-corr"): (93.9, _ITRD),
    ("cifar10", "resnet18", "recu-itrd"): (94.1, _ITRD),
    ("cifar10", "resnet18", "recu-two_stage"): (93.2, "Xu et al. 2021"),
    ("cifar10", "resnet18", "rad"): (90.5, "Ding et al. 2019; " + _ITRD),
    ("cifar10", "resnet18", "irnet"): (91.5, "Qin et al. 2020"),
    ("cifar10", "resnet18", "rbnn"): (92.2, "Lin et al. 2020"),
    ("cifar10", "resnet18", "siman"): (92.5, "Lin et al. 2022"),
    ("cifar10", "resnet18", "reste"): (92.6, "Wu et al. 2023"),
    ("cifar10", "resnet18", "adabin"): (93.1, "Tu et al. 2022"),
    ("cifar10", "resnet18", "biper"): (93.75, "Vargas et al. 2024, two stages"),
    ("cifar10", "resnet20", "recu"): (87.5, "Xu et al. 2021"),
    ("cifar10", "vgg_small", "recu"): (92.2, "Xu et al. 2021"),
}


def published_accuracy(data: str, network: str, method: str) -> str:
    """Returns the figure as it is shown, or '-' where none is known of exactly this method on this network.

    >>> published_accuracy("cifar10", "resnet18", "recu-itrd"), published_accuracy("cifar10", "resnet18", "mine")
    ('94.1', '-')
    """
    known = PUBLISHED.get((data, network, method))
    return "-" if known is None else f"{known[0]:g}"
