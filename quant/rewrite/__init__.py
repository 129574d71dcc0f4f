"""Rewrites a full-precision network as a binary one."""
