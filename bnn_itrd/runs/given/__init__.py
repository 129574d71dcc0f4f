"""Functions that read the user's own files of trained weights."""
