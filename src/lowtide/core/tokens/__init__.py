"""Estimates of prompt tokens, learned from the usage that engines report."""
