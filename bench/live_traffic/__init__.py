"""Batch beside live traffic, in virtual time: ours and seven other rules at equal live load."""
