"""Tracing of a PyTorch network to an ONNX graph with one node for each binary layer, the canonical graph."""
