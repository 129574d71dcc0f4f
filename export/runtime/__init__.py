"""What runs a file written by this package, without torch: NumPy and onnxruntime are all it needs."""
