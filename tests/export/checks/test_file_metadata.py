"""The metadata that every exported file has."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest
import torch

from bnn_itrd.export.checks.file_metadata import file_metadata
from bnn_itrd.export.runtime.checksum import NO_DIGEST

GIVEN: dict[str, Any] = {
    "input_shape": (3, 8, 8),
    "classes": ["cat", "dog"],
    "mean_std": ([0.5, 0.5, 0.5], [0.2, 0.2, 0.2]),
    "own": {"flavor": "finn", "baked": False},
    "added": {"dataset": "mine"},
}


def test_all_entries_in_order() -> None:
    assert list(file_metadata({"format_version": 3}, **GIVEN).items()) == [
        ("format_version", 3),
        ("input_shape", [3, 8, 8]),
        ("classes", ["cat", "dog"]),
        ("mean", [0.5, 0.5, 0.5]),
        ("std", [0.2, 0.2, 0.2]),
        ("flavor", "finn"),
        ("baked", False),
        ("sha256", NO_DIGEST),
        ("torch_version", torch.__version__),
        ("bnn_itrd_version", importlib.metadata.version("bnn-itrd")),
        ("dataset", "mine"),
    ]


def test_what_is_not_known_is_left_out() -> None:
    given = {**GIVEN, "classes": None, "mean_std": None, "own": {"baked": None}, "added": None}
    assert list(file_metadata({"format_version": 1}, **given)) == [
        "format_version",
        "input_shape",
        "sha256",
        "torch_version",
        "bnn_itrd_version",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"added": {"sha256": "0", "mine": 1, "flavor": "x"}}, "metadata must not have an entry flavor, sha256, which"),
        # Also where this file has no such entry: a reader takes it for the export's own.
        ({"added": {"classes": "ab"}, "classes": None}, "metadata must not have an entry classes"),
        ({"added": {"baked": "yes"}, "own": {"baked": None}}, "metadata must not have an entry baked"),
        ({"classes": "cat"}, "classes must be a list of names, got one string, 'cat'"),
    ],
)
def test_names_that_the_export_writes_itself_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        file_metadata({"format_version": 1}, **{**GIVEN, **change})
