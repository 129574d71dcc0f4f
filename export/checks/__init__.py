"""Checks of an exported file: before it is moved to its place, and against its network afterwards."""
