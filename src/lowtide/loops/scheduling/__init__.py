"""Loops that plan: which batches are urgent, and how many tokens a model makes of a prompt."""
