"""The papers' tables: the published values, the runs that fill their cells, and commands for the empty cells."""
