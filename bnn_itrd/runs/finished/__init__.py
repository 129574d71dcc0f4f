"""Code for finished runs: it finds their exported files, and prints the commands to try next."""
