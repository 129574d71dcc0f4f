"""Passes over graphs: each changes the model and returns how many times."""
