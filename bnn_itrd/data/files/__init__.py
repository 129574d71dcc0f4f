"""Data sets of image files: folders with one folder for each class, and published data sets in their own layouts."""
