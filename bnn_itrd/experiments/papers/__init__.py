"""The papers' tables: what is published, which cells of them our runs fill, and the commands of the others."""
