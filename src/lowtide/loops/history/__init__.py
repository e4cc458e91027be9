"""The loop that writes history down, beside the work and never in its way."""
