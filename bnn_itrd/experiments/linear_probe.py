"""The linear probe, which rates a network's features by training a linear classifier on them, often on other data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from einops import einsum, repeat
from torch import Tensor, nn

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.splits import ImageData, Split
from bnn_itrd.errors import UserError
from bnn_itrd.models import evaluation_mode, observe

__all__ = ["linear_probe", "probe_data", "representations"]

# The weights of red, green and blue in a grey image (ITU-R 601). Exported files use the same.
_LUMA = (0.299, 0.587, 0.114)


def probe_data(known: Mapping[str, Any], given: Mapping[str, Any]) -> ImageData:
    """Loads the data set that the command line names, with images of the size that the network takes.

    known: the settings stored in the network's checkpoint; given: the `DataConfig` fields of the command line, among
    them `name`. If the name is the address of a user's code, that is imported, because the user gave it. Raises
    UserError if the images cannot have that size, and as `load_data` does.
    """
    height, width = known["input_shape"][1:]
    fields = dict(given)
    if height == width:
        fields.setdefault("image_size", height)
    saved = dict(known.get("data") or {})
    if fields["name"] == saved.get("name") and saved.get("root") is not None:
        fields.setdefault("root", saved["root"])
    data = load_data(DataConfig(**fields))
    if tuple(data.input_shape[1:]) != (height, width):
        raise UserError(
            f"the network takes images of {height} x {width} pixels, but {data.name} has "
            f"{data.input_shape[1]} x {data.input_shape[2]}: choose another data set"
        )
    return data


def _normalised_as_trained(images: Tensor, data: ImageData, known: Mapping[str, Any]) -> Tensor:
    """Converts images (n, c, h, w) from the data's normalisation and number of channels to the network's."""

    def channels(values: Any) -> Tensor:
        """Returns numbers per channel as a tensor (c, 1, 1)."""
        return torch.tensor(values, dtype=torch.float32, device=images.device)[:, None, None]

    pixels = images * channels(data.std) + channels(data.mean)
    wanted = known["input_shape"][0]
    if pixels.shape[1] == 1 and wanted == 3:
        pixels = repeat(pixels, "n 1 h w -> n c h w", c=3)
    elif pixels.shape[1] == 3 and wanted == 1:
        luma = torch.tensor(_LUMA, device=images.device)
        pixels = einsum(pixels, luma, "n c h w, c -> n h w")[:, None]
    return (pixels - channels(known["mean"])) / channels(known["std"])


@torch.no_grad()
def representations(
    model: nn.Module, split: Split, data: ImageData, known: Mapping[str, Any], *, batch_size: int = 256
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns a network's representations of all images of a split, float32 (n, d), and their labels (n,).

    The network runs in eval mode. data: the data set of the split; known: the settings stored in its checkpoint.
    """
    device = next(model.parameters()).device
    features, labels = [], []
    observed = observe(model)
    try:
        with evaluation_mode(model):
            for images, truth, _ in split.eval_batches(batch_size, device=device):
                features.append(observed(_normalised_as_trained(images, data, known)).representation.float().cpu())
                labels.append(truth.cpu())
    finally:
        observed.remove()
    return torch.cat(features).numpy(), torch.cat(labels).numpy()


def linear_probe(
    model: nn.Module, known: Mapping[str, Any], data: ImageData, *, c: float = 1.0, max_iterations: int = 1000
) -> dict[str, Any]:
    """Trains a linear classifier on a network's representation of a data set, and returns its accuracy.

    It is multinomial logistic regression; L-BFGS finds the minimum over W and b of

        sum_i cross-entropy(W z_i + b, y_i) + |W|^2 / (2 c)

    z: the features with mean 0 and variance 1 over the training images. known: the settings stored in the network's
    checkpoint (input_shape, mean, std). Images are not augmented. The result has, among other entries, top1 (on test
    images) and train_top1 in percent, loss (test) and train_loss as mean cross-entropy in nats, and whether L-BFGS
    `converged`.
    Raises UserError if c <= 0, max_iterations < 1, the features are not finite, the training images are all of one
    class, or a class has test images but no training images.
    """
    for name, value in (("c", c), ("max_iterations", max_iterations)):
        if not value > 0:
            raise UserError(f"{name} must be > 0, got {value!r}")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, train_labels = representations(model, data.train, data, known)
    test, test_labels = representations(model, data.test, data, known)
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        raise UserError(f"the network's representation of {data.name} is not finite: look at it with bnn-itrd evaluate")
    if len(np.unique(train_labels)) < 2:
        raise UserError(f"all training images of {data.name} are of one class: a linear probe needs two or more")
    if absent := sorted(set(test_labels.tolist()) - set(train_labels.tolist())):
        raise UserError(
            f"{data.name} has test images of class {data.classes[absent[0]]!r}, but no training image of it"
        )
    # For two classes scikit-learn fits only the difference w of the two rows of W, with |W|^2 = |w|^2 / 2.
    regression = LogisticRegression(C=c if len(np.unique(train_labels)) > 2 else 2 * c, max_iter=max_iterations)
    classifier = make_pipeline(StandardScaler(), regression)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result says so in `converged`
        classifier.fit(train, train_labels)
    iterations = int(np.max(regression.n_iter_))
    return {
        "top1": 100 * float(classifier.score(test, test_labels)),
        "train_top1": 100 * float(classifier.score(train, train_labels)),
        "loss": float(log_loss(test_labels, classifier.predict_proba(test), labels=regression.classes_)),
        "train_loss": float(log_loss(train_labels, classifier.predict_proba(train), labels=regression.classes_)),
        "classes": len(data.classes),
        "train": len(train_labels),
        "test": len(test_labels),
        "dimensions": int(train.shape[1]),
        "input_shape": list(known["input_shape"]),
        "c": c,
        "iterations": iterations,
        "converged": iterations < max_iterations,
    }
