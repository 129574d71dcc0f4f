"""The distillation methods that compare representations, which are the inputs of the classifiers; one file for each."""
