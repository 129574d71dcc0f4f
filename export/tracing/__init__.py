"""From a network to the canonical graph: one node per binary layer, nothing folded."""
