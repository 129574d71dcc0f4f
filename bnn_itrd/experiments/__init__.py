"""Experiments with several runs: sweeps, linear probes, and tables."""
