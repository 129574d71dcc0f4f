"""Trains one network: the loss, the loop over epochs, the evaluation, and checkpoints."""
