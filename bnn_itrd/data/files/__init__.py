"""Data sets of image files, one folder for each class or in a published layout; held in memory, or read as needed."""
