"""`lowtide serve` and `lowtide worker`."""
