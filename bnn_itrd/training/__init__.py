"""The training of one network: objective, trainer, evaluation, checkpoints."""
