"""The targets `onnx` and `onnx-plain`: a network as one .onnx file that a stock onnxruntime runs."""
