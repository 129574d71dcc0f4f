"""Foreign runtimes, each in a Python environment of its own."""
