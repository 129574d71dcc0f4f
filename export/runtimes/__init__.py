"""Foreign runtimes, each in a Python environment of its own: made once by `setup`, found again, called as a process."""

from bnn_itrd.export.runtimes.environments import RUNTIMES, Runtime, call, find, folder, setup

__all__ = ["RUNTIMES", "Runtime", "call", "find", "folder", "setup"]
