"""The simulated engine on the clock: its task, its faults on purpose, its latency histograms."""
