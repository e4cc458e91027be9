"""What each step computes: the waiting queue, the step scheduler, and its bound on batch work."""
