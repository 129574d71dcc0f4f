"""Faults that are made on purpose: files that are damaged, processes that are killed, memory that is watched.

The tests call these functions with few cases, `benchmarks/campaign.py` with as many as its minutes allow.
"""
