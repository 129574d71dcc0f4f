"""Making a network that was written in full precision binary."""
