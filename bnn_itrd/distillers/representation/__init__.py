"""Methods that compare the two representations, the inputs of the classifiers, a file for each."""
