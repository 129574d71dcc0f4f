"""Channels last: the pass that brings binary layers, and the operations between them, from NCHW to NHWC."""
