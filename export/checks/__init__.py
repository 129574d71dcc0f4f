"""Checks that an exported file computes what its network computes, while the file is written and afterwards."""
