"""The distillation methods that compare maps, which are the outputs (n, c, h, w) of stages; one file for each."""
