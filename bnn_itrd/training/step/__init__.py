"""What a step of a training consists of: augmentation, the loss, compilation, the check for NaNs."""
