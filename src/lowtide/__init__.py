"""Lowtide: a Batch API for the models you already serve."""

__version__ = "0.1.0"
