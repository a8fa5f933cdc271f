"""Linear probes on the tokens of each block."""
