"""Prometheus metrics: what is counted and timed, and the bounds on label values."""
