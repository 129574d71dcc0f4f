"""The portable artefact: one ONNX file that a stock onnxruntime runs."""
