"""The service for idempotency keys."""
