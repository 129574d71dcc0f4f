"""What is in the folder of a finished run, and what can be done with it."""
