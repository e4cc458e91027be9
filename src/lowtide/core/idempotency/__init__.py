"""Idempotency keys: which request a client means to make once, and what an earlier one made."""
