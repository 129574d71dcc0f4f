"""This package has the published binarisers, one file for each paper."""
