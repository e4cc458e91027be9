"""A batch and what it is made of: file lines, plan, chunks, segments, result order."""
