"""Triton kernels of what torch.compile does not fuse. Each has a plain form, which is its definition."""
