"""Many runs: sweeps, probes, and their tables."""
