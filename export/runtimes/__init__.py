"""External runtimes, each in a virtual environment of its own: `setup` makes it, `find` finds it, `call` runs in it."""

from bnn_itrd.export.runtimes.environments import RUNTIMES, Runtime, call, find, folder, setup

__all__ = ["RUNTIMES", "Runtime", "call", "find", "folder", "setup"]
