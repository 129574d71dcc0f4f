"""Functions for exported files: they write, run and time them, and compare them with the networks.

They join `bnn_itrd.export`, which knows networks and files, with data sets and checkpoints.
"""
