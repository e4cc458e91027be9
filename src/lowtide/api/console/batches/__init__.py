"""Pages of batches: the list, a new one, one batch, its lines, its report, and what buttons do."""
