"""Code for runs; a run is a folder in which a teacher and its students are trained, stored, and compared."""
