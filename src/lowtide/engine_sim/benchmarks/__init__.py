"""The simulated engine in virtual time, and what its figures are compared with; for benchmarks."""
