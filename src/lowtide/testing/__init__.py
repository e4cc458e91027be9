"""Doubles for tests: what stands in for the world. Shipped, never imported by production code."""
