"""One step of a training: what it computes, in which compiled form, and whether its numbers are finite."""
