"""The training of one network: its loss, the loop over epochs, evaluation, checkpoints."""
