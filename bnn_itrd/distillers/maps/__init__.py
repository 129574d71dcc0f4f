"""Methods that compare the maps of the stages, a file for each."""
