"""Tracing: it turns a network into the canonical graph, with one node for each binary layer and nothing folded."""
