"""Runs: a run is a folder in which networks are trained, from which they are loaded, and where they are compared."""
