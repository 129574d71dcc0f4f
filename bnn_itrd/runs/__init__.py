"""A run is a folder: training its networks there, giving them back, comparing them."""
