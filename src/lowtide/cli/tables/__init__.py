"""`lowtide run` over the rows of a table: its options, its plan, its batches, its state."""
