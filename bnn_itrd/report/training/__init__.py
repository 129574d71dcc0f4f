"""Section "Training": the curves, and the numbers that distillers reported in each epoch."""
