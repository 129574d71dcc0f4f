"""Triton kernels for operations that torch.compile does not fuse; each has a reference in `methods`."""
