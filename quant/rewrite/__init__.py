"""This package converts a full-precision network into a binary one: `binarize`."""
