"""Channels last: the passes that bring what lies between binary layers, and the layers themselves, to NHWC."""
