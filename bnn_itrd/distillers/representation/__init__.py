"""Methods that compare the representations, the inputs of the classifiers, one file for each."""
