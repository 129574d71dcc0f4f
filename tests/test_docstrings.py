"""The examples of docstrings run, each module's as it is imported from bnn_itrd."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import bnn_itrd

# Scripts of their own: what compiles the native library, what a foreign Python runs, a command's start.
_SCRIPTS = (".native.src.", "_child", ".__main__")


def modules() -> list[str]:
    """Every module of the package by its name."""
    found = (module.name for module in pkgutil.walk_packages(bnn_itrd.__path__, "bnn_itrd."))
    return [name for name in found if not any(part in f"{name}." for part in _SCRIPTS)]


def test_examples_of_docstrings_run(capsys: pytest.CaptureFixture[str]) -> None:
    tried = failed = 0
    for name in modules():
        result = doctest.testmod(importlib.import_module(name))
        tried, failed = tried + result.attempted, failed + result.failed
    assert failed == 0, capsys.readouterr().out
    assert tried > 100
