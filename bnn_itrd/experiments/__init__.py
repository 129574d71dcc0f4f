"""Code for experiments with several trained networks: sweeps, linear probes, figures, and tables."""
