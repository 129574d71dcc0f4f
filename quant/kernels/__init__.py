"""This package has Triton kernels for operations that torch.compile does not fuse; `methods` defines their results."""
