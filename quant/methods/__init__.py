"""Published binarisers, one file for each paper."""
