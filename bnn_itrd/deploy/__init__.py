"""A file and what runs it: writing it, opening it, holding it against its network, timing it."""
