"""Exporters for the targets `onnx` and `onnx-plain`, which write a network as one .onnx file for onnxruntime."""
