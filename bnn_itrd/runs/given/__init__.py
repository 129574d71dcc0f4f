"""Files of trained weights that the user gives."""
