"""Loops for calls that wait for an answer from the batch queue."""
