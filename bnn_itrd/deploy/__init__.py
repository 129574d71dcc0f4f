"""Exported files: writing them, running them in their runtimes, comparing them with their networks, timing them."""
