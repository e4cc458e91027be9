"""Loops for the life of a batch: validate, assemble, expire, sweep, unpause."""
