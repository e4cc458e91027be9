"""Services for batches: create, look up, cancel, estimate, read and assemble results."""
