"""Doubles for tests and benchmarks: engines, clocks, servers, a simulated system. Not in the
wheel."""
