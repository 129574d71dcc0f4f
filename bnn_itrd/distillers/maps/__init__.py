"""Methods that compare the maps of the stages, one file for each."""
