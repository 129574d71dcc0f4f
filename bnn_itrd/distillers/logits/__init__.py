"""The distillation methods that compare logits; one file for each."""
